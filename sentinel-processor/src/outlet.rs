//! The store's side: insert until it is in, and aside with what can never be.

use std::sync::Arc;

use domain::{EventBatch, Timestamp};
use sentinel_queue::Lease;
use sentinel_queue::dead_letters::{DeadLetters, NewDeadLetter};
use sentinel_store::{EventWriter, InsertError, Inserted, Remedy};
use service_kit::error::Chain;
use service_kit::{Backoff, BackoffPolicy, Clock, Pause, ReadinessFlag, Shutdown};

use crate::batch::{halve, letter, split};
use crate::metrics::ProcessorMetrics;
use crate::status::ProcessorStatus;

#[derive(Debug)]
pub(crate) struct Outlet<W, D> {
    pub(crate) store: W,
    pub(crate) dead_letters: D,
    pub(crate) ready: ReadinessFlag,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) retry: BackoffPolicy,
    pub(crate) metrics: Arc<ProcessorMetrics>,
    pub(crate) status: ProcessorStatus,
}

/// How the handling of a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is in the store, or aside.
    Done,
    /// The process is stopping and the store refuses: the queue keeps it.
    Abandoned,
}

impl<W: EventWriter, D: DeadLetters> Outlet<W, D> {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.unix_ns())
    }

    /// Puts everything of a lease where it belongs. An error is one that only a person can mend.
    pub(crate) async fn settle(&self, lease: Lease) -> anyhow::Result<Settled> {
        let span = lease.span;
        if span.end <= self.store.durable_end(span.partition) {
            tracing::debug!(first = span.first, end = span.end, "batch was stored before the last restart");
            self.metrics.redelivered.inc_by(span.len());
            return Ok(Settled::Done);
        }
        let (batch, letters) = split(lease, self.now());
        if self.set_aside(letters).await? == Settled::Abandoned {
            return Ok(Settled::Abandoned);
        }
        let mut parts = vec![Arc::new(batch)];
        while let Some(part) = parts.pop() {
            match self.insert(&part).await? {
                Insert::Done(inserted) => self.stored(&part, inserted),
                Insert::Abandoned => return Ok(Settled::Abandoned),
                Insert::Unfit(error) => {
                    if self.without_unfit(part, &error, &mut parts).await? == Settled::Abandoned {
                        return Ok(Settled::Abandoned);
                    }
                }
            }
        }
        Ok(Settled::Done)
    }

    async fn insert(&self, batch: &Arc<EventBatch>) -> anyhow::Result<Insert> {
        let mut backoff = Backoff::new(self.retry);
        loop {
            let begun = self.clock.monotonic();
            let result = self.store.insert(Arc::clone(batch)).await;
            self.metrics
                .insert_seconds
                .observe(self.clock.monotonic().saturating_sub(begun).as_secs_f64());
            let error = match result {
                Ok(inserted) => {
                    self.ready.set_ready();
                    return Ok(Insert::Done(inserted));
                }
                Err(error) => error,
            };
            match error.remedy() {
                Remedy::SetAside => return Ok(Insert::Unfit(error)),
                Remedy::Stop => return Err(anyhow::Error::new(error).context("inserting a batch")),
                Remedy::Retry => {}
            }
            self.metrics.retries.inc();
            tracing::warn!(attempt = backoff.attempts() + 1, events = batch.events.len(), error = %Chain(&error), "insert failed; it is repeated");
            self.ready.set_not_ready("the store refuses events; they wait in the queue");
            if self.pause(&mut backoff).await == Settled::Abandoned {
                return Ok(Insert::Abandoned);
            }
        }
    }

    async fn pause(&self, backoff: &mut Backoff) -> Settled {
        match backoff.pause(&self.shutdown).await {
            Pause::Elapsed | Pause::Exhausted => Settled::Done,
            Pause::ShutdownRequested => Settled::Abandoned,
        }
    }

    /// Takes the event that the store refuses out of a part, or halves the part when the store does not say which it is.
    async fn without_unfit(
        &self,
        part: Arc<EventBatch>,
        error: &InsertError,
        parts: &mut Vec<Arc<EventBatch>>,
    ) -> anyhow::Result<Settled> {
        // A store that fails keeps nothing of a batch, so this seldom copies.
        let mut part = Arc::unwrap_or_clone(part);
        let named = match error {
            InsertError::Unfit { offset, .. } => part.events.iter().position(|(at, _)| at == offset),
            _ => None,
        };
        let unfit = match (named, part.events.len()) {
            (Some(at), _) => at,
            (None, 1) => 0,
            (None, 0) => anyhow::bail!("the store refuses an event of a batch that has none: {}", Chain(error)),
            (None, _) => {
                if let Ok((first, second)) = halve(part) {
                    parts.extend([second, first].map(Arc::new));
                }
                return Ok(Settled::Done);
            }
        };
        let (offset, event) = part.events.remove(unfit);
        tracing::warn!(partition = part.span.partition, offset, id = %event.id, error = %Chain(error), "the store refuses an event; it is set aside");
        let letter = letter(part.span.partition, offset, &event, Chain(error).to_string(), self.now());
        parts.push(Arc::new(part));
        self.set_aside(vec![letter]).await
    }

    async fn set_aside(&self, letters: Vec<NewDeadLetter>) -> anyhow::Result<Settled> {
        use sentinel_queue::Remedy;
        if letters.is_empty() {
            return Ok(Settled::Done);
        }
        let mut backoff = Backoff::new(self.retry);
        loop {
            let Err(error) = self.dead_letters.put(letters.clone()).await else {
                break;
            };
            if error.remedy() == Remedy::Stop {
                return Err(anyhow::Error::new(error).context("setting records aside"));
            }
            self.metrics.retries.inc();
            tracing::warn!(records = letters.len(), error = %Chain(&error), "records could not be set aside; it is repeated");
            self.ready
                .set_not_ready("the dead letters refuse records; replay or discard some, or look at their disk");
            if self.pause(&mut backoff).await == Settled::Abandoned {
                return Ok(Settled::Abandoned);
            }
        }
        let count = letters.len() as u64;
        self.metrics.dead_letters.inc_by(count);
        self.status.set_aside(self.dead_letters.count());
        Ok(Settled::Done)
    }

    fn stored(&self, part: &EventBatch, inserted: Inserted) {
        let now = self.now();
        let ledger = self.status.stored(part, inserted, now);
        self.metrics.stored(part, inserted, now);
        self.metrics.producers(ledger);
        tracing::debug!(
            first = part.span.first,
            end = part.span.end,
            stored = inserted.stored,
            duplicates = inserted.duplicates,
            "batch stored"
        );
    }
}

/// How an insert ended.
enum Insert {
    Done(Inserted),
    Unfit(InsertError),
    Abandoned,
}
