use std::convert::Infallible;
use std::time::Duration;

use futures::channel::mpsc;
use futures::stream;
use tokio::sync::oneshot;

use super::{Stopped, supervise};
use crate::tasks::{Running, RunningOptions, Stage, Tasks};
use crate::testing::{soon, until};

const HOUR: Duration = Duration::from_hours(1);

fn starting() -> Running {
    Running::new(&RunningOptions {
        shutdown_timeout: HOUR,
        ..RunningOptions::default()
    })
}

fn text(result: Result<(), Stopped>) -> String {
    match result {
        Ok(()) => "stopped".to_owned(),
        Err(Stopped::AtOnce) => "left at once".to_owned(),
        Err(Stopped::Failed(error)) => format!("{error:#}"),
    }
}

fn spawn_patient(tasks: &Tasks) {
    let shutdown = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "patient", async move {
        shutdown.requested().await;
        Ok(())
    });
}

#[tokio::test]
async fn a_signal_drains_and_ends_well() {
    let running = starting();
    let tasks = running.tasks();
    assert!(!tasks.ready_report().ready, "ready before it started");
    let (mut signals, arriving) = mpsc::channel(2);
    let body = async |tasks: Tasks| {
        spawn_patient(&tasks);
        Ok(())
    };
    let send = async {
        until("starting", async || match tasks.ready_report() {
            report if report.ready => Ok(()),
            report => Err(format!("{report:?}")),
        })
        .await;
        signals.try_send("SIGTERM").unwrap();
    };
    let (result, ()) = soon("running", async {
        tokio::join!(supervise("probe", running, arriving, body), send)
    })
    .await;
    assert_eq!(text(result), "stopped");
    assert!(!tasks.ready_report().ready);
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let (mut signals, arriving) = mpsc::channel(2);
    let body = async |tasks: Tasks| {
        let shutdown = tasks.shutdown(Stage::Intake);
        tasks.spawn(Stage::Intake, "stuck", async move {
            shutdown.requested().await;
            signals.try_send("SIGTERM")?;
            std::future::pending().await
        });
        tasks.spawn(Stage::Query, "failing", async { anyhow::bail!("this starts the drain") });
        Ok(())
    };
    assert_eq!(
        text(soon("running", supervise("probe", starting(), arriving, body)).await),
        "left at once"
    );
}

#[tokio::test]
async fn a_failing_task_stops_the_process_with_its_error() {
    let body = async |tasks: Tasks| {
        spawn_patient(&tasks);
        tasks.spawn(Stage::Pipeline, "writer", async {
            Err(anyhow::anyhow!("disk is full").context("storing batch"))
        });
        Ok(())
    };
    let result = soon("running", supervise("probe", starting(), stream::pending(), body)).await;
    assert_eq!(text(result), "running task `writer`: storing batch: disk is full");
}

#[tokio::test]
async fn a_failing_start_stops_what_it_had_started() {
    let (stopped, was_stopped) = oneshot::channel();
    let body = async |tasks: Tasks| {
        let shutdown = tasks.shutdown(Stage::Query);
        tasks.spawn(Stage::Query, "early", async move {
            shutdown.requested().await;
            stopped.send(()).map_err(|()| anyhow::anyhow!("nobody listens"))
        });
        anyhow::bail!("reading settings")
    };
    let result = soon("running", supervise("probe", starting(), stream::pending(), body)).await;
    assert_eq!(text(result), "reading settings");
    was_stopped.await.unwrap();
}

#[tokio::test]
async fn a_signal_ends_a_start_that_waits() {
    let (mut signals, arriving) = mpsc::channel(2);
    let body = async |_tasks: Tasks| {
        signals.try_send("SIGINT")?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    assert_eq!(
        text(soon("running", supervise("probe", starting(), arriving, body)).await),
        "stopped"
    );
}

#[tokio::test]
async fn a_failing_task_ends_a_start_that_waits() {
    let body = async |tasks: Tasks| {
        tasks.spawn(Stage::Intake, "probe", async { anyhow::bail!("joining the group") });
        let never: anyhow::Result<Infallible> = std::future::pending().await;
        never.map(|_| ())
    };
    let result = soon("running", supervise("probe", starting(), stream::pending(), body)).await;
    assert_eq!(text(result), "running task `probe`: joining the group");
}
