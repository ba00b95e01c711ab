//! The life of a process: start, run until told or until a task fails, drain, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ProcessArgs;
use crate::error::Chain;
use crate::logs::LogStore;
use crate::tasks::{Running, RunningOptions, Tasks};
use crate::telemetry::{self, LogFormat};

/// How long blocking calls may hold up the exit after everything is drained.
const BLOCKING_WAIT: Duration = Duration::from_secs(1);

/// Runs a process and gives its exit code: 0 after a clean stop, 1 after any fault.
///
/// `body` checks settings, binds, spawns tasks and returns once everything is started; readiness is false until then. The
/// process runs on until SIGTERM, SIGINT or a failed task, then drains its stages front to back under one deadline. A signal
/// during start-up drops `body` at its current await. A second signal leaves at once. The chain of the first error is printed
/// once.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers move a field out of their arguments; nobody else needs it"
)]
pub fn run<F>(name: &'static str, args: ProcessArgs, body: F) -> ExitCode
where
    F: AsyncFnOnce(Tasks) -> anyhow::Result<()>,
{
    let logs = LogStore::default();
    if let Err(error) = telemetry::install(args.log_format, &args.log_level, &logs) {
        // Nobody would write a record now, so the error is printed for people whatever the format.
        print_error(LogFormat::Human, &error.into());
        return ExitCode::FAILURE;
    }
    telemetry::log_panics();
    match run_to_end(name, &args, logs, body) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stopped::AtOnce) => {
            tracing::warn!(process = name, "second signal; leaving without draining");
            ExitCode::FAILURE
        }
        Err(Stopped::Failed(error)) => {
            print_error(args.log_format, &error);
            ExitCode::FAILURE
        }
    }
}

/// Why a process did not stop cleanly.
#[derive(Debug)]
enum Stopped {
    AtOnce,
    Failed(anyhow::Error),
}

fn build_runtime(args: &ProcessArgs) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all();
    if let Some(count) = args.worker_threads {
        builder.worker_threads(count.get());
    }
    builder
        .build()
        .map_err(|error| anyhow::Error::new(error).context("starting worker threads"))
}

fn run_to_end<F>(name: &'static str, args: &ProcessArgs, logs: LogStore, body: F) -> Result<(), Stopped>
where
    F: AsyncFnOnce(Tasks) -> anyhow::Result<()>,
{
    let runtime = build_runtime(args).map_err(Stopped::Failed)?;
    let result = runtime.block_on(async {
        let signals = unix_signals().map_err(Stopped::Failed)?;
        let running = Running::new(&RunningOptions {
            shutdown_timeout: args.shutdown_timeout,
            shutdown_delay: args.shutdown_delay,
            logs,
            ..RunningOptions::default()
        });
        supervise(name, running, signals, body).await
    });
    let wait = if matches!(result, Err(Stopped::AtOnce)) {
        Duration::ZERO
    } else {
        BLOCKING_WAIT
    };
    runtime.shutdown_timeout(wait);
    result
}

/// The names of the signals that ask the process to stop, as they arrive.
fn unix_signals() -> anyhow::Result<impl Stream<Item = &'static str> + Unpin> {
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let terminate = stream::poll_fn(move |context| terminate.poll_recv(context)).map(|()| "SIGTERM");
    let interrupt = stream::poll_fn(move |context| interrupt.poll_recv(context)).map(|()| "SIGINT");
    Ok(stream::select(terminate, interrupt))
}

async fn supervise<F>(
    name: &'static str,
    running: Running,
    mut signals: impl Stream<Item = &'static str> + Unpin,
    body: F,
) -> Result<(), Stopped>
where
    F: AsyncFnOnce(Tasks) -> anyhow::Result<()>,
{
    tracing::info!(process = name, pid = std::process::id(), "process starting");
    let mut start_error = None;
    let started = tokio::select! {
        result = Box::pin(body(running.tasks())) => match result {
            Ok(()) => true,
            Err(error) => {
                start_error = Some(error);
                false
            }
        },
        signal = signals.next() => {
            tracing::info!(process = name, signal, "asked to stop while starting");
            false
        }
        () = running.failed() => false,
    };
    if started {
        running.set_started();
        tracing::info!(process = name, "process started");
        tokio::select! {
            signal = signals.next() => tracing::info!(process = name, signal, "asked to stop"),
            () = running.failed() => tracing::error!(process = name, "a task failed; stopping the process"),
        }
    }
    let report = tokio::select! {
        report = running.stop() => report,
        Some(_) = signals.next() => return Err(Stopped::AtOnce),
    };
    tracing::info!(
        process = name,
        late = report.late.len(),
        failed = report.failed.len(),
        "process stopped"
    );
    // What failed first explains the rest, and start-up fails before any task is asked to stop.
    match start_error {
        Some(error) => Err(Stopped::Failed(error)),
        None => report.into_result().map_err(Stopped::Failed),
    }
}

/// Prints an error chain the way people, or machines, read this process's log.
fn print_error(format: LogFormat, error: &anyhow::Error) {
    match format {
        LogFormat::Json => tracing::error!(error = %Chain(&**error), "process failed"),
        LogFormat::Human => {
            // Nobody is left to tell when standard error is closed.
            let _closed = writeln!(io::stderr(), "error: {:#}", Chain(&**error));
        }
    }
}

#[cfg(test)]
mod tests;
