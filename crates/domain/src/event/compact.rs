//! Events as few bytes, for keeping between two processes of this product: the embedded log holds them so.
//!
//! ```text
//! event    id 16 bytes | timestamp i64 | received_at i64 | columns u64 | fields u8, then what the last two say is there:
//!          received_by, trace_id (16 bytes), span_id (8), parent_span_id (8), producer, producer_seq (by bits 0 to 5 of `fields`),
//!          source, event_type, the columns in order of their numbers (by the bits of `columns`),
//!          a count of attributes with their names and values (bit 6 of `fields`)
//! text     length in bytes, then UTF-8
//! count    LEB128: seven bits a byte, lowest first, the high bit says that more follow; codes are zigzagged first
//! ```
//!
//! Numbers of fixed size are little-endian. A column's number is its place in [`COLUMNS`]. Version 1 of this form is what the numbers
//! below 47 mean; a column that is added goes to the end, and a reader that does not know it refuses the event.

use super::columns::{COLUMNS, Kind, Payload, Value};
use super::{Event, WireVersion};
use crate::{EventId, SpanId, Timestamp, TraceId};

const RECEIVED_BY: u8 = 1 << 0;
const TRACE_ID: u8 = 1 << 1;
const SPAN_ID: u8 = 1 << 2;
const PARENT_SPAN_ID: u8 = 1 << 3;
const PRODUCER: u8 = 1 << 4;
const PRODUCER_SEQ: u8 = 1 << 5;
const ATTRIBUTES: u8 = 1 << 6;

/// Bytes that are no event in this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCompact {
    /// They end within a value, or go on after the last one.
    #[error("the event has another length than its values")]
    Length,
    /// A text is not UTF-8.
    #[error("a text of the event is not UTF-8")]
    Text,
    /// A column or field that this program does not know, or a value outside its column's set.
    #[error("the event has a value that this program does not know")]
    Unknown,
}

/// Appends an event.
pub fn write(event: &Event, out: &mut Vec<u8>) {
    out.extend_from_slice(event.id.as_bytes());
    out.extend_from_slice(&event.timestamp.nanos().to_le_bytes());
    out.extend_from_slice(&event.received_at.nanos().to_le_bytes());
    let masks = out.len();
    out.extend_from_slice(&[0; 9]);
    let mut fields = 0;
    if let Some(key) = &event.received_by {
        fields |= RECEIVED_BY;
        put_text(key, out);
    }
    for (bit, bytes) in [
        (TRACE_ID, event.trace_id.as_ref().map(|id| id.as_bytes().as_slice())),
        (SPAN_ID, event.span_id.as_ref().map(|id| id.as_bytes().as_slice())),
        (
            PARENT_SPAN_ID,
            event.parent_span_id.as_ref().map(|id| id.as_bytes().as_slice()),
        ),
    ] {
        if let Some(bytes) = bytes {
            fields |= bit;
            out.extend_from_slice(bytes);
        }
    }
    if let Some(producer) = &event.producer {
        fields |= PRODUCER;
        put_text(producer, out);
    }
    if let Some(count) = event.producer_seq {
        fields |= PRODUCER_SEQ;
        put_count(count, out);
    }
    put_text(&event.source, out);
    put_text(&event.event_type, out);
    let columns = put_columns(&event.payload, out);
    if !event.payload.attributes.is_empty() {
        fields |= ATTRIBUTES;
        put_count(event.payload.attributes.len() as u64, out);
        for (name, value) in &event.payload.attributes {
            put_text(name, out);
            put_text(value, out);
        }
    }
    out[masks..masks + 8].copy_from_slice(&columns.to_le_bytes());
    out[masks + 8] = fields;
}

fn put_columns(payload: &Payload, out: &mut Vec<u8>) -> u64 {
    let mut columns = 0;
    payload.each(|number, value| {
        columns |= 1 << number;
        match value {
            Value::Absent => {}
            Value::Text(text) => put_text(text, out),
            Value::Count(count) => put_count(count, out),
            // Small codes of either sign become small counts.
            Value::Code(code) => put_count(((code << 1) ^ (code >> 63)).cast_unsigned(), out),
        }
    });
    columns
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_count(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn put_count(mut count: u64, out: &mut Vec<u8>) {
    while let Some(low) = u8::try_from(count & 0x7f).ok().filter(|_| count > 0x7f) {
        out.push(low | 0x80);
        count >>= 7;
    }
    out.push(u8::try_from(count).unwrap_or_default());
}

/// Reads an event that fills `bytes`.
pub fn read(bytes: &[u8]) -> Result<Event, NotCompact> {
    let mut take = Take(bytes);
    let event = take.event()?;
    if take.0.is_empty() {
        Ok(event)
    } else {
        Err(NotCompact::Length)
    }
}

struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn event(&mut self) -> Result<Event, NotCompact> {
        let id = EventId::from_bytes(self.array()?);
        let (timestamp, received_at) = (self.time()?, self.time()?);
        let columns = u64::from_le_bytes(self.array()?);
        let [fields] = self.array()?;
        if fields & (1 << 7) != 0 {
            return Err(NotCompact::Unknown);
        }
        let has = |bit: u8| (fields & bit != 0).then_some(());
        let received_by = has(RECEIVED_BY).map(|()| self.owned()).transpose()?;
        let trace_id = has(TRACE_ID)
            .map(|()| self.array())
            .transpose()?
            .and_then(TraceId::from_bytes);
        let span_id = has(SPAN_ID).map(|()| self.array()).transpose()?.and_then(SpanId::from_bytes);
        let parent_span_id = has(PARENT_SPAN_ID)
            .map(|()| self.array())
            .transpose()?
            .and_then(SpanId::from_bytes);
        let producer = has(PRODUCER).map(|()| self.owned()).transpose()?;
        let producer_seq = has(PRODUCER_SEQ).map(|()| self.count()).transpose()?;
        let (source, event_type) = (self.owned()?, self.owned()?);
        let mut payload = Box::<Payload>::default();
        self.columns(columns, &mut payload)?;
        if fields & ATTRIBUTES != 0 {
            for _ in 0..self.count()? {
                let (name, value) = (self.owned()?, self.owned()?);
                payload.attributes.insert(name, value);
            }
        }
        Ok(Event {
            version: WireVersion,
            id,
            timestamp,
            received_at,
            received_by,
            source,
            event_type,
            trace_id,
            span_id,
            parent_span_id,
            producer,
            producer_seq,
            payload,
        })
    }

    fn columns(&mut self, mut columns: u64, payload: &mut Payload) -> Result<(), NotCompact> {
        while columns != 0 {
            let number = columns.trailing_zeros();
            columns &= columns - 1;
            let column = COLUMNS.get(number as usize).ok_or(NotCompact::Unknown)?;
            let value = match column.kind {
                Kind::Name | Kind::Text => Value::Text(self.text()?),
                Kind::Count => Value::Count(self.count()?),
                Kind::Code => {
                    let folded = self.count()?;
                    Value::Code((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
                }
            };
            if !(column.write)(payload, value) {
                return Err(NotCompact::Unknown);
            }
        }
        Ok(())
    }

    fn slice(&mut self, count: usize) -> Result<&'a [u8], NotCompact> {
        let (slice, rest) = self.0.split_at_checked(count).ok_or(NotCompact::Length)?;
        self.0 = rest;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotCompact> {
        let (array, rest) = self.0.split_first_chunk().ok_or(NotCompact::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    fn time(&mut self) -> Result<Timestamp, NotCompact> {
        Ok(Timestamp::from_nanos(i64::from_le_bytes(self.array()?)))
    }

    fn count(&mut self) -> Result<u64, NotCompact> {
        let mut count = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            count |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(count);
            }
        }
        Err(NotCompact::Length)
    }

    fn text(&mut self) -> Result<&'a str, NotCompact> {
        let bytes = usize::try_from(self.count()?).map_err(|_| NotCompact::Length)?;
        std::str::from_utf8(self.slice(bytes)?).map_err(|_| NotCompact::Text)
    }

    fn owned(&mut self) -> Result<String, NotCompact> {
        self.text().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V1: &str = include_str!("../../fixtures/event-v1.json");
    /// The same event in this form.
    const COMPACT: &[u8] = include_bytes!("../../fixtures/event-v1.compact");

    fn written(event: &Event) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(event, &mut bytes);
        bytes
    }

    #[test]
    fn the_form_is_the_one_that_logs_on_disk_have() {
        let event: Event = serde_json::from_str(V1).unwrap();
        assert_eq!(read(COMPACT), Ok(event.clone()));
        assert_eq!(
            written(&event),
            COMPACT,
            "a change of the form needs a new version in the log"
        );
    }

    #[test]
    fn columns_keep_their_numbers() {
        let names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        let pinned: Vec<_> = include_str!("../../fixtures/columns.txt").lines().collect();
        assert_eq!(names, pinned, "new columns go to the end");
    }

    #[test]
    fn each_cut_and_each_addition_is_noticed() {
        for end in 0..COMPACT.len() {
            assert!(read(&COMPACT[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(read(&[COMPACT, b"\0"].concat()), Err(NotCompact::Length));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(code in any::<i64>(), count in any::<u64>(), text in "\\PC{0,200}", seq in any::<Option<u64>>(), nanos in any::<i64>(), span in any::<[u8; 8]>()) {
            let mut event: Event = serde_json::from_str(V1).unwrap();
            event.timestamp = Timestamp::from_nanos(nanos);
            event.producer_seq = seq;
            event.span_id = SpanId::from_bytes(span);
            event.received_by = seq.map(|_| text.clone());
            event.payload.rpc_code = Some(code);
            event.payload.latency_us = Some(count);
            event.payload.attributes.insert(text.clone(), text.clone());
            event.payload.tool_name = Some(text);
            prop_assert_eq!(read(&written(&event)), Ok(event));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let _any = read(&bytes);
            let mut flipped = COMPACT.to_vec();
            let at = at.index(flipped.len());
            flipped[at] = byte;
            let _flipped = read(&flipped);
        }
    }
}
