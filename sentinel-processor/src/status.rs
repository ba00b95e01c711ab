//! How the processor stands, for whoever shares its process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{EventBatch, Timestamp};
use sentinel_queue::Lag;
use sentinel_store::Inserted;
use service_kit::Clock;

use crate::ledger::{Counts, Ledger};
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

    pub(crate) fn stored(&self, batch: &EventBatch, inserted: Inserted, now: Timestamp) -> Counts {
        let monotonic = self.clock.monotonic();
        let mut state = self.lock();
        state.stored += inserted.stored;
        state.duplicates += inserted.duplicates;
        for (_, event) in &batch.events {
            state.window.note(monotonic, now.since(event.received_at));
            if let (Some(producer), Some(seq)) = (&event.producer, event.producer_seq) {
                state.ledger.note(producer, seq);
            }
        }
        state.ledger.counts()
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
