//! Events to record bodies and back, in the task of whoever asks.

use std::cell::RefCell;

use domain::{Event, Timestamp};
use lz4_flex::block::{compress, decompress};

use super::format::{FLAG_LZ4, RecordHeader};
use crate::AppendError;
use crate::wire::push_line;

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
        push_line(event, text).map_err(AppendError::Unavailable)?;
        let bytes = text.len() - before;
        if bytes > text_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                bytes_max: text_bytes_max,
            });
        }
        if text.len() > text_bytes_max {
            bodies.push(body(&text[..before], count));
            text.drain(..before);
            count = 0;
        }
        count += 1;
    }
    if count > 0 {
        bodies.push(body(text, count));
    }
    Ok(bodies)
}

/// `count` lines, compressed where that makes them smaller.
pub(super) fn body(text: &[u8], count: u32) -> Body {
    let packed = (text.len() >= COMPRESS_BYTES_MIN)
        .then(|| compress(text))
        .filter(|packed| packed.len() < text.len());
    let flags = if packed.is_some() { FLAG_LZ4 } else { 0 };
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
    if header.flags & !FLAG_LZ4 != 0 {
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
