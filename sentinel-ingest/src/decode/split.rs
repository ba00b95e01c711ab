//! Finding the events in a text, without understanding them.

use std::fmt;

use domain::{EventFault, FaultCode};
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::answer::BodyFault;
use crate::body::Layout;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event, or the place where one cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Json(&'a [u8]),
    Broken(EventFault),
}

/// Items of a body, at most so many.
struct Items<'a> {
    list: Vec<Item<'a>>,
    events_max: usize,
}

impl<'a> Items<'a> {
    fn add(&mut self, item: Item<'a>) -> Result<(), BodyFault> {
        if self.list.len() >= self.events_max {
            let events_max = self.events_max;
            return Err(BodyFault::TooManyEvents { events_max });
        }
        self.list.push(item);
        Ok(())
    }

    fn add_lines(&mut self, text: &'a [u8]) -> Result<(), BodyFault> {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text).chain([text.len()]) {
            let line = text[start..end].trim_ascii();
            start = end + 1;
            if !line.is_empty() {
                self.add(Item::Json(line))?;
            }
        }
        Ok(())
    }

    /// Values one after another, as pretty-printed as they like. Where one is broken, lines help to find the next; without lines
    /// nobody can say where it would begin, and one fault speaks for all the rest.
    fn add_values(&mut self, text: &'a [u8]) -> Result<(), BodyFault> {
        let mut rest = text;
        while !rest.is_empty() {
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
            match values.next() {
                Some(Ok(value)) => self.add(Item::Json(value.get().as_bytes()))?,
                Some(Err(error)) if !looks_like_lines(rest) => {
                    let at = text.len() - rest.len();
                    let message = format!("the body is not valid JSON from byte {at} on: {error}");
                    return self.add(Item::Broken(EventFault {
                        code: FaultCode::InvalidJson,
                        message,
                    }));
                }
                Some(Err(_)) => return self.add_lines(rest),
                None => return Ok(()),
            }
            rest = rest[values.byte_offset()..].trim_ascii_start();
        }
        Ok(())
    }
}

/// Splits a text into events. A fault of the split itself concerns the whole body.
pub(super) fn split(text: &[u8], layout: Layout, events_max: usize) -> Result<Vec<Item<'_>>, BodyFault> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_ascii();
    let mut items = Items {
        list: Vec::new(),
        events_max,
    };
    match (layout, text.first()) {
        (_, None) => return Err(BodyFault::Json("the body is empty; send at least one event".to_owned())),
        (Layout::Lines, Some(_)) => items.add_lines(text)?,
        (Layout::Json, Some(b'[')) => elements(text, &mut items)?,
        (Layout::Json | Layout::Telemetry(..), Some(_)) => items.add_values(text)?,
    }
    Ok(items.list)
}

/// The elements of an array, as they are, at most so many.
pub(super) fn raw_elements(text: &[u8], events_max: usize) -> Result<Vec<&[u8]>, BodyFault> {
    let mut items = Items {
        list: Vec::new(),
        events_max,
    };
    elements(text, &mut items)?;
    let json = items.list.into_iter().filter_map(|item| match item {
        Item::Json(json) => Some(json),
        Item::Broken(_) => None,
    });
    Ok(json.collect())
}

/// Whether what follows the first line begins like another object.
fn looks_like_lines(text: &[u8]) -> bool {
    let next = memchr::memchr(b'\n', text).map(|end| text[end..].trim_ascii_start());
    next.is_some_and(|next| next.starts_with(b"{"))
}

/// The elements of an array. It is one document: where it is broken, none of it is taken.
fn elements<'a>(text: &'a [u8], items: &mut Items<'a>) -> Result<(), BodyFault> {
    let mut fault = None;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let seed = Elements {
        items,
        fault: &mut fault,
    };
    let outcome = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (fault, outcome) {
        (Some(fault), _) => Err(fault),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(BodyFault::Json(format!(
            "the array is not valid JSON, so none of it was taken: {error}"
        ))),
    }
}

struct Elements<'a, 'i> {
    items: &'i mut Items<'a>,
    /// Set when it was us who stopped.
    fault: &'i mut Option<BodyFault>,
}

impl<'de> DeserializeSeed<'de> for Elements<'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<(), S::Error> {
        while let Some(element) = elements.next_element::<&'de RawValue>()? {
            if let Err(fault) = self.items.add(Item::Json(element.get().as_bytes())) {
                let error = serde::de::Error::custom(&fault);
                *self.fault = Some(fault);
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
