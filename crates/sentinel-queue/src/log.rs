//! The embedded log: a queue of one partition in a folder, for one process.
//!
//! # On disk, version 2
//!
//! ```text
//! lock                       held by the process that has the log open; its content is that process's number
//! committed                  "MQCP" | version u32 | offset u64 | crc32 of the bytes before
//! 0000000001.log             segments, numbered without gaps; a `.new` is a segment that was never finished creating
//! 0000000002.log
//! ```
//!
//! A segment is a header of 56 bytes and then records, one after the other. All numbers are little-endian.
//!
//! ```text
//! segment   "MQLG" | version u32 | salt u64 | number u64 | base u64 | previous_end u64 | created i64 | reserved u32 | crc32 of the bytes before
//! record    "MQR1" | crc32 of the rest of this header and the salt | body bytes u32 | text bytes u32 | crc32 of the body | count u32
//!           | first offset u64 | settled u64 | appended i64 | through i64 | flags u32   (64 bytes), then the body
//! body      flag 2: `count` rows, each a length u32 and one event in compact form ([`domain::event::compact`]);
//!           without it: `count` lines, each one event in its wire form and a line end; flag 1: as an LZ4 block
//! ```
//!
//! Version 1 knew lines only. Both are read; what is written is version 2, because rows take a third of the time and two thirds of
//! the room. A segment is of one version, and so is whatever is appended to it.
//!
//! - An offset counts events. A record holds the offsets `first` up to `first + count`; the next record goes on from there.
//! - `settled`: everything before this offset was on the disk when the record was written. This tells a torn tail from damage: a
//!   power cut may keep any part of what was not yet synced, so a bad record that only records of the same sync follow was never
//!   acknowledged, whereas a later record with a later `settled` proves that it was.
//! - `appended` is when the record was written, by the clock of the process. `through`: once this record is read, every event
//!   received before that time has been read.
//! - The salt is new for each segment, so that neither bytes of an older file nor bytes a sender chose pass for a record.
//! - `base` is the first offset of a segment, `previous_end` where the one before it ends. Bytes of that one beyond
//!   `previous_end` were never acknowledged. `base` may be more: see [`LogConfig::offset_min`].
//!
//! # Life
//!
//! Appenders encode and compress in their own task; one writer thread takes everything queued, writes it in one piece, syncs once and
//! wakes all of them. A write or sync that fails is never tried again on the same file, because the kernel may already have
//! dropped the pages: whoever waited gets an error, and the next append begins a new segment. Each opening also begins a new one,
//! so nothing is ever appended to a file that another life of the process wrote.
//!
//! Opening cuts a torn tail off the newest segment. Damage anywhere else is an error that names file and byte; moving the file
//! away is allowed, and loses what it held and no more. Segments wholly before the committed offset are deleted.

mod appender;
mod committed;
mod disk;
mod encode;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod reader;
mod recover;
mod segment;
mod shared;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;

pub use appender::LogAppender;
pub use reader::LogTail;

use disk::{Disk, RealDisk};

/// Tells the time. The log reads no clock of its own, so that tests can set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Where the log is and what it may take.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Folder; created when missing. Only one process may have it open.
    pub dir: PathBuf,
    /// Size at which a segment is closed and the next one begun. Room is given back by whole segments.
    pub segment_bytes: u64,
    /// Most bytes that may wait for the processor; more is [`Full`](crate::AppendError::Full). On disk it may be two segments more.
    pub bytes_max: u64,
    /// Longest event, and longest text of one record, in bytes.
    pub record_bytes_max: usize,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// Appended events get at least this offset. Pass what the store holds (`durable_end(0)`): a log that lost its newest segment, or was
    /// deleted, would otherwise count again from before it, and the store would take new events for ones it has.
    pub offset_min: u64,
}

impl LogConfig {
    /// Segments of 64 MiB, 4 GiB in all, records of 1 MiB, synced.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
            record_bytes_max: 1 << 20,
            durability: Durability::Fsync,
            offset_min: 0,
        }
    }
}

/// What an acknowledged append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power: acknowledged after a sync, which all appends of a moment share.
    Fsync,
    /// The loss of the process at once, of power after at most this time.
    Interval(Duration),
    /// The loss of the process; of power whenever the system gets round to writing. Synced at the end of a segment.
    Memory,
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the log in {} is in use by process {process}; stop that process or choose another folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Number of the process, or `unknown`.
        process: String,
    },
    /// A file or the folder cannot be used.
    #[error("{step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Bytes that were once durable are not what was written.
    #[error("{} is damaged at byte {at}: {what}; restore it from a backup, or move it away to go on without what it holds", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// A later version of this program wrote it.
    #[error("{} has format version {version}, this program knows up to {known}; use the newer program", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// What we know.
        known: u32,
    },
}

impl OpenError {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }
}

/// Opens (or begins) a log: recovers from whatever ended the process before, and starts the writer thread, which runs until the
/// last clone of the appender is dropped. The tail begins at the committed offset.
pub fn open(
    config: LogConfig,
    clock: impl Fn() -> Timestamp + Send + Sync + 'static,
) -> Result<(LogAppender, LogTail), OpenError> {
    open_on(config, Arc::new(clock), RealDisk)
}

fn open_on<D: Disk>(config: LogConfig, clock: Clock, disk: D) -> Result<(LogAppender, LogTail), OpenError> {
    let mut recovered = recover::recover(&config)?;
    let dir = config.dir.clone();
    let (shared, arrivals) = shared::Shared::new(&config, &mut recovered).map_err(OpenError::io("locking", &dir))?;
    let tail = LogTail::new(
        Arc::clone(&shared),
        arrivals.subscribe(),
        recovered.start,
        recovered.committed,
        Arc::clone(&clock),
    );
    let writer = writer::Writer::new(config, disk, Arc::clone(&shared), arrivals, recovered.end);
    let appender = LogAppender::start(shared, writer, clock).map_err(OpenError::io("starting the writer thread of", &dir))?;
    Ok((appender, tail))
}

#[cfg(test)]
mod tests;
