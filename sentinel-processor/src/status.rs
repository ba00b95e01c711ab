//! How the processor stands, for whoever shares its process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{EventBatch, Timestamp};
use sentinel_queue::Lag;
use sentinel_store::Inserted;
use service_kit::Clock;

use crate::ledger::{Counts, HourCounts, Ledger, Numbered};
use crate::window::Window;

/// A view of a running processor. Clones are the same view; looking costs a short lock.
#[derive(Debug, Clone)]
pub struct ProcessorStatus {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    stored: u64,
    duplicates: u64,
    dead_letters: u64,
    lag: Lag,
    ledger: Ledger,
    window: Window,
}

/// What the processor did since its start, and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessorSnapshot {
    /// Events stored, repeats not counted.
    pub stored: u64,
    /// Repeats that the store recognised.
    pub duplicates: u64,
    /// Events that producers numbered but that did not come.
    pub missing: u64,
    /// Numbers of producers that came again.
    pub repeated: u64,
    /// Records that are set aside now.
    pub dead_letters: u64,
    /// What waits in the queue.
    pub lag: Lag,
    /// From receipt to visible in milliseconds, half of the last five minutes' events; `None` without events.
    pub freshness_p50_ms: Option<f64>,
    /// The same for 99 of 100.
    pub freshness_p99_ms: Option<f64>,
    /// Events per second over the last minute.
    pub events_per_second: f64,
}

/// What came in one hour of the events that producers number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourCompleteness {
    /// Its start.
    pub hour: Timestamp,
    /// Events received.
    pub received: u64,
    /// Numbers skipped that have not come since.
    pub missing: u64,
    /// Numbers that came again.
    pub duplicated: u64,
}

const HOUR_SECONDS: i64 = 3_600;

impl ProcessorStatus {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            clock,
        }
    }

    /// How it stands now.
    pub fn snapshot(&self) -> ProcessorSnapshot {
        let now = self.clock.monotonic();
        let state = self.lock();
        let Counts { missing, repeated } = state.ledger.counts();
        ProcessorSnapshot {
            stored: state.stored,
            duplicates: state.duplicates,
            missing,
            repeated,
            dead_letters: state.dead_letters,
            lag: state.lag,
            freshness_p50_ms: state.window.quantile_ms(now, 0.5),
            freshness_p99_ms: state.window.quantile_ms(now, 0.99),
            events_per_second: state.window.per_second(now),
        }
    }

    /// What came in each of the last hours, oldest first: some days at most, restarts included.
    pub fn completeness(&self) -> Vec<HourCompleteness> {
        let state = self.lock();
        let hour = |(hour, counts): (i64, HourCounts)| HourCompleteness {
            hour: Timestamp::from_seconds(hour.saturating_mul(HOUR_SECONDS)),
            received: counts.received,
            missing: counts.missing,
            duplicated: counts.repeated,
        };
        state.ledger.hours().map(hour).collect()
    }

    pub(crate) fn stored(&self, batch: &EventBatch, inserted: Inserted, now: Timestamp) -> Counts {
        let monotonic = self.clock.monotonic();
        let mut state = self.lock();
        state.stored += inserted.stored;
        state.duplicates += inserted.duplicates;
        for (_, event) in &batch.events {
            state.window.note(monotonic, now.since(event.received_at));
        }
        let numbered = batch.events.iter().filter_map(|(offset, event)| {
            let numbered = Numbered {
                producer: event.producer.as_deref()?,
                seq: event.producer_seq?,
                hour: event.received_at.seconds().div_euclid(HOUR_SECONDS),
            };
            Some((*offset, numbered))
        });
        state.ledger.note_span(batch.span.partition, batch.span.end, numbered);
        state.ledger.counts()
    }

    /// The completeness ledger as it is now, for the next process.
    pub(crate) fn ledger(&self) -> Ledger {
        self.lock().ledger.clone()
    }

    /// Goes on with the ledger of the process before.
    pub(crate) fn restore(&self, ledger: Ledger) {
        self.lock().ledger = ledger;
    }

    pub(crate) fn set_aside(&self, kept: u64) {
        self.lock().dead_letters = kept;
    }

    pub(crate) fn set_lag(&self, lag: Lag) {
        self.lock().lag = lag;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
