//! The arguments of a call, read at most once and only when a condition asks.

use std::cell::OnceCell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Largest arguments that conditions are asked about, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Arguments as text, and as a value once somebody asked.
#[derive(Debug)]
pub(crate) struct ArgumentsOnce<'a> {
    text: &'a str,
    parsed: OnceCell<Option<Value>>,
}

impl<'a> ArgumentsOnce<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            text,
            parsed: OnceCell::new(),
        }
    }

    /// The arguments; `None` when they are no object, too large, or could be read in two ways.
    pub(super) fn parsed(&self) -> Option<&Map<String, Value>> {
        let parse = || match self.text.trim() {
            "" => Some(Value::Object(Map::new())),
            text if text.len() > BYTES_MAX => None,
            text => serde_json::from_str(text).ok().map(|Clear(value)| value),
        };
        self.parsed.get_or_init(parse).as_ref()?.as_object()
    }
}

/// A JSON value in which no key is there twice.
struct Clear(Value);

impl<'de> Deserialize<'de> for Clear {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClearVisitor).map(Self)
    }
}

struct ClearVisitor;

impl<'de> Visitor<'de> for ClearVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Clear(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Clear(value))) = entries.next_entry::<String, Clear>()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is there twice"));
            }
        }
        Ok(Value::Object(map))
    }
}
