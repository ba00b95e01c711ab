//! Tasks: every one owned, named, told when to stop, and drained in stages.
//!
//! A process works from front to back: [`Stage::Intake`] takes work in, [`Stage::Pipeline`] carries it on, [`Stage::Query`]
//! answers questions, [`Stage::Admin`] tells how all of it is. Stopping goes the same way, so that nothing is taken in that the
//! stages behind can no longer finish. [`Tasks`] is what services hold; [`Running`] is held by whoever stops the process.

mod metrics;
mod running;
mod stage;

use std::any::Any;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;

pub use running::{LateTask, Report, Running, RunningOptions};

use crate::clock::Clock;
use crate::error::{Chain, panic_text};
use crate::logs::LogStore;
use crate::metrics::Metrics;
use crate::readiness::{Readiness, ReadinessFlag, ReadyReport};
use stage::StageTasks;

/// Faults beyond this many are logged but not kept: the first ones say why the process stops.
const FAULTS_KEPT_MAX: usize = 32;

/// Where a task stands between intake and administration; stages are drained in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Takes work in: listeners of data and of traffic.
    Intake,
    /// Carries on what was taken in: senders, writers, compaction.
    Pipeline,
    /// Answers questions about what is stored.
    Query,
    /// Tells how the process is: `/ready` and `/metrics` answer until the very end.
    Admin,
}

impl Stage {
    /// In the order of draining.
    pub const ALL: [Self; 4] = [Self::Intake, Self::Pipeline, Self::Query, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Pipeline => "pipeline",
            Self::Query => "query",
            Self::Admin => "admin",
        }
    }
}

/// A task that ended by itself, panicked, or failed while draining.
#[derive(Debug)]
pub struct Fault {
    pub stage: Stage,
    pub task: Cow<'static, str>,
    pub error: anyhow::Error,
}

/// Starts tasks and gives them what they share. Clones are the same process.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stages: [StageTasks; Stage::ALL.len()],
    readiness: Readiness,
    fault_seen: CancellationToken,
    faults: Mutex<Vec<Fault>>,
    faults_total: Counter,
    metrics: Metrics,
    logs: LogStore,
    clock: Clock,
}

/// What an end without a request to stop means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EarlyEnd {
    Fault,
    Allowed,
}

impl Tasks {
    /// A process of its own for a test: started, with short deadlines, its own metrics and logs, and the system clock.
    ///
    /// Needs a tokio runtime around it once tasks are spawned.
    pub fn for_test() -> Running {
        Running::for_test()
    }

    /// The same, by another clock.
    pub fn for_test_at(clock: Clock) -> Running {
        Running::for_test_at(clock)
    }

    fn new(options: &RunningOptions) -> Self {
        Self(Arc::new(Shared {
            stages: std::array::from_fn(|_| StageTasks::new()),
            readiness: Readiness::new(),
            fault_seen: CancellationToken::new(),
            faults: Mutex::new(Vec::new()),
            faults_total: Counter::default(),
            metrics: options.metrics.clone(),
            logs: options.logs.clone(),
            clock: options.clock.clone(),
        }))
    }

    /// Starts a task that runs until its stage is asked to stop, or until the stages in front of it have closed its queue.
    ///
    /// Ending before the process stops, with an error or without, is a fault and stops the process: a loop that quietly ends leaves a service
    /// that looks well and does nothing. Once asked to stop, the task finishes what it holds and returns. It may be dropped at
    /// any await when the deadline passes.
    pub fn spawn<F>(&self, stage: Stage, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.start(stage, name.into(), EarlyEnd::Fault, task);
    }

    /// Starts a task with an end of its own, such as a migration: `Ok` is fine at any time, an error or a panic is a fault.
    pub fn spawn_finite<F>(&self, stage: Stage, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.start(stage, name.into(), EarlyEnd::Allowed, task);
    }

    /// Tells tasks of `stage` when to stop.
    pub fn shutdown(&self, stage: Stage) -> Shutdown {
        Shutdown(self.stage(stage).stop().clone())
    }

    /// A named condition of `/ready`, at first not ready.
    pub fn readiness(&self, name: impl Into<Cow<'static, str>>) -> ReadinessFlag {
        self.0.readiness.flag(name.into())
    }

    /// Whether the process is ready, condition by condition.
    pub fn ready_report(&self) -> ReadyReport {
        self.0.readiness.report()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn logs(&self) -> &LogStore {
        &self.0.logs
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn stage(&self, stage: Stage) -> &StageTasks {
        &self.0.stages[stage as usize]
    }

    fn start<F>(&self, stage: Stage, name: Cow<'static, str>, early_end: EarlyEnd, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let entry = self.stage(stage).enter(name.clone());
        let id = entry.id();
        let tasks = self.clone();
        #[expect(clippy::disallowed_methods, reason = "this is what others use instead of the bare spawn")]
        let handle = tokio::spawn(async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            tasks.ended(stage, name, early_end, outcome);
            drop(entry);
        });
        self.stage(stage).set_abort(id, handle.abort_handle());
    }

    fn ended(&self, stage: Stage, task: Cow<'static, str>, early_end: EarlyEnd, outcome: Outcome) {
        // Intake is asked first. From then on a task may also end because those in front of it are gone and its queue is closed.
        let asked = self.stage(Stage::Intake).stop().is_cancelled();
        let error = match outcome {
            Ok(Ok(())) if asked || early_end == EarlyEnd::Allowed => {
                tracing::debug!(task = &*task, stage = stage.as_str(), "task finished");
                return;
            }
            Ok(Ok(())) => anyhow::anyhow!("the task ended although nobody asked it to stop"),
            Ok(Err(error)) => error,
            Err(panic) => anyhow::anyhow!("the task panicked: {}", panic_text(&*panic)),
        };
        tracing::error!(task = &*task, stage = stage.as_str(), error = %Chain(&*error), "task failed");
        self.0.faults_total.inc();
        let mut faults = self.0.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS_KEPT_MAX {
            faults.push(Fault { stage, task, error });
        }
        drop(faults);
        self.0.fault_seen.cancel();
    }
}

type Outcome = Result<anyhow::Result<()>, Box<dyn Any + Send>>;

/// Tells a task when its stage is asked to stop. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Resolves when the stage is asked to stop, at once if it already was. Safe to drop and to ask again, so it belongs in a
    /// `select!` at a point where nothing is half done.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// As [`requested`](Self::requested), for futures that must own what they wait for.
    pub async fn requested_owned(self) {
        self.0.cancelled_owned().await;
    }

    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Awaits `future` unless shutdown comes first; then drops it and returns `None`. Use it only where dropping is harmless.
    pub async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.run_until_cancelled(future).await
    }
}

#[cfg(test)]
mod tests;
