//! The queue's side: leases in, commits out.

mod health;
mod ledger_file;

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_queue::{EventTail, Lag, Lease, Remedy, TailError};
use service_kit::{Clock, Shutdown, Tasks};
use tokio::time::timeout;

use crate::args::Config;
use crate::batch::Batcher;
use crate::status::ProcessorStatus;
use health::QueueHealth;
use ledger_file::LedgerFile;

/// Without an event for this long, and with an empty queue, the pipeline is idle.
pub(crate) const IDLE: Duration = Duration::from_millis(20);
/// How often an idle pipeline looks round.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// Least time between commits while events keep coming: a commit costs the log two syncs.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Intake<T> {
    tail: T,
    batcher: Batcher,
    clock: Clock,
    committed: BTreeMap<u32, u64>,
    committed_at: Duration,
    ledger_file: Option<LedgerFile>,
    pub(crate) health: QueueHealth,
    drain_time_max: Duration,
    asked_to_stop_at: Option<Duration>,
}

/// What waiting for events brought.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Records for one insert.
    Lease(Lease),
    /// Nothing for as long as we waited.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

/// When a commit is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitWhen {
    Now,
    Seldom,
}

impl<T: EventTail> Intake<T> {
    pub(crate) fn new(config: Config, tail: T, tasks: &Tasks) -> Self {
        let clock = tasks.clock().clone();
        Self {
            health: QueueHealth::new(tasks.readiness("processor queue"), clock.clone()),
            drain_time_max: config.drain_time_max,
            asked_to_stop_at: None,
            tail,
            batcher: Batcher::new(config.limit, config.age_max),
            clock,
            committed: BTreeMap::new(),
            committed_at: Duration::ZERO,
            ledger_file: config.ledger_file.map(LedgerFile::new),
        }
    }

    /// Waits at most `patience` for records. Dropping the future loses nothing.
    pub(crate) async fn fetch(&mut self, patience: Duration) -> Result<Fetched, TailError> {
        let wait = self
            .batcher
            .wait(self.clock.monotonic())
            .map_or(patience, |wait| wait.min(patience));
        let limit = self.batcher.limit();
        let lease = match timeout(wait, self.tail.next(limit)).await {
            Ok(Ok(lease)) => self.batcher.push(lease, self.clock.monotonic()),
            Ok(Err(TailError::Closed)) => match self.batcher.close() {
                None => return Ok(Fetched::Closed),
                last => last,
            },
            Ok(Err(error)) => return Err(error),
            Err(_) => self.batcher.due(self.clock.monotonic()),
        };
        Ok(lease.map_or(Fetched::Nothing, Fetched::Lease))
    }

    pub(crate) fn lag(&self) -> Lag {
        self.tail.lag()
    }

    /// Whether nothing waits anywhere before the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.lag().events == 0 && self.batcher.wait(Duration::ZERO).is_none()
    }

    /// Whether it was asked to stop and has had its time to empty the queue, which others may be filling all the while.
    pub(crate) fn is_over(&mut self, shutdown: &Shutdown) -> bool {
        if !shutdown.is_requested() {
            return false;
        }
        let now = self.clock.monotonic();
        let asked = *self.asked_to_stop_at.get_or_insert(now);
        now.saturating_sub(asked) >= self.drain_time_max
    }

    /// Partitions of which anything was handed out.
    pub(crate) fn partitions(&self) -> Vec<u32> {
        self.committed.keys().copied().collect()
    }

    pub(crate) fn seen(&mut self, partition: u32) {
        self.committed.entry(partition).or_insert(0);
    }

    /// Goes on with the ledger of the process before.
    pub(crate) async fn restore(&mut self, status: &ProcessorStatus) {
        if let Some(file) = &self.ledger_file
            && let Some(ledger) = file.read().await
        {
            status.restore(ledger);
        }
    }

    /// Commits what `durable_end` tells the store holds for good. A queue that refuses for now is asked again with the next one.
    pub(crate) async fn commit(
        &mut self,
        when: CommitWhen,
        status: &ProcessorStatus,
        durable_end: impl Fn(u32) -> u64,
    ) -> Result<(), TailError> {
        let now = self.clock.monotonic();
        if when == CommitWhen::Seldom && now.saturating_sub(self.committed_at) < COMMIT_PAUSE {
            return Ok(());
        }
        for partition in self.partitions() {
            let end = durable_end(partition);
            if self.committed.get(&partition).is_some_and(|committed| *committed >= end) {
                continue;
            }
            self.committed_at = now;
            // First: what the queue forgets, the ledger must have seen for good.
            if let Some(file) = &self.ledger_file
                && !file.write(&status.ledger()).await
            {
                return Ok(());
            }
            match self.tail.commit(partition, end).await {
                Ok(()) => drop(self.committed.insert(partition, end)),
                Err(error) if error.remedy() == Remedy::Stop => return Err(error),
                Err(error) => {
                    tracing::warn!(partition, end, error = %service_kit::error::Chain(&error), "commit failed; it is repeated");
                }
            }
        }
        Ok(())
    }
}
