//! The embedded store: Parquet files, hot rows in memory, DataFusion.
//!
//! ```text
//! insert ─► dedup ─► hot rows ─── flush ──► files of the day ─── merge ──► fewer files ─── retention ──► gone
//!                       │                        │
//!                       └───────── view ─────────┘      one value, replaced as a whole: what readers see
//! ```
//!
//! What is inserted is visible at once and survives once a manifest names it: files and queue positions change together, in one
//! rename. A crash loses hot rows only, which the queue hands out again. A folder is plain Parquet plus its manifest, and can be
//! copied, or opened read-only by another process.

mod compact;
mod convert;
mod dedup;
mod disk;
mod engine;
mod files;
mod flush;
mod hot;
mod lookup;
mod manifest;
mod names;
mod recover;
mod retain;
mod rollup;
mod scan;
pub mod schema;
mod shared;
mod threads;
mod view;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::{EventBatch, Timestamp};
use tokio::sync::{oneshot, watch};

use crate::query::Watermark;
use crate::{EventWriter, InsertError, Inserted};

pub use convert::{Row, to_batch, to_events};
pub use engine::{Engine, EngineSettings, ParquetReader};
pub use flush::FlushError;
pub use manifest::ManifestError;
pub use recover::OpenError;
pub use scan::{DamagedFile, Snapshot};
pub use view::Stored;

use disk::{Disk, Fault};
use shared::{Shared, held, unavailable};
use threads::Threads;

/// Tells the time; hand in the service's clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How an embedded store is kept.
#[derive(Debug, Clone)]
pub struct ParquetConfig {
    /// Where. One process at a time writes a folder.
    pub dir: PathBuf,
    /// Memory for hot rows, in bytes; inserts wait when it is used up.
    pub memory_bytes_max: usize,
    /// Hot rows older than this go to files.
    pub flush_age: Duration,
    /// Hot rows that take this much memory go to files.
    pub flush_bytes: usize,
    /// Events older than this are removed, by whole UTC days; `None` keeps them.
    pub retention: Option<Duration>,
    /// Longest wait of an insert for memory.
    pub insert_wait_max: Duration,
    /// Newest ids that are remembered, some 30 bytes each: a repetition among them is recognised without looking into files.
    pub recent_ids_max: usize,
    /// Whether files are merged.
    pub compaction: Compaction,
}

/// What a remembered id takes.
const ID_BYTES: usize = 32;

/// Whether files are merged into fewer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// In the background.
    On,
    /// Not at all: for tests and for looking at damage.
    Off,
}

impl ParquetConfig {
    /// Settings for a folder whose store may take some `bytes` of memory in all: hot rows take half of it at most, and the rest is
    /// for what is written and merged at the time, and for the ids that are remembered.
    pub fn within(dir: impl Into<PathBuf>, bytes: usize) -> Self {
        Self {
            memory_bytes_max: bytes / 2,
            // Rows on their way to a file and those that come meanwhile take this much each.
            flush_bytes: bytes / 6,
            recent_ids_max: (bytes / 8 / ID_BYTES).min(1 << 20),
            ..Self::new(dir)
        }
    }

    /// The usual settings for a folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory_bytes_max: 192 << 20,
            flush_age: Duration::from_mins(1),
            flush_bytes: 64 << 20,
            retention: None,
            insert_wait_max: Duration::from_secs(30),
            recent_ids_max: 1 << 20,
            compaction: Compaction::On,
        }
    }
}

/// A store in a folder. Clones are the same store; it closes with the last one.
#[derive(Debug, Clone)]
pub struct ParquetStore {
    shared: Arc<Shared>,
    /// `None`: read-only.
    owner: Option<Arc<Owner>>,
}

/// What ends with the last handle, in this order.
#[derive(Debug)]
struct Owner {
    _threads: Threads,
    _lock: File,
}

impl ParquetStore {
    /// Opens or makes a folder. Blocks for as long as reading the manifest takes.
    pub fn open(config: ParquetConfig, clock: Clock) -> Result<Self, OpenError> {
        Self::open_with(config, clock, None)
    }

    /// Opens a folder for reading only, as its files are now, also while another process writes it. That process may remove files
    /// by and by, so reopen to stay current.
    pub fn open_read_only(config: ParquetConfig, clock: Clock) -> Result<Self, OpenError> {
        let disk = Disk::new(config.dir.clone(), None);
        let found = recover::read(&disk)?;
        Ok(Self {
            shared: Arc::new(Shared::new(config, clock, disk, found)),
            owner: None,
        })
    }

    fn open_with(mut config: ParquetConfig, clock: Clock, fault: Option<Fault>) -> Result<Self, OpenError> {
        let lock = recover::lock(&config.dir)?;
        let failed = |source| OpenError::Folder {
            folder: config.dir.clone(),
            source,
        };
        config.dir = std::fs::canonicalize(&config.dir).map_err(failed)?;
        let disk = Disk::new(config.dir.clone(), fault);
        let found = recover::read(&disk)?;
        recover::clean(&disk, &found.manifest)?;
        let shared = Arc::new(Shared::new(config, clock, disk, found));
        let threads = Threads::start(&shared).map_err(OpenError::Thread)?;
        Ok(Self {
            shared,
            owner: Some(Arc::new(Owner {
                _threads: threads,
                _lock: lock,
            })),
        })
    }

    /// What is visible now, for as long as it is looked at.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.shared.view.load_full())
    }

    /// How far the store is, changing with each insert.
    pub fn watermark(&self) -> watch::Receiver<Watermark> {
        self.shared.watermark.subscribe()
    }

    /// How long events are kept; `None`: for ever.
    pub fn retention(&self) -> Option<Duration> {
        self.shared.config.retention
    }

    /// The time, as the store's clock tells it.
    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// Waits for room in memory.
    async fn room(&self) -> Result<(), InsertError> {
        let cap = self.shared.config.memory_bytes_max;
        let wait = async {
            loop {
                let told = self.shared.room.notified();
                if self.shared.view.load().hot_bytes() < cap {
                    return;
                }
                self.shared.want_flush();
                told.await;
            }
        };
        tokio::time::timeout(self.shared.config.insert_wait_max, wait)
            .await
            .map_err(unavailable)
    }

    fn writable(&self) -> Result<(), InsertError> {
        if self.owner.is_none() || self.shared.stopping() {
            Err(InsertError::Closed)
        } else {
            Ok(())
        }
    }
}

impl EventWriter for ParquetStore {
    async fn insert(&self, batch: Arc<EventBatch>) -> Result<Inserted, InsertError> {
        self.writable()?;
        self.room().await?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.insert(&batch))
            .await
            .map_err(unavailable)?
    }

    fn durable_end(&self, partition: u32) -> u64 {
        self.shared.view.load().manifest.ends.get(&partition).copied().unwrap_or(0)
    }

    async fn flush(&self) -> Result<(), InsertError> {
        self.writable()?;
        let (tell, told) = oneshot::channel();
        held(&self.shared.work).waiting.push(tell);
        self.shared.wake.notify_all();
        match told.await {
            Ok(outcome) => outcome.map_err(unavailable),
            Err(_) => Err(InsertError::Closed),
        }
    }

    fn advance(&self, through: Timestamp) {
        self.shared.advance(through);
    }
}

#[cfg(test)]
mod tests;
