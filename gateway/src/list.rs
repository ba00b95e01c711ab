//! Lists of tools, prompts and resources on their way to a caller: what it may not use is cut out of them, page by page. Everything else
//! stays byte for byte.
//!
//! A shortened list is for this caller only and not for long: `cacheScope` and `ttlMs` say so where the protocol has them. What cannot
//! be read cannot be shortened, and does not pass.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use domain::Timestamp;
use domain::policy::{Arguments, Call, Target};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::identify::Caller;
use crate::policy::Policy;

/// Longest answer, or event of a stream, that may hold a list.
const LIST_BYTES_MAX: usize = 8 << 20;
/// Clients keep lists for this long at most, so that they see a new grant soon.
const TTL_MS_MAX: u64 = 10_000;

/// The kinds of lists: key of the items, and key of what an item is called.
const KINDS: [(&str, &str); 3] = [("tools", "name"), ("prompts", "name"), ("resources", "uri")];

/// A list that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a list that cannot be read cannot be shortened to what the caller may use")]
pub(crate) struct Unreadable;

/// How the answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Json,
    Sse,
    /// Neither, or encoded: not to be read.
    Other,
}

/// Shortens the lists of one answer.
#[derive(Debug)]
pub(crate) struct ListFilter {
    shape: Shape,
    rules: Rules,
    held: Vec<u8>,
}

/// Who may see what.
#[derive(Debug)]
struct Rules {
    policy: Arc<Policy>,
    caller: Caller,
    now: Timestamp,
    /// Whether results say how long they may be kept, as in revision 2026-07-28.
    has_cache: bool,
}

impl ListFilter {
    pub(crate) fn new(shape: Shape, policy: Arc<Policy>, caller: Caller, now: Timestamp, has_cache: bool) -> Self {
        Self {
            shape,
            rules: Rules {
                policy,
                caller,
                now,
                has_cache,
            },
            held: Vec::new(),
        }
    }

    /// Takes a piece and gives what may pass of it and of those before.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Bytes, Unreadable> {
        if self.shape == Shape::Other || self.held.len() + piece.len() > LIST_BYTES_MAX {
            return Err(Unreadable);
        }
        self.held.extend_from_slice(piece);
        if self.shape == Shape::Json {
            return Ok(Bytes::new());
        }
        let mut passed = Vec::new();
        while let Some(end) = event_end(&self.held) {
            let rest = self.held.split_off(end);
            let event = std::mem::replace(&mut self.held, rest);
            passed.extend_from_slice(&self.rules.event(&event)?);
        }
        Ok(passed.into())
    }

    /// What is left at the end.
    pub(crate) fn end(&mut self) -> Result<Bytes, Unreadable> {
        let held = std::mem::take(&mut self.held);
        match self.shape {
            // An event without its blank line never happened, so readers drop it.
            _ if held.is_empty() => Ok(Bytes::new()),
            Shape::Json => Ok(self.rules.message(&held)?.into()),
            Shape::Sse => Ok(Bytes::new()),
            Shape::Other => Err(Unreadable),
        }
    }
}

/// Where the first event ends, its blank line included.
fn event_end(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for end in memchr::memchr2_iter(b'\n', b'\r', bytes) {
        if bytes[end] == b'\n' && end > 0 && bytes[end - 1] == b'\r' {
            // Belongs to the line end before it.
            if line_start == end {
                line_start = end + 1;
            }
            continue;
        }
        if end == line_start && end > 0 {
            let pair = bytes[end] == b'\r' && bytes.get(end + 1) == Some(&b'\n');
            return Some(end + 1 + usize::from(pair));
        }
        line_start = end + 1;
    }
    None
}

impl Rules {
    fn event<'e>(&self, event: &'e [u8]) -> Result<Cow<'e, [u8]>, Unreadable> {
        let (mut data, mut others) = (Vec::new(), Vec::new());
        for line in event
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .filter(|line| !line.is_empty())
        {
            if let Some(text) = line.strip_prefix(b"data:") {
                if !data.is_empty() {
                    data.push(b'\n');
                }
                data.extend_from_slice(text.strip_prefix(b" ").unwrap_or(text));
            } else {
                others.extend_from_slice(line);
                others.push(b'\n');
            }
        }
        // Without data it is nothing to its reader, or only an id.
        if data.trim_ascii().is_empty() || serde_json::from_slice::<&RawValue>(&data).is_err() {
            return Ok(Cow::Borrowed(event));
        }
        match self.edit(&data)? {
            None => Ok(Cow::Borrowed(event)),
            Some(edited) => {
                let mut whole = others;
                // What was a line of data before is one again.
                for line in edited.split(|byte| *byte == b'\n') {
                    whole.extend_from_slice(b"data: ");
                    whole.extend_from_slice(line);
                    whole.push(b'\n');
                }
                whole.push(b'\n');
                Ok(Cow::Owned(whole))
            }
        }
    }

    fn message(&self, message: &[u8]) -> Result<Vec<u8>, Unreadable> {
        Ok(self.edit(message)?.unwrap_or_else(|| message.to_vec()))
    }

    /// The message with shorter lists; `None` when it has none.
    fn edit(&self, message: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        let text = std::str::from_utf8(message).map_err(|_| Unreadable)?;
        let Fields(fields) = serde_json::from_str(text).map_err(|_| Unreadable)?;
        let Some(result) = once(&fields, "result")? else {
            return Ok(None);
        };
        let Ok(Fields(fields)) = serde_json::from_str::<Fields<'_>>(result.get()) else {
            return Ok(None);
        };
        let mut cuts = Cuts::new(text);
        for (list, called) in KINDS {
            if let Some(items) = once(&fields, list)? {
                cuts.replace(items.get(), self.items(items, list, called)?);
            }
        }
        if cuts.is_empty() {
            return Ok(None);
        }
        if self.has_cache {
            match once(&fields, "cacheScope")? {
                Some(scope) => cuts.replace(scope.get(), "\"private\"".to_owned()),
                None => cuts.insert_in(result.get(), "\"cacheScope\":\"private\","),
            }
            if let Some(ttl) = once(&fields, "ttlMs")?
                && serde_json::from_str::<u64>(ttl.get()).map_or(true, |ttl| ttl > TTL_MS_MAX)
            {
                cuts.replace(ttl.get(), TTL_MS_MAX.to_string());
            }
        }
        Ok(Some(cuts.apply()))
    }

    fn items(&self, items: &RawValue, list: &str, called: &str) -> Result<String, Unreadable> {
        let items: Vec<&RawValue> = serde_json::from_str(items.get()).map_err(|_| Unreadable)?;
        let mut kept = String::from("[");
        for item in items {
            let Fields(fields) = serde_json::from_str(item.get()).map_err(|_| Unreadable)?;
            let name: Cow<'_, str> = match once(&fields, called)? {
                Some(name) => serde_json::from_str::<Text<'_>>(name.get()).map_err(|_| Unreadable)?.0,
                None => return Err(Unreadable),
            };
            if self.may_see(list, &name) {
                if kept.len() > 1 {
                    kept.push(',');
                }
                kept.push_str(item.get());
            }
        }
        kept.push(']');
        Ok(kept)
    }

    fn may_see(&self, list: &str, name: &str) -> bool {
        let target = match list {
            "tools" => Target::Tool(name),
            "prompts" => Target::Prompt(name),
            _ => Target::Resource(name),
        };
        let call = Call {
            arguments: Arguments::Any,
            claims: self.caller.claims(),
            presented: self.caller.presented(),
            ..Call::of(target)
        };
        self.policy.may_list(&call, self.now)
    }
}

/// A field that comes once or not at all: of two, nobody knows which one the reader takes.
fn once<'a>(fields: &[(Cow<'a, str>, &'a RawValue)], name: &str) -> Result<Option<&'a RawValue>, Unreadable> {
    let mut found = fields.iter().filter(|(key, _)| key == name).map(|(_, value)| *value);
    match (found.next(), found.next()) {
        (found, None) => Ok(found),
        _ => Err(Unreadable),
    }
}

/// Parts of a text that are replaced.
struct Cuts<'a> {
    text: &'a str,
    /// Start, end and what comes there instead.
    cuts: Vec<(usize, usize, String)>,
}

impl<'a> Cuts<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, cuts: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// `part` is a piece of the text itself.
    fn replace(&mut self, part: &'a str, with: String) {
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        self.cuts.push((start, start + part.len(), with));
    }

    /// Puts a field at the beginning of an object that has others.
    fn insert_in(&mut self, object: &'a str, field: &str) {
        let start = object.as_ptr() as usize - self.text.as_ptr() as usize + 1;
        self.cuts.push((start, start, field.to_owned()));
    }

    fn apply(mut self) -> Vec<u8> {
        self.cuts.sort_by_key(|(start, ..)| *start);
        let mut edited = Vec::with_capacity(self.text.len());
        let mut at = 0;
        for (start, end, with) in self.cuts {
            edited.extend_from_slice(&self.text.as_bytes()[at..start]);
            edited.extend_from_slice(with.as_bytes());
            at = end;
        }
        edited.extend_from_slice(&self.text.as_bytes()[at..]);
        edited
    }
}

/// An object's fields as they stand there.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = Vec::new();
        while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            fields.push((key, value));
        }
        Ok(Fields(fields))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests;
