//! Queue into the store, each event counted once.
//!
//! ```text
//! lease ─► split ─► insert ─► commit up to what the store holds for good
//!            │         └ fails: again, later; one event unfit: aside with it
//!            └ no event: dead letters, before anything behind it is committed
//! ```
//!
//! The queue hands out again what was not committed, and the store knows what it has: that is the whole delivery story. Nothing
//! here remembers anything beyond the batch in hand, except counts.

mod args;
mod batch;
mod intake;
mod ledger;
mod metrics;
#[cfg(feature = "cluster")]
pub mod migrate;
mod outlet;
mod pipeline;
#[cfg(feature = "cluster")]
pub mod service;
mod status;
mod window;

use sentinel_queue::EventTail;
use sentinel_queue::dead_letters::DeadLetters;
use sentinel_store::EventWriter;
use service_kit::{Stage, Tasks};

pub use args::{Args, Config, ConfigError};
pub use status::{ProcessorSnapshot, ProcessorStatus};

use intake::Intake;
use metrics::ProcessorMetrics;
use outlet::Outlet;

/// Starts the processor as a task of the pipeline stage, with the conditions `processor` and `processor queue` of `/ready`, and gives a view of it.
///
/// It ends when the stage is asked to stop and the queue is empty or has had its time, or when the queue is closed and empty; the store
/// is flushed and the queue committed by then. A fault that only a person can mend stops the process.
pub fn serve<T, W, D>(config: Config, tail: T, store: W, dead_letters: D, tasks: &Tasks) -> ProcessorStatus
where
    T: EventTail,
    W: EventWriter,
    D: DeadLetters,
{
    let status = ProcessorStatus::new(tasks.clock().clone());
    let metrics = ProcessorMetrics::shared(tasks.metrics());
    let shutdown = tasks.shutdown(Stage::Pipeline);
    let retry = config.retry;
    let intake = Intake::new(config, tail, tasks);
    let outlet = Outlet {
        store,
        dead_letters,
        ready: tasks.readiness("processor"),
        clock: tasks.clock().clone(),
        shutdown: shutdown.clone(),
        retry,
        metrics,
        status: status.clone(),
    };
    tasks.spawn(Stage::Pipeline, "processor", pipeline::run(intake, outlet, shutdown));
    status
}

#[cfg(test)]
mod tests;
