//! What readiness says of reading the queue.

use std::time::Duration;

use sentinel_queue::TailError;
use service_kit::error::Chain;
use service_kit::{Clock, ReadinessFlag};

/// How long a fault counts when no other follows. A queue that has nothing to hand out cannot show that it is well again.
const FAULT_COUNTS_FOR: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct QueueHealth {
    flag: ReadinessFlag,
    clock: Clock,
    refused_at: Option<Duration>,
}

impl QueueHealth {
    pub(crate) fn new(flag: ReadinessFlag, clock: Clock) -> Self {
        Self {
            flag,
            clock,
            refused_at: None,
        }
    }

    pub(crate) fn starts(&self) {
        self.flag.set_ready();
    }

    pub(crate) fn refused(&mut self, error: &TailError) {
        if self.refused_at.is_none() {
            tracing::warn!(error = %Chain(error), "the queue refuses to be read; it is repeated");
        }
        self.refused_at = Some(self.clock.monotonic());
        self.flag.set_not_ready(Chain(error).to_string());
    }

    /// It handed something out.
    pub(crate) fn gave(&mut self) {
        if self.refused_at.take().is_some() {
            self.flag.set_ready();
        }
    }

    /// It had nothing, and did not refuse either.
    pub(crate) fn gave_nothing(&mut self) {
        let now = self.clock.monotonic();
        if self.refused_at.is_some_and(|at| now.saturating_sub(at) >= FAULT_COUNTS_FOR) {
            self.gave();
        }
    }
}
