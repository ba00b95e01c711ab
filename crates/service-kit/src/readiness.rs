//! Readiness: the named conditions that must all hold before traffic may come.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// The built-in condition: true from the end of start-up to the first wish to stop.
const STARTED: &str = "started";

/// One named condition as `/ready` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    pub name: Cow<'static, str>,
    pub ready: bool,
    /// Why it does not hold; absent when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
}

/// What `/ready` answers: ready only when every condition holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyReport {
    pub ready: bool,
    pub conditions: Vec<Condition>,
}

/// The conditions of one process.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(Arc<Mutex<Conditions>>);

#[derive(Debug)]
struct Conditions {
    next_id: u64,
    all: BTreeMap<u64, Condition>,
    /// From now on conditions fall one after the other, which is no news.
    stopping: bool,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        let mut all = BTreeMap::new();
        all.insert(0, not_ready(Cow::Borrowed(STARTED), Cow::Borrowed("starting")));
        Self(Arc::new(Mutex::new(Conditions {
            next_id: 1,
            all,
            stopping: false,
        })))
    }

    pub(crate) fn flag(&self, name: Cow<'static, str>) -> ReadinessFlag {
        let mut conditions = self.lock();
        let id = conditions.next_id;
        conditions.next_id += 1;
        conditions.all.insert(id, not_ready(name, Cow::Borrowed("not yet ready")));
        ReadinessFlag {
            id,
            readiness: self.clone(),
        }
    }

    pub(crate) fn set_started(&self) {
        self.set(0, None);
    }

    /// Not ready for good.
    pub(crate) fn set_stopping(&self) {
        self.set(0, Some(Cow::Borrowed("shutting down")));
        self.lock().stopping = true;
    }

    pub(crate) fn report(&self) -> ReadyReport {
        let conditions = self.lock();
        let conditions: Vec<_> = conditions.all.values().cloned().collect();
        ReadyReport {
            ready: conditions.iter().all(|condition| condition.ready),
            conditions,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, id: u64, reason: Option<Cow<'static, str>>) {
        let mut conditions = self.lock();
        let stopping = conditions.stopping;
        if let Some(condition) = conditions.all.get_mut(&id) {
            if condition.ready != reason.is_none() && !stopping {
                let (name, reason) = (&*condition.name, reason.as_deref().unwrap_or(""));
                tracing::info!(condition = name, ready = !condition.ready, reason, "readiness changed");
            }
            condition.ready = reason.is_none();
            condition.reason = reason;
        }
    }
}

fn not_ready(name: Cow<'static, str>, reason: Cow<'static, str>) -> Condition {
    Condition {
        name,
        ready: false,
        reason: Some(reason),
    }
}

/// One named condition, in the hands of whoever knows whether it holds.
///
/// Starts as not ready and becomes ready only by [`set_ready`](Self::set_ready). When its owner drops it, the condition stays
/// in the list, not ready for good.
#[derive(Debug)]
pub struct ReadinessFlag {
    id: u64,
    readiness: Readiness,
}

impl ReadinessFlag {
    pub fn set_ready(&self) {
        self.readiness.set(self.id, None);
    }

    /// Takes readiness back. `reason` is shown to whoever asks, so it names the state and no secret.
    pub fn set_not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.readiness.set(self.id, Some(reason.into()));
    }

    /// Takes the condition off the list: from now on another one tells.
    pub fn dismiss(self) {
        self.readiness.lock().all.remove(&self.id);
    }
}

impl Drop for ReadinessFlag {
    fn drop(&mut self) {
        self.readiness.set(self.id, Some(Cow::Borrowed("its owner is gone")));
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::Readiness;

    #[test]
    fn every_condition_must_hold() {
        let readiness = Readiness::new();
        let flag = readiness.flag(Cow::Borrowed("queue"));
        assert!(!readiness.report().ready);
        readiness.set_started();
        assert!(!readiness.report().ready, "a new flag is not ready");
        flag.set_ready();
        assert!(readiness.report().ready);
        flag.set_not_ready("broker is away");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.conditions[1].reason.as_deref(), Some("broker is away"));
    }

    #[test]
    fn a_dropped_flag_is_not_ready_for_good() {
        let readiness = Readiness::new();
        readiness.set_started();
        let flag = readiness.flag(Cow::Borrowed("queue"));
        flag.set_ready();
        drop(flag);
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.conditions[1].reason.as_deref(), Some("its owner is gone"));
    }

    #[test]
    fn a_dismissed_flag_is_not_asked_any_more() {
        let readiness = Readiness::new();
        readiness.set_started();
        readiness.flag(Cow::Borrowed("brokers")).dismiss();
        assert!(readiness.report().ready);
    }

    #[test]
    fn stopping_wins_over_ready_flags() {
        let readiness = Readiness::new();
        let flag = readiness.flag(Cow::Borrowed("queue"));
        readiness.set_started();
        flag.set_ready();
        readiness.set_stopping();
        assert!(!readiness.report().ready);
    }
}
