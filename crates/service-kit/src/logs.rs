//! The newest log records, kept in the process so that people can read them without a log system.
//!
//! Records come from [`layer`](LogStore::layer), a part of the tracing subscriber. The store is bounded by number and by bytes;
//! the oldest leave first and are counted. A reader that follows too slowly is told how many records it missed. Writers never
//! wait for readers.

mod kept;
mod layer;
mod record;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, Stream, StreamExt as _};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::broadcast::{self, error::RecvError};

pub use kept::{LogFile, PreviousLog};
pub use layer::LogLayer;
pub use record::{LogFilter, LogLevel, LogRecord};

use crate::clock::Clock;
use crate::metrics::Metrics;

/// How much a [`LogStore`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    pub records_max: usize,
    /// Approximate memory of all records together.
    pub bytes_max: usize,
    /// How many records a follower may fall behind before it misses some.
    pub followers_lag_max: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            records_max: 20_000,
            bytes_max: 16 << 20,
            followers_lag_max: 1_024,
        }
    }
}

/// The newest log records of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct LogStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: LogLimits,
    clock: Clock,
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<LogRecord>>,
    evicted: Counter,
    missed: Counter,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Arc<LogRecord>>,
    bytes: usize,
}

impl Default for LogStore {
    fn default() -> Self {
        Self::new(LogLimits::default(), Clock::system())
    }
}

impl LogStore {
    pub fn new(limits: LogLimits, clock: Clock) -> Self {
        let (live, _) = broadcast::channel(limits.followers_lag_max.max(1));
        let (evicted, missed) = (Counter::default(), Counter::default());
        Self(Arc::new(Inner {
            limits,
            clock,
            ring: Mutex::default(),
            live,
            evicted,
            missed,
        }))
    }

    /// The part of a tracing subscriber that feeds this store.
    pub fn layer(&self) -> LogLayer {
        LogLayer::new(self.clone())
    }

    /// Keeps a record, and lets go of the oldest ones beyond the limits.
    pub fn push(&self, record: LogRecord) {
        let record = Arc::new(record);
        let mut ring = self.ring();
        ring.bytes += record.bytes();
        ring.records.push_back(Arc::clone(&record));
        while ring.records.len() > self.0.limits.records_max || ring.bytes > self.0.limits.bytes_max {
            let Some(oldest) = ring.records.pop_front() else { break };
            ring.bytes -= oldest.bytes();
            self.0.evicted.inc();
        }
        // Sent under the lock, so that a follower starting now sees each record once. Nobody following is no fault.
        let _nobody = self.0.live.send(record);
    }

    /// The stored records that pass the filter, oldest first.
    pub fn read(&self, filter: &LogFilter) -> Vec<Arc<LogRecord>> {
        let records: Vec<_> = self.ring().records.iter().cloned().collect();
        filter.select(records)
    }

    /// What [`read`](Self::read) gives, then every later record that passes the filter, without end.
    ///
    /// A reader slower than the log gets a record with the field `missed` in place of those it missed (whether or not they
    /// would have passed the filter).
    pub fn follow(&self, filter: LogFilter) -> impl Stream<Item = Arc<LogRecord>> + Send + 'static {
        let (receiver, records) = {
            let ring = self.ring();
            (self.0.live.subscribe(), ring.records.iter().cloned().collect())
        };
        let stored = filter.select(records);
        let live = stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(record) => Some((Ok(record), receiver)),
                Err(RecvError::Lagged(missed)) => Some((Err(missed), receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        let (missed_total, clock) = (self.0.missed.clone(), self.0.clock.clone());
        let live = live.filter_map(move |next| {
            let passed = match next {
                Ok(record) => filter.passes(&record).then_some(record),
                Err(missed) => {
                    missed_total.inc_by(missed);
                    Some(Arc::new(LogRecord::gap(clock.unix_ns(), missed)))
                }
            };
            std::future::ready(passed)
        });
        stream::iter(stored).chain(live)
    }

    /// Number of records that left because of the limits.
    pub fn evicted(&self) -> u64 {
        self.0.evicted.get()
    }

    pub(crate) fn register(&self, metrics: &Metrics) {
        let (evicted, missed) = (self.0.evicted.clone(), self.0.missed.clone());
        metrics.register("service_kit", move |registry| {
            registry.register("log_records_evicted", "Log records that left the in-process store", evicted);
            registry.register("log_records_missed", "Log records that slow followers missed", missed);
            LogMetrics
        });
    }

    fn unix_ns(&self) -> i64 {
        self.0.clock.unix_ns()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks that a registry has the counters of the log store.
#[derive(Debug)]
struct LogMetrics;

#[cfg(test)]
mod tests;
