//! Opening: locks the folder, cuts a torn tail, refuses damage, and finds where to read on.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use domain::Timestamp;
use fs4::fs_std::FileExt as Lockable;

use super::format::{RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, SEGMENT_HEADER_BYTES};
use super::segment::{RecordFault, RecordReader, Segment, list, read_header};
use super::{LogConfig, OpenError, committed};

/// What is read at once when looking for records behind a bad one.
const SEARCH_BYTES: usize = 1 << 20;

/// A log as found on the disk, ready for use.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) lock: File,
    pub(super) segments: VecDeque<Segment>,
    pub(super) committed: u64,
    /// Bytes of records not yet committed.
    pub(super) waiting_bytes: u64,
    pub(super) start: Option<Start>,
    pub(super) end: End,
}

/// The record to read first.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) number: u64,
    pub(super) reader: RecordReader,
    pub(super) at: u64,
    pub(super) first: u64,
}

/// Where writing goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Number of the newest segment, 0 when there is none.
    pub(super) number: u64,
    /// Offset after the newest event kept.
    pub(super) offset: u64,
    /// Offset of the next event.
    pub(super) next: u64,
    pub(super) through: Timestamp,
}

pub(super) fn recover(config: &LogConfig) -> Result<Recovered, OpenError> {
    let dir = &config.dir;
    fs::create_dir_all(dir).map_err(OpenError::io("creating the folder", dir))?;
    let lock = take_lock(dir)?;
    let committed = committed::read(dir)?;
    let (mut segments, through) = segments(dir)?;
    let newest = segments.back().map(|segment| (segment.header.number, segment.end));
    let committed = match (committed, segments.front()) {
        (Some(committed), _) => committed,
        (None, first) => first.map_or(0, |first| first.header.base),
    };
    while let Some(done) = segments.pop_front_if(|segment| segment.end <= committed) {
        fs::remove_file(&done.path).map_err(OpenError::io("deleting the finished segment", &done.path))?;
    }
    if let Some(first) = segments.front()
        && first.header.base > committed
    {
        let missing = first.header.base - committed;
        tracing::error!(missing, path = %first.path.display(), "segments are missing before this one; the events they held are gone");
    }
    let start = segments.front().map(|first| find_start(first, committed)).transpose()?;
    let bytes: u64 = segments
        .iter()
        .map(|segment| segment.bytes - SEGMENT_HEADER_BYTES as u64)
        .sum();
    let passed = start.as_ref().map_or(0, |start| start.at - SEGMENT_HEADER_BYTES as u64);
    let (number, offset) = newest.unwrap_or((0, committed));
    Ok(Recovered {
        lock,
        segments,
        committed,
        waiting_bytes: bytes.saturating_sub(passed),
        start,
        end: End {
            number,
            offset,
            next: offset.max(committed),
            through,
        },
    })
}

/// The lock lasts as long as the file is open in any form, and ends with the process however that ends.
fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path);
    let mut file = open.map_err(OpenError::io("opening the lock", &path))?;
    if !Lockable::try_lock_exclusive(&file).map_err(OpenError::io("locking", &path))? {
        let mut process = String::new();
        // Whoever holds it may not have written its number yet.
        let known = file.read_to_string(&mut process).is_ok_and(|bytes| bytes > 0);
        let process = if known {
            process.trim().to_owned()
        } else {
            "unknown".to_owned()
        };
        return Err(OpenError::InUse {
            dir: dir.to_owned(),
            process,
        });
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(OpenError::io("writing the lock", &path))?;
    Ok(file)
}

/// All segments, oldest first, the newest without its torn tail; and the `through` of the newest record.
fn segments(dir: &Path) -> Result<(VecDeque<Segment>, Timestamp), OpenError> {
    let mut found = list(dir).map_err(OpenError::io("listing", dir))?;
    let mut segments = VecDeque::new();
    let newest_path = found.last().map(|(_, path)| path.clone());
    for (_, path) in found.drain(..) {
        match read_header(&path)? {
            Some((header, bytes)) => segments.push_back(Segment {
                path,
                header,
                bytes,
                end: header.base,
            }),
            // Cannot come about by our own doing. It holds nothing, so it is no reason to refuse.
            None if Some(&path) == newest_path.as_ref() => {
                tracing::warn!(path = %path.display(), "the newest segment has no header and is removed");
                fs::remove_file(&path).map_err(OpenError::io("removing the empty segment", &path))?;
            }
            None => {
                return Err(OpenError::Damaged {
                    path,
                    at: 0,
                    what: "it ends within its header".to_owned(),
                });
            }
        }
    }
    let mut through = Timestamp::default();
    for at in 0..segments.len() {
        let next = segments.get(at + 1).map(|next| next.header);
        let segment = &mut segments[at];
        match next {
            Some(next) if next.number == segment.header.number + 1 => segment.end = next.previous_end,
            // The one behind it was moved away, or it is the newest: only its records tell where it ends.
            _ => {
                let scan = scan(segment)?;
                if next.is_none() {
                    cut(segment, scan.bytes)?;
                }
                (segment.bytes, segment.end, through) = (scan.bytes, scan.end, scan.through);
            }
        }
    }
    Ok((segments, through))
}

fn cut(segment: &Segment, bytes: u64) -> Result<(), OpenError> {
    if bytes == segment.bytes {
        return Ok(());
    }
    let path = &segment.path;
    tracing::warn!(path = %path.display(), at = bytes, cut = segment.bytes - bytes, "the end of the newest segment was never acknowledged and is cut off");
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(OpenError::io("opening", path))?;
    file.set_len(bytes)
        .and_then(|()| file.sync_all())
        .map_err(OpenError::io("cutting the torn tail of", path))
}

struct Scan {
    bytes: u64,
    end: u64,
    through: Timestamp,
}

/// Reads a whole segment to find where its acknowledged records end.
fn scan(segment: &Segment) -> Result<Scan, OpenError> {
    let path = &segment.path;
    let mut reader = RecordReader::open(path, segment.header.salt).map_err(OpenError::io("opening", path))?;
    let mut scan = Scan {
        bytes: SEGMENT_HEADER_BYTES as u64,
        end: segment.header.base,
        through: Timestamp::default(),
    };
    while scan.bytes < segment.bytes {
        match reader.record(scan.bytes, segment.bytes) {
            Ok((header, _)) if header.first == scan.end => {
                scan.bytes += header.record_bytes();
                scan.end = header.end();
                scan.through = header.through;
            }
            Ok(_) => {
                return Err(damaged(
                    segment,
                    scan.bytes,
                    "a record has another offset than follows from the one before",
                ));
            }
            Err(RecordFault::Io(error)) => return Err(OpenError::io("reading", path)(error)),
            Err(RecordFault::Bad(what)) => {
                if was_settled(segment, scan.bytes, scan.end).map_err(OpenError::io("reading", path))? {
                    return Err(damaged(segment, scan.bytes, what));
                }
                break;
            }
        }
    }
    Ok(scan)
}

fn damaged(segment: &Segment, at: u64, what: &str) -> OpenError {
    OpenError::Damaged {
        path: segment.path.clone(),
        at,
        what: what.to_owned(),
    }
}

/// Whether any record behind byte `at` proves that `offset` was synced before it was written.
fn was_settled(segment: &Segment, at: u64, offset: u64) -> io::Result<bool> {
    let file = File::open(&segment.path)?;
    let mut chunk = Vec::new();
    let mut at = at + 1;
    while segment.bytes.saturating_sub(at) >= RECORD_HEADER_BYTES as u64 {
        let bytes = usize::try_from(segment.bytes - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        chunk.resize(bytes, 0);
        file.read_exact_at(&mut chunk, at)?;
        let headers = memchr::memmem::find_iter(&chunk, &RECORD_MAGIC).filter_map(|found| chunk.get(found..)?.first_chunk());
        let mut records = headers.filter_map(|header| RecordHeader::decode(header, segment.header.salt));
        if records.any(|record| record.settled > offset) {
            return Ok(true);
        }
        // A header may lie across the border of two chunks.
        at += (bytes - RECORD_HEADER_BYTES + 1) as u64;
    }
    Ok(false)
}

/// Finds the record that holds the committed offset, by headers alone.
fn find_start(segment: &Segment, committed: u64) -> Result<Start, OpenError> {
    let path = &segment.path;
    let mut reader = RecordReader::open(path, segment.header.salt).map_err(OpenError::io("opening", path))?;
    let (mut at, mut first) = (SEGMENT_HEADER_BYTES as u64, segment.header.base);
    while first < segment.end {
        let header = match reader.header(at, segment.bytes) {
            Ok(header) => header,
            Err(RecordFault::Io(error)) => return Err(OpenError::io("reading", path)(error)),
            Err(RecordFault::Bad(what)) => return Err(damaged(segment, at, what)),
        };
        if header.end() > committed {
            break;
        }
        at += header.record_bytes();
        first = header.end();
    }
    Ok(Start {
        number: segment.header.number,
        reader,
        at,
        first,
    })
}
