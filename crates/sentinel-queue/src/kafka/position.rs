//! Where a group is: offsets of events in terms of records, and what a commit says. Pure.

use std::fmt::Write as _;

/// Low bits of an offset: which line of the record.
const LINE_BITS: u32 = 16;
/// Most lines of one record.
pub(super) const LINES_MAX: usize = 1 << LINE_BITS;
/// Metadata of a commit longer than this is refused by brokers with default settings (4096), with room to spare.
const METADATA_BYTES_MAX: usize = 3_800;
const VERSION: &str = "1";

/// The offset of a line of a record.
pub(super) fn offset_of(record: i64, line: usize) -> u64 {
    let record = u64::try_from(record).unwrap_or(0);
    (record << LINE_BITS) | (line as u64).min(LINES_MAX as u64 - 1)
}

/// The record that holds an offset.
pub(super) fn record_of(offset: u64) -> i64 {
    i64::try_from(offset >> LINE_BITS).unwrap_or(i64::MAX)
}

/// What a group has committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Committed {
    /// Everything before this is final.
    pub(super) end: u64,
    /// Ends of leases beyond it that were handed out, ascending.
    pub(super) claims: Vec<u64>,
}

impl Committed {
    /// What goes into the metadata of a commit of `record_of(end)`. Claims that do not fit are left out, the latest first.
    pub(super) fn metadata(end: u64, claims: impl IntoIterator<Item = u64>) -> String {
        let mut text = format!("{VERSION};{:x};", end & (LINES_MAX as u64 - 1));
        let mut before = end;
        for claim in claims {
            let length = text.len();
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{:x},", claim.saturating_sub(before));
            if text.len() > METADATA_BYTES_MAX {
                text.truncate(length);
                break;
            }
            before = claim;
        }
        text
    }

    /// Reads a commit. Metadata that is not ours says nothing beyond the record: someone moved the group by hand.
    pub(super) fn parse(record: i64, metadata: &str) -> Self {
        let begin = Self {
            end: offset_of(record, 0),
            claims: Vec::new(),
        };
        Self::parse_metadata(begin.end, metadata).unwrap_or(begin)
    }

    fn parse_metadata(begin: u64, metadata: &str) -> Option<Self> {
        let (line, claims) = metadata.strip_prefix(VERSION)?.strip_prefix(';')?.split_once(';')?;
        let line = u64::from_str_radix(line, 16).ok().filter(|line| *line < LINES_MAX as u64)?;
        let mut before = begin | line;
        let mut claims_read = Vec::new();
        for distance in claims.split_terminator(',') {
            before = before.checked_add(u64::from_str_radix(distance, 16).ok()?)?;
            claims_read.push(before);
        }
        Some(Self {
            end: begin | line,
            claims: claims_read,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn commits_are_read_as_written(record in 0..1_i64 << 40, line in 0..LINES_MAX, steps in prop::collection::vec(1..1_u64 << 24, 0..50)) {
            let end = offset_of(record, line);
            let claims: Vec<u64> = steps.iter().scan(end, |at, step| { *at += step; Some(*at) }).collect();
            let read = Committed::parse(record_of(end), &Committed::metadata(end, claims.iter().copied()));
            prop_assert_eq!(read, Committed { end, claims });
        }

        #[test]
        fn metadata_of_others_means_the_record(record in 0..1_i64 << 40, metadata in ".{0,40}") {
            let read = Committed::parse(record, &metadata);
            prop_assert_eq!(record_of(read.end), record);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let claims: Vec<u64> = (1..=2_000).map(|step| step << LINE_BITS).collect();
        let metadata = Committed::metadata(0, claims.iter().copied());
        assert!(metadata.len() <= METADATA_BYTES_MAX, "{}", metadata.len());
        let read = Committed::parse(0, &metadata);
        assert!(read.claims.len() > 500, "{}", read.claims.len());
        assert_eq!(read.claims, claims[..read.claims.len()]);
    }
}
