//! Values that nothing is decided by, and that every server must be able to read all the same.
//!
//! Parsers differ in what they make of half a surrogate pair, of numbers beyond a double and of nesting without end: some read on where
//! others give up or put something else in their place. Such values are refused wherever they stand.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A value that all parsers read alike; its content is dropped.
pub(super) struct Plain;

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

macro_rules! drop_values {
    ($($method:ident($type:ty)),+) => {$(
        fn $method<E>(self, _: $type) -> Result<Plain, E> {
            Ok(Plain)
        }
    )+};
}

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    drop_values!(
        visit_bool(bool),
        visit_i64(i64),
        visit_u64(u64),
        visit_f64(f64),
        visit_str(&str)
    );
    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain)
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Plain, S::Error> {
        while seq.next_element::<Plain>()?.is_some() {}
        Ok(Plain)
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Plain, M::Error> {
        while map.next_entry::<Plain, Plain>()?.is_some() {}
        Ok(Plain)
    }
}

/// A plain value, as it came.
pub(super) struct Raw<'a>(pub(super) &'a RawValue);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        serde_json::from_str::<Plain>(raw.get()).map_err(|_| D::Error::custom("a value is not read alike by everybody"))?;
        Ok(Self(raw))
    }
}

impl<'a> From<Raw<'a>> for Option<&'a RawValue> {
    fn from(raw: Raw<'a>) -> Self {
        Some(raw.0)
    }
}

/// Whether some parser takes a key for a name: without case, with the two signs beyond ASCII that fold to `s` and `k`, or only up to a
/// zero byte.
pub(super) fn is_alike(name: &str, key: &str) -> bool {
    if key.is_ascii() && !key.contains('\0') {
        return name.eq_ignore_ascii_case(key);
    }
    let key = key.split('\0').next().unwrap_or_default();
    key.chars().map(folded).eq(name.chars().map(folded))
}

fn folded(sign: char) -> char {
    match sign {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        sign => sign.to_ascii_lowercase(),
    }
}
