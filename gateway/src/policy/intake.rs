//! Takes in documents from wherever they come, and keeps what all of them share: which one is in force, since when it is known to be
//! good, and whether it is too old.
//!
//! A document from a stream may be ahead of the same server's mounted file by a minute, so where both are read none takes the policy
//! back: a document that was made earlier than the one in force is left out. Where there is a file alone, its author decides.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::Timestamp;
use domain::policy::Document;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use service_kit::error::Chain;
use service_kit::{Clock, ReadinessFlag, Tasks};
use tokio::time::Instant;

use super::{Policy, PolicyCell};

/// Whether documents have an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// What comes last is in force.
    AsTheyCome,
    /// None that was made earlier than the one in force.
    ByTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Active {
    revision: String,
    schema_version: &'static str,
}

#[derive(Debug, Default)]
struct Metrics {
    reloads: Family<Reload, Counter>,
    active: Family<Active, Gauge>,
    last_success: Gauge,
}

/// The way into force. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cell: PolicyCell,
    order: Order,
    age_max: Option<Duration>,
    metrics: Arc<Metrics>,
    clock: Clock,
    ready: ReadinessFlag,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the policy in force was last known to be good.
    good: Option<Instant>,
    /// When it was made.
    made: Option<Timestamp>,
    too_old: bool,
}

impl Intake {
    /// Into a cell, where everything is refused until a document comes.
    pub(super) fn new(cell: PolicyCell, order: Order, age_max: Option<Duration>, tasks: &Tasks) -> Self {
        let metrics = tasks.metrics().register("mcp_gateway", |registry| {
            let all = Metrics::default();
            registry.register("policy_reloads", "Policies read, by result", all.reloads.clone());
            registry.register(
                "policy_active_revision_info",
                "Revision of the policy in force",
                all.active.clone(),
            );
            registry.register(
                "policy_last_success_timestamp_seconds",
                "When the policy in force was last known to be good",
                all.last_success.clone(),
            );
            all
        });
        cell.replace(Policy::unavailable());
        Self(Arc::new(Shared {
            cell,
            order,
            age_max,
            metrics,
            clock: tasks.clock().clone(),
            ready: tasks.readiness("policy"),
            state: Mutex::default(),
        }))
    }

    /// Revision of the policy in force; empty when there is none.
    pub(super) fn revision(&self) -> String {
        self.0.cell.current().revision().to_owned()
    }

    /// Takes in a document, unless it would take the policy back.
    pub(super) fn offer(&self, document: Document) {
        let mut state = self.state();
        let made = Timestamp::parse(&document.generated_at).ok();
        let is_same = document.revision == self.0.cell.current().revision();
        if !is_same
            && !state.too_old
            && self.0.order == Order::ByTime
            && let (Some(made), Some(in_force)) = (made, state.made)
            && made < in_force
        {
            self.count("outdated");
            tracing::debug!(revision = document.revision, %made, "an older policy is left out");
            return;
        }
        self.count("success");
        if !is_same || state.too_old || state.good.is_none() {
            self.put_in_force(document);
            state.made = made;
        }
        state.too_old = false;
        self.is_good(&mut state);
        self.0.ready.set_ready();
    }

    fn put_in_force(&self, document: Document) {
        let revision = document.revision.clone();
        self.0.cell.apply(document);
        let policy = self.0.cell.current();
        let (grants, sessions) = policy.size();
        tracing::info!(revision, grants, sessions, mode = policy.mode(), "policy in force");
        self.0.metrics.active.clear();
        let active = Active {
            revision,
            schema_version: domain::policy::document::SCHEMA_VERSION,
        };
        self.0.metrics.active.get_or_create(&active).set(1);
    }

    /// A source still says the same: that of this revision, which proves something only where it is the one in force.
    pub(super) fn confirm(&self, revision: &str) {
        let mut state = self.state();
        if !state.too_old && revision == self.0.cell.current().revision() {
            self.is_good(&mut state);
        } else {
            self.look(&mut state);
        }
    }

    /// A source has nothing to say.
    pub(super) fn fail(&self, source: &str, fault: &(dyn Error + 'static), is_news: bool) {
        if is_news {
            self.count("error");
            tracing::error!(source, error = %Chain(fault), "policy not taken in; the one before stays in force");
        }
        self.look(&mut self.state());
    }

    /// Gives the policy up once it is too old.
    fn look(&self, state: &mut State) {
        let is_old = match (state.good, self.0.age_max) {
            (None, _) => true,
            (Some(good), Some(age_max)) => good.elapsed() > age_max,
            (Some(_), None) => false,
        };
        if is_old && !state.too_old {
            state.too_old = true;
            self.0.ready.set_not_ready("there is no policy, or only one that is too old");
            self.0.cell.replace(Policy::unavailable());
            if state.good.is_some() {
                tracing::error!("the last good policy is too old; everything is refused until there is another");
            }
        }
    }

    fn is_good(&self, state: &mut State) {
        state.good = Some(Instant::now());
        self.0.metrics.last_success.set(self.0.clock.unix_ns() / 1_000_000_000);
    }

    fn count(&self, result: &'static str) {
        self.0.metrics.reloads.get_or_create(&Reload { result }).inc();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
