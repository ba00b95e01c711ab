//! Walking the envelopes of an OTLP body in protobuf: requests of spans and of log records have the same shape.

use super::Items;
use crate::answer::BodyFault;

/// Field of resource groups in a request, and of scope groups in a resource group: 1 and 2; of items in a scope group: 2.
const GROUPS: u64 = 1;
const RESOURCE: u64 = 1;
const SCOPES: u64 = 2;
const ITEMS: u64 = 2;

pub(super) fn items(body: &[u8], events_max: usize) -> Result<Items<'_>, BodyFault> {
    let mut items = Items::default();
    for group in messages(body, GROUPS) {
        let group = group?;
        let resource = messages(group, RESOURCE).last().transpose()?.unwrap_or_default();
        let mut found = Vec::new();
        for scope in messages(group, SCOPES) {
            for item in messages(scope?, ITEMS) {
                if found.len() >= events_max {
                    return Err(BodyFault::TooManyEvents { events_max });
                }
                found.push(item?);
            }
        }
        items.add(resource, found, events_max)?;
    }
    Ok(items)
}

/// The embedded messages of one field; after a fault nothing more comes.
fn messages(bytes: &[u8], wanted: u64) -> impl Iterator<Item = Result<&[u8], BodyFault>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        loop {
            let bytes = rest.filter(|bytes| !bytes.is_empty())?;
            let Some(found) = Field::first(bytes) else {
                rest = None;
                let text = "the body is not a whole OTLP message in protobuf".to_owned();
                return Some(Err(BodyFault::Protobuf(text)));
            };
            rest = Some(found.rest);
            if let Some(message) = found.value.filter(|_| found.number == wanted) {
                return Some(Ok(message));
            }
        }
    })
}

/// A field and what follows it.
struct Field<'a> {
    number: u64,
    /// Its bytes where it has a length.
    value: Option<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Field<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (tag, rest) = varint(bytes)?;
        let number = tag >> 3;
        let (value, rest) = match tag & 7 {
            0 => (None, varint(rest)?.1),
            1 => (None, rest.get(8..)?),
            2 => {
                let (length, rest) = varint(rest)?;
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(value), rest)
            }
            5 => (None, rest.get(4..)?),
            // Groups were never in OTLP.
            _ => return None,
        };
        Some(Self { number, value, rest })
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}
