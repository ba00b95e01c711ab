//! Headers of segments and records as bytes; see the format in [`log`](super).

use domain::Timestamp;

/// Version of the format that we write. We read it and all before.
pub(super) const VERSION: u32 = 2;
pub(super) const SEGMENT_HEADER_BYTES: usize = 56;
pub(super) const RECORD_HEADER_BYTES: usize = 64;
/// First bytes of each record.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"MQR1";
const SEGMENT_MAGIC: [u8; 4] = *b"MQLG";
/// The body is an LZ4 block.
pub(super) const FLAG_LZ4: u32 = 1;
/// The text is rows in compact form; without it, lines of JSON.
pub(super) const FLAG_COMPACT: u32 = 2;

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) salt: u64,
    pub(super) number: u64,
    pub(super) base: u64,
    pub(super) previous_end: u64,
    pub(super) created: Timestamp,
}

/// Why bytes are no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let mut put = Put {
            bytes: &mut bytes,
            at: 0,
        };
        put.slice(&SEGMENT_MAGIC);
        put.slice(&VERSION.to_le_bytes());
        put.slice(&self.salt.to_le_bytes());
        put.slice(&self.number.to_le_bytes());
        put.slice(&self.base.to_le_bytes());
        put.slice(&self.previous_end.to_le_bytes());
        put.slice(&self.created.nanos().to_le_bytes());
        put.slice(&0_u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        bytes[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderFault> {
        let mut take = Take { bytes, at: 0 };
        if take.array() != SEGMENT_MAGIC {
            return Err(HeaderFault::Damaged);
        }
        let version = take.u32();
        let (salt, number, base, previous_end) = (take.u64(), take.u64(), take.u64(), take.u64());
        let created = take.time();
        take.u32();
        // The checksum first: a flipped bit in the version is damage, not a newer program.
        if take.u32() != crc32fast::hash(&bytes[..SEGMENT_HEADER_BYTES - 4]) {
            return Err(HeaderFault::Damaged);
        }
        if !(1..=VERSION).contains(&version) {
            return Err(HeaderFault::Version(version));
        }
        Ok(Self {
            salt,
            number,
            base,
            previous_end,
            created,
        })
    }
}

/// Header of a record. What the appender knows comes from it, the rest from the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) body_bytes: u32,
    pub(super) text_bytes: u32,
    pub(super) body_crc: u32,
    pub(super) count: u32,
    pub(super) first: u64,
    pub(super) settled: u64,
    pub(super) appended: Timestamp,
    pub(super) through: Timestamp,
    pub(super) flags: u32,
}

impl RecordHeader {
    pub(super) fn encode(&self, salt: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        let mut put = Put {
            bytes: &mut bytes,
            at: 0,
        };
        put.slice(&RECORD_MAGIC);
        put.slice(&[0; 4]);
        put.slice(&self.body_bytes.to_le_bytes());
        put.slice(&self.text_bytes.to_le_bytes());
        put.slice(&self.body_crc.to_le_bytes());
        put.slice(&self.count.to_le_bytes());
        put.slice(&self.first.to_le_bytes());
        put.slice(&self.settled.to_le_bytes());
        put.slice(&self.appended.nanos().to_le_bytes());
        put.slice(&self.through.nanos().to_le_bytes());
        put.slice(&self.flags.to_le_bytes());
        let crc = header_crc(&bytes, salt);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` when the bytes are no header of this segment.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_BYTES], salt: u64) -> Option<Self> {
        let mut take = Take { bytes, at: 0 };
        if take.array() != RECORD_MAGIC || take.u32() != header_crc(bytes, salt) {
            return None;
        }
        Some(Self {
            body_bytes: take.u32(),
            text_bytes: take.u32(),
            body_crc: take.u32(),
            count: take.u32(),
            first: take.u64(),
            settled: take.u64(),
            appended: take.time(),
            through: take.time(),
            flags: take.u32(),
        })
    }

    /// Offset of the event after this record.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }
}

fn header_crc(bytes: &[u8; RECORD_HEADER_BYTES], salt: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[8..]);
    hasher.update(&salt.to_le_bytes());
    hasher.finalize()
}

struct Put<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Put<'_> {
    fn slice(&mut self, from: &[u8]) {
        self.bytes[self.at..self.at + from.len()].copy_from_slice(from);
        self.at += from.len();
    }
}

struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        array
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn time(&mut self) -> Timestamp {
        Timestamp::from_nanos(i64::from_le_bytes(self.array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_notice_each_flipped_bit() {
        let header = SegmentHeader {
            salt: 7,
            number: 1,
            base: 40,
            previous_end: 39,
            created: Timestamp::from_seconds(9),
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        let record = RecordHeader {
            body_bytes: 1,
            text_bytes: 2,
            body_crc: 3,
            count: 4,
            first: 5,
            settled: 6,
            appended: Timestamp::from_seconds(7),
            through: Timestamp::from_seconds(8),
            flags: FLAG_LZ4,
        };
        let record_bytes = record.encode(7);
        assert_eq!(RecordHeader::decode(&record_bytes, 7), Some(record));
        assert_eq!(RecordHeader::decode(&record_bytes, 8), None, "a record of another segment");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), Err(HeaderFault::Damaged), "bit {bit}");
        }
        for bit in 0..record_bytes.len() * 8 {
            let mut flipped = record_bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, 7), None, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let header = SegmentHeader {
            salt: 7,
            number: 1,
            base: 0,
            previous_end: 0,
            created: Timestamp::default(),
        };
        let mut bytes = header.encode();
        bytes[4] = 3;
        let crc = crc32fast::hash(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        bytes[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Version(3)));
    }
}
