//! Events to record bodies and back, in the task of whoever asks.

use std::cell::RefCell;

use domain::event::compact;
use domain::{Event, Timestamp};
use lz4_flex::block::{compress, decompress};

use super::format::{FLAG_COMPACT, FLAG_LZ4, RecordHeader};
use crate::wire::read_line;
use crate::{AppendError, Record};

/// Before each row: its length as a little-endian `u32`.
const ROW_LENGTH_BYTES: usize = 4;
/// Texts shorter than this are kept as they are: compressing one event alone saves little and costs a table.
const COMPRESS_BYTES_MIN: usize = 1_024;
/// A scratch text larger than this is not kept for the next append.
const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// A record without its place in the log.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) text_bytes: u32,
    pub(super) crc: u32,
    pub(super) count: u32,
    pub(super) flags: u32,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Events as bodies of at most `text_bytes_max` bytes of text each, in order.
pub(super) fn encode(events: &[Event], text_bytes_max: usize) -> Result<Vec<Body>, AppendError> {
    SCRATCH.with_borrow_mut(|text| {
        let bodies = encode_with(events, text_bytes_max, text);
        text.clear();
        if text.capacity() > SCRATCH_BYTES_MAX {
            *text = Vec::new();
        }
        bodies
    })
}

fn encode_with(events: &[Event], text_bytes_max: usize, text: &mut Vec<u8>) -> Result<Vec<Body>, AppendError> {
    let (mut bodies, mut count) = (Vec::with_capacity(1), 0);
    text.clear();
    for event in events {
        let before = text.len();
        push_row(event, text);
        let bytes = text.len() - before;
        if bytes > text_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                bytes_max: text_bytes_max,
            });
        }
        if text.len() > text_bytes_max {
            bodies.push(body(&text[..before], count, FLAG_COMPACT));
            text.drain(..before);
            count = 0;
        }
        count += 1;
    }
    if count > 0 {
        bodies.push(body(text, count, FLAG_COMPACT));
    }
    Ok(bodies)
}

/// Appends the length of an event's row, and the row.
fn push_row(event: &Event, text: &mut Vec<u8>) {
    let start = text.len() + ROW_LENGTH_BYTES;
    text.resize(start, 0);
    compact::write(event, text);
    let bytes = u32::try_from(text.len() - start).unwrap_or(u32::MAX);
    text[start - ROW_LENGTH_BYTES..start].copy_from_slice(&bytes.to_le_bytes());
}

/// `count` rows (or lines, by the flags), compressed where that makes them smaller.
pub(super) fn body(text: &[u8], count: u32, form: u32) -> Body {
    let packed = (text.len() >= COMPRESS_BYTES_MIN)
        .then(|| compress(text))
        .filter(|packed| packed.len() < text.len());
    let flags = form | if packed.is_some() { FLAG_LZ4 } else { 0 };
    let bytes = packed.unwrap_or_else(|| text.to_vec());
    // Texts are bounded by the record size, far below 4 GiB.
    let text_bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Body {
        crc: crc32fast::hash(&bytes),
        text_bytes,
        count,
        flags,
        bytes,
    }
}

/// The earliest receipt among events; they are not yet appended, so no reader may claim to have read everything received before.
pub(super) fn received_min(events: &[Event]) -> Timestamp {
    events.iter().map(|event| event.received_at).min().unwrap_or(Timestamp::MAX)
}

/// The text of a body whose checksum was right; else what is wrong with it.
pub(super) fn decode(header: &RecordHeader, body: &[u8]) -> Result<Vec<u8>, String> {
    if header.flags & !(FLAG_LZ4 | FLAG_COMPACT) != 0 {
        return Err(format!("a record has the unknown flags {:#x}", header.flags));
    }
    if header.flags & FLAG_LZ4 == 0 {
        return Ok(body.to_vec());
    }
    // LZ4 makes at most 255 bytes of one. Without this bound a wrong length would cost that much memory.
    if u64::from(header.text_bytes) > (body.len() as u64 + 1) * 255 {
        return Err("a record claims more text than its body can hold".to_owned());
    }
    decompress(body, header.text_bytes as usize).map_err(|error| format!("a record does not decompress: {error}"))
}

/// One event's place in the text of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A line, without its end: version 1.
    Line(&'a [u8]),
    /// A row, without its length.
    Row(&'a [u8]),
}

impl<'a> Item<'a> {
    /// The first event in what is left of a text, and how many bytes to go on by. A text that holds fewer than its record says gives
    /// empty ones.
    pub(super) fn first(rest: &'a [u8], flags: u32) -> (Self, usize) {
        if flags & FLAG_COMPACT == 0 {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            return (Self::Line(&rest[..end]), end + 1);
        }
        let Some((length, after)) = rest.split_first_chunk::<ROW_LENGTH_BYTES>() else {
            return (Self::Row(&[]), rest.len());
        };
        let length = usize::try_from(u32::from_le_bytes(*length))
            .unwrap_or(usize::MAX)
            .min(after.len());
        (Self::Row(&after[..length]), ROW_LENGTH_BYTES + length)
    }

    pub(super) fn len(self) -> usize {
        match self {
            Self::Line(bytes) | Self::Row(bytes) => bytes.len(),
        }
    }

    pub(super) fn read(self, offset: u64) -> Record {
        match self {
            Self::Line(line) => read_line(offset, line),
            Self::Row(row) => match compact::read(row) {
                Ok(event) => Record::Event { offset, event },
                Err(error) => Record::Undecodable {
                    offset,
                    bytes: row.to_vec(),
                    reason: format!("the record is no event: {error}"),
                },
            },
        }
    }
}
