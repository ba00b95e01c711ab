//! The owner's side of [`Tasks`]: start, wait for a fault, stop front to back under one deadline.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{Fault, Shutdown, Stage, Tasks, metrics};
use crate::clock::Clock;
use crate::logs::LogStore;
use crate::metrics::Metrics;

/// How long an aborted task may take to be dropped. Only a task that blocks its thread needs longer.
const ABORT_WAIT: Duration = Duration::from_millis(250);

/// Part of the timeout kept back for each later stage that still has tasks, so that a slow intake cannot take from the pipeline
/// the time to write what it holds.
const RESERVE_PER_STAGE: u32 = 10;

/// What a process is made of besides its tasks.
#[derive(Clone, Debug)]
pub struct RunningOptions {
    /// Longest time for draining all stages together.
    pub shutdown_timeout: Duration,
    /// Time between "not ready" and the first stage's request to stop.
    pub shutdown_delay: Duration,
    pub metrics: Metrics,
    pub logs: LogStore,
    pub clock: Clock,
}

impl Default for RunningOptions {
    fn default() -> Self {
        Self {
            shutdown_timeout: Duration::from_secs(25),
            shutdown_delay: Duration::ZERO,
            metrics: Metrics::new(),
            logs: LogStore::default(),
            clock: Clock::system(),
        }
    }
}

/// A running set of tasks and the right to stop it. [`run`](crate::run) holds one; tests and embedders make their own.
///
/// Dropping it without [`stop`](Self::stop) asks every stage to stop and waits for nobody.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    shutdown_timeout: Duration,
    shutdown_delay: Duration,
}

/// How the tasks ended.
#[derive(Debug, Default)]
#[must_use]
pub struct Report {
    /// Who was still running when its stage's time was up, and was cut off.
    pub late: Vec<LateTask>,
    /// Who ended by itself or failed, the first one first.
    pub failed: Vec<Fault>,
}

/// A task that did not finish in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateTask {
    pub stage: Stage,
    pub task: Cow<'static, str>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.late.is_empty() && self.failed.is_empty()
    }

    /// The first fault, with the name of its task, as an error. Late tasks are no fault.
    pub fn into_result(self) -> anyhow::Result<()> {
        match self.failed.into_iter().next() {
            Some(fault) => Err(fault.error.context(format!("running task `{}`", fault.task))),
            None => Ok(()),
        }
    }
}

impl Running {
    /// A process that is not yet [`started`](Self::set_started).
    pub fn new(options: &RunningOptions) -> Self {
        let tasks = Tasks::new(options);
        tasks.logs().register(tasks.metrics());
        metrics::register(tasks.metrics(), Arc::downgrade(&tasks.0));
        Self {
            tasks,
            shutdown_timeout: options.shutdown_timeout,
            shutdown_delay: options.shutdown_delay,
        }
    }

    /// See [`Tasks::for_test`].
    pub fn for_test() -> Self {
        Self::for_test_at(Clock::system())
    }

    /// See [`Tasks::for_test_at`].
    pub fn for_test_at(clock: Clock) -> Self {
        let options = RunningOptions {
            clock,
            shutdown_timeout: Duration::from_secs(5),
            ..RunningOptions::default()
        };
        let running = Self::new(&options);
        running.set_started();
        running
    }

    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Start-up is over: readiness now depends on the named conditions alone.
    pub fn set_started(&self) {
        self.tasks.0.readiness.set_started();
    }

    /// Resolves when a task has failed.
    pub async fn failed(&self) {
        self.tasks.0.fault_seen.cancelled().await;
    }

    /// Takes readiness back, then stops the stages front to back and waits for their tasks, all under one deadline. Tasks that
    /// are late are cut off, logged and named in the report.
    pub async fn stop(self) -> Report {
        self.tasks.0.readiness.set_stopping();
        if !self.shutdown_delay.is_zero() {
            tokio::time::sleep(self.shutdown_delay).await;
        }
        let late = self.drain().await;
        let failed = std::mem::take(&mut *self.tasks.0.faults.lock().unwrap_or_else(PoisonError::into_inner));
        Report { late, failed }
    }

    async fn drain(&self) -> Vec<LateTask> {
        let deadline = Instant::now() + self.shutdown_timeout;
        let reserve = self.shutdown_timeout / RESERVE_PER_STAGE;
        let mut late = Vec::new();
        for stage in Stage::ALL {
            let tasks = self.tasks.stage(stage);
            tasks.stop().cancel();
            let waiting = Stage::ALL
                .into_iter()
                .filter(|later| *later > stage && self.tasks.stage(*later).len() > 0);
            let kept_back = reserve * u32::try_from(waiting.count()).unwrap_or(0);
            if timeout_at(deadline - kept_back, tasks.drained()).await.is_ok() {
                continue;
            }
            self.cut_off(stage, &mut late);
            // What an aborted task held must be free when `stop` returns; one that blocks its thread is left behind.
            let _left_behind = timeout(ABORT_WAIT, tasks.drained()).await;
        }
        // A task may have been started in a stage that was already empty.
        for stage in Stage::ALL {
            self.cut_off(stage, &mut late);
        }
        late
    }

    fn cut_off(&self, stage: Stage, late: &mut Vec<LateTask>) {
        for task in self.tasks.stage(stage).abort_all() {
            let task = LateTask { stage, task };
            if !late.contains(&task) {
                tracing::warn!(
                    task = &*task.task,
                    stage = stage.as_str(),
                    "task was late in stopping and is cut off"
                );
                late.push(task);
            }
        }
    }

    /// Tells when this stage is asked to stop.
    pub fn shutdown(&self, stage: Stage) -> Shutdown {
        self.tasks.shutdown(stage)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.0.readiness.set_stopping();
        for stage in Stage::ALL {
            self.tasks.stage(stage).stop().cancel();
        }
    }
}
