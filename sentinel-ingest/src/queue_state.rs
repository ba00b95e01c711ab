//! Whether the queue took what it was last given.
//!
//! A queue cannot be asked how it is, only given events. After a fault ingest says "not ready" for a while and then hopes again:
//! while it is not ready nobody may send it anything, so waiting for a success could last for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sentinel_queue::AppendError;

/// How long a fault counts.
const FAULT_COUNTS_FOR: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct QueueState {
    faulty: AtomicBool,
    last_fault: Mutex<Option<(Duration, &'static str)>>,
}

impl QueueState {
    pub(crate) fn took(&self) {
        // Read first: on the good path nobody writes, so the cores share the line.
        if self.faulty.load(Ordering::Relaxed) {
            self.faulty.store(false, Ordering::Relaxed);
            *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(crate) fn failed(&self, fault: &AppendError, now: Duration) {
        let what = match fault {
            AppendError::Full { .. } => "the queue is full until events are processed",
            AppendError::Unavailable(_) => "the queue cannot make events durable",
            AppendError::Closed => "the queue is closed",
            // The fault of one event, not of the queue.
            AppendError::TooLarge { .. } => return,
        };
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, what));
        self.faulty.store(true, Ordering::Relaxed);
    }

    /// Why the queue is believed not to work, if it is.
    pub(crate) fn fault(&self, now: Duration) -> Option<&'static str> {
        let (at, what) = (*self.last_fault.lock().unwrap_or_else(PoisonError::into_inner))?;
        (now.saturating_sub(at) < FAULT_COUNTS_FOR).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_counts_until_a_success_or_for_a_while() {
        let state = QueueState::default();
        assert_eq!(state.fault(Duration::ZERO), None);
        state.failed(&AppendError::Closed, Duration::from_secs(1));
        assert_eq!(state.fault(Duration::from_secs(2)), Some("the queue is closed"));
        assert_eq!(state.fault(Duration::from_secs(7)), None);
        state.failed(&AppendError::Closed, Duration::from_secs(8));
        state.took();
        assert_eq!(state.fault(Duration::from_secs(8)), None);
    }
}
