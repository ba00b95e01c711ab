//! Segment files: where the log keeps events until the processor commits past them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::OpenError;
use super::format::{HeaderFault, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION};

/// How much is read at once; a longer record is read whole.
const READ_BYTES: usize = 256 << 10;

/// A segment as known in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Bytes that hold acknowledged records, with the header; grows while it is written.
    pub(super) bytes: u64,
    /// Offset after its last event; grows while it is written.
    pub(super) end: u64,
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// Numbers and paths of the segments in a folder, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads a segment's header and length; `None` when the file ends within the header.
pub(super) fn read_header(path: &Path) -> Result<Option<(SegmentHeader, u64)>, OpenError> {
    let file = File::open(path).map_err(OpenError::io("opening", path))?;
    let bytes = file.metadata().map_err(OpenError::io("reading the length of", path))?.len();
    if bytes < SEGMENT_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(OpenError::io("reading the header of", path))?;
    match SegmentHeader::decode(&header) {
        Ok(header) => Ok(Some((header, bytes))),
        Err(HeaderFault::Version(version)) => Err(OpenError::Version {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        Err(HeaderFault::Damaged) => Err(OpenError::Damaged {
            path: path.to_owned(),
            at: 0,
            what: "it does not begin with a segment header".to_owned(),
        }),
    }
}

/// Why a record could not be read.
#[derive(Debug)]
pub(super) enum RecordFault {
    Io(io::Error),
    /// The bytes at the place are no record: which sentence says why.
    Bad(&'static str),
}

/// Reads records of one segment in order, many with one call to the system.
#[derive(Debug)]
pub(super) struct RecordReader {
    file: File,
    salt: u64,
    chunk: Vec<u8>,
    /// Place in the file of the chunk's first byte.
    chunk_at: u64,
}

impl RecordReader {
    pub(super) fn open(path: &Path, salt: u64) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            salt,
            chunk: Vec::new(),
            chunk_at: 0,
        })
    }

    /// The record at byte `at` of the first `end` bytes, its checksums verified, with its body.
    pub(super) fn record(&mut self, at: u64, end: u64) -> Result<(RecordHeader, &[u8]), RecordFault> {
        let header = self.header(at, end)?;
        let body_bytes = header.body_bytes as usize;
        if header.record_bytes() > end - at {
            return Err(RecordFault::Bad("a record is longer than what follows"));
        }
        let bytes = self.bytes(at, RECORD_HEADER_BYTES + body_bytes, end)?;
        let body = &bytes[RECORD_HEADER_BYTES..];
        if crc32fast::hash(body) != header.body_crc {
            return Err(RecordFault::Bad("the checksum of a record's body is wrong"));
        }
        Ok((header, body))
    }

    /// The header of the record at byte `at` of the first `end` bytes, its own checksum verified.
    pub(super) fn header(&mut self, at: u64, end: u64) -> Result<RecordHeader, RecordFault> {
        if end.saturating_sub(at) < RECORD_HEADER_BYTES as u64 {
            return Err(RecordFault::Bad("a record's header is cut short"));
        }
        let salt = self.salt;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes.copy_from_slice(self.bytes(at, RECORD_HEADER_BYTES, end)?);
        RecordHeader::decode(&bytes, salt).ok_or(RecordFault::Bad("the checksum of a record's header is wrong"))
    }

    /// The header at byte `at`, if there is one, without keeping anything.
    pub(super) fn peek(&self, at: u64) -> Option<RecordHeader> {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        RecordHeader::decode(&bytes, self.salt)
    }

    /// Never reads past `end`, so that bytes still being written are not kept in the chunk.
    fn bytes(&mut self, at: u64, count: usize, end: u64) -> Result<&[u8], RecordFault> {
        let held = at.checked_sub(self.chunk_at).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = held
            && self.chunk.len() >= skip.saturating_add(count)
        {
            return Ok(&self.chunk[skip..skip + count]);
        }
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(count.max(READ_BYTES));
        self.chunk.resize(wanted, 0);
        self.chunk_at = at;
        if let Err(error) = self.file.read_exact_at(&mut self.chunk, at) {
            self.chunk.clear();
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => RecordFault::Bad("the file is shorter than it was"),
                _ => RecordFault::Io(error),
            });
        }
        Ok(&self.chunk[..count])
    }
}
