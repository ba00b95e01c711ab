//! Events into records and back. Pure.

use std::collections::HashMap;

use domain::Event;

use super::position::{LINES_MAX, offset_of};
use crate::wire::{push_line, read_line};
use crate::{AppendError, Record};

/// Events of one namespace and server, ready to be sent.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) key: String,
    pub(super) lines: Vec<u8>,
    pub(super) count: usize,
    /// Trace context of the first event that has one.
    pub(super) traceparent: Option<String>,
}

/// Events as records of at most `bytes_max` bytes. Events of one namespace and server stay in order.
pub(super) fn pack(events: &[Event], bytes_max: usize) -> Result<Vec<Packed>, AppendError> {
    let mut records: Vec<Packed> = Vec::new();
    let mut open: HashMap<(&str, &str), usize> = HashMap::new();
    for event in events {
        let names = (event.namespace(), event.server());
        let at = *open.entry(names).or_insert_with(|| begin(&mut records, names));
        let record = &mut records[at];
        let before = record.lines.len();
        push_line(event, &mut record.lines).map_err(AppendError::Unavailable)?;
        let bytes = record.lines.len() - before;
        if bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        if record.lines.len() > bytes_max || record.count == LINES_MAX {
            let line = record.lines.split_off(before);
            let at = begin(&mut records, names);
            records[at].lines = line;
            open.insert(names, at);
            add(&mut records[at], event);
        } else {
            add(record, event);
        }
    }
    Ok(records)
}

fn begin(records: &mut Vec<Packed>, (namespace, server): (&str, &str)) -> usize {
    records.push(Packed {
        key: format!("{namespace}/{server}"),
        lines: Vec::new(),
        count: 0,
        traceparent: None,
    });
    records.len() - 1
}

fn add(record: &mut Packed, event: &Event) {
    record.count += 1;
    if record.traceparent.is_none()
        && let (Some(trace), Some(span)) = (event.trace_id, event.span_id)
    {
        record.traceparent = Some(format!("00-{trace}-{span}-01"));
    }
}

/// One line of a record, as read.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) record: Record,
    /// Bytes it took.
    pub(super) bytes: usize,
}

/// The events of the record at `at`, without those before the offset `from`.
pub(super) fn unpack(at: i64, value: &[u8], from: u64) -> Vec<Line> {
    let undecodable = |reason: &str| {
        vec![Line {
            bytes: value.len(),
            record: Record::Undecodable {
                offset: offset_of(at, 0),
                bytes: value.to_vec(),
                reason: reason.to_owned(),
            },
        }]
    };
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    if value.is_empty() {
        return undecodable("the record is empty");
    }
    if memchr::memchr_iter(b'\n', value).count() >= LINES_MAX {
        return undecodable("the record has more than 65536 lines");
    }
    let lines = value.split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|(line, text)| !text.trim_ascii().is_empty() && offset_of(at, *line) >= from)
        .map(|(line, text)| Line {
            record: read_line(offset_of(at, line), text),
            bytes: text.len(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
