//! What ingest looks after by itself: the key file, and what readiness says.

use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use service_kit::{Clock, ReadinessFlag, Shutdown, Stage, Tasks};
use tokio::time::MissedTickBehavior;

use crate::keys::{KeyRing, KeyRingState, Senders};
use crate::metrics::IngestMetrics;
use crate::queue_state::QueueState;

/// How often the key file is looked at. Asking the system for changes would be quicker, but does not see the links that mounted
/// secrets are swapped by.
const TURN: Duration = Duration::from_millis(500);

pub(crate) struct Watch {
    keys: KeyRing,
    /// With tokens, ingest takes events without any key.
    takes_tokens: bool,
    keys_ready: ReadinessFlag,
    queue: Arc<QueueState>,
    queue_ready: ReadinessFlag,
    metrics: Arc<IngestMetrics>,
    clock: Clock,
}

impl Watch {
    pub(crate) fn start(senders: Senders, queue: Arc<QueueState>, metrics: Arc<IngestMetrics>, tasks: &Tasks) {
        let watch = Self {
            takes_tokens: senders.oidc.is_some(),
            keys: senders.keys,
            keys_ready: tasks.readiness("ingest keys"),
            queue,
            queue_ready: tasks.readiness("ingest queue"),
            metrics,
            clock: tasks.clock().clone(),
        };
        watch.tell();
        tasks.spawn(Stage::Intake, "ingest watch", watch.run(tasks.shutdown(Stage::Intake)));
    }

    async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.or(turns.tick()).await.is_some() {
            let keys = self.keys.clone();
            tokio::task::spawn_blocking(move || keys.refresh()).await?;
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        let state = self.keys.state(Timestamp::from_nanos(self.clock.unix_ns()));
        self.metrics.usable_keys(state.usable);
        match keys_reason(&state).filter(|_| !self.takes_tokens) {
            None => self.keys_ready.set_ready(),
            Some(reason) => self.keys_ready.set_not_ready(reason),
        }
        match self.queue.fault(self.clock.monotonic()) {
            None => self.queue_ready.set_ready(),
            Some(reason) => self.queue_ready.set_not_ready(reason),
        }
    }
}

/// Why nobody could send anything. A file that went bad while good keys are held is a fault to report, but no reason to stop.
fn keys_reason(state: &KeyRingState) -> Option<&'static str> {
    match state {
        KeyRingState { usable: 1.., .. } => None,
        KeyRingState { fault: Some(_), .. } => Some("the key file cannot be used, so every event is refused; the log says why"),
        KeyRingState { keys: 0, .. } => {
            Some("there is no ingest key, so every event is refused; make one with `mcp-runtime sentinel keys create`")
        }
        _ => Some("every ingest key is revoked or has expired; make one with `mcp-runtime sentinel keys create`"),
    }
}
