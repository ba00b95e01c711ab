//! The queue between ingest and processor.
//!
//! Ingest appends, the processor reads; neither knows which queue it is. Together with a store that makes each event visible
//! once ([`sentinel-store`]), at-least-once delivery here is the whole delivery story.
//!
//! ```text
//! ingest ─ append ─► [ partition 0 … n ] ─ next ─► processor ─ insert ─► store
//!                          ▲                            │
//!                          └────────── commit ──────────┘   once the store has it for good
//! ```
//!
//! [`sentinel-store`]: https://docs.rs/sentinel-store

use std::future::Future;
use std::time::Duration;

use domain::{Event, Span, Timestamp};

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
pub mod dead_letters;
pub mod error;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "log")]
pub mod log;
pub mod memory;
mod wire;

pub use error::{AppendError, Remedy, TailError};

/// Takes events for later delivery.
pub trait EventAppender: Send + Sync + 'static {
    /// Appends events, in order, each to the partition of its namespace and server.
    ///
    /// `Ok`: the events survive the loss of this process (and, with the default settings of every backend, of this machine's
    /// power). `Err`: nothing is known, so callers send again and every reader of the queue must expect an event twice.
    /// Dropping the future is like `Err`.
    fn append(&self, events: &[Event]) -> impl Future<Output = Result<(), AppendError>> + Send;
}

/// Hands out events in append order within a partition, again and again until committed.
pub trait EventTail: Send + 'static {
    /// Waits for at least one record and hands out up to `limit`, all of one partition and without gap. The next call goes on
    /// behind them, also when they are not yet committed. Dropping the future loses nothing.
    fn next(&mut self, limit: BatchLimit) -> impl Future<Output = Result<Lease, TailError>> + Send;

    /// Makes everything of `partition` before offset `end` final: it is never handed out again, also not after a restart, and its
    /// room is given back. Called only once the store has it for good. Committing less than before does nothing.
    fn commit(&mut self, partition: u32, end: u64) -> impl Future<Output = Result<(), TailError>> + Send;

    /// What waits to be handed out.
    fn lag(&self) -> Lag;
}

/// Bounds of one lease. A lease holds at least one record even if that alone exceeds `bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Most events.
    pub events: usize,
    /// Most bytes, as the queue keeps them.
    pub bytes: usize,
}

/// Records handed out, with the offsets they settle.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// All offsets of the lease, from where the one before it ended; each has at most one record.
    pub span: Span,
    /// The records, in offset order.
    pub records: Vec<Record>,
    /// Every event appended before this moment is in this lease or an earlier one of its partition.
    pub complete_through: Timestamp,
}

/// One record of a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An event.
    Event {
        /// Its place in the partition.
        offset: u64,
        /// The event.
        event: Event,
    },
    /// Something that is no event we can read. It must be set aside, not dropped, and does not affect its neighbours.
    Undecodable {
        /// Its place in the partition.
        offset: u64,
        /// The record as kept.
        bytes: Vec<u8>,
        /// What is wrong with it: one sentence.
        reason: String,
    },
}

/// What waits in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Appended events that were not handed out yet.
    pub events: u64,
    /// Age of the oldest of them; zero when there is none.
    pub age: Duration,
    /// Bytes the queue takes on disk.
    pub bytes: u64,
}
