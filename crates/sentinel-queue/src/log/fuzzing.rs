//! Entry points for fuzzers: what a disk can hand back.

use domain::Timestamp;

use super::encode::{Item, decode};
use super::format::RecordHeader;
use crate::Record;

/// The body of a record, after a byte of flags: each of its events is read or set aside with a reason, and reading ends. Panics when that
/// does not hold.
pub fn record(bytes: &[u8]) {
    let Some((&flags, body)) = bytes.split_first() else { return };
    let header = RecordHeader {
        body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
        text_bytes: u32::try_from(body.len() * 4).unwrap_or(u32::MAX),
        body_crc: 0,
        count: 1,
        first: 0,
        settled: 0,
        appended: Timestamp::from_seconds(0),
        through: Timestamp::from_seconds(0),
        flags: flags.into(),
    };
    let Ok(text) = decode(&header, body) else { return };
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        let (item, step) = Item::first(rest, header.flags);
        assert!(step > 0, "reading goes on");
        if let Record::Undecodable { reason, .. } = item.read(0) {
            assert!(!reason.is_empty(), "a record is set aside with its reason");
        }
        rest = rest.get(step..).unwrap_or_default();
    }
}
