use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{LateTask, Running, RunningOptions, Stage, Tasks};
use crate::testing::soon;

fn running(shutdown_timeout: Duration) -> Running {
    let running = Running::new(&RunningOptions {
        shutdown_timeout,
        ..RunningOptions::default()
    });
    running.set_started();
    running
}

/// A task that writes down its stage once asked to stop.
fn note_stop(tasks: &Tasks, stage: Stage, notes: &Arc<Mutex<Vec<Stage>>>) {
    let (shutdown, notes) = (tasks.shutdown(stage), Arc::clone(notes));
    tasks.spawn(stage, stage.as_str(), async move {
        shutdown.requested().await;
        notes.lock().unwrap().push(stage);
        Ok(())
    });
}

#[tokio::test]
async fn stages_stop_front_to_back() {
    let running = Tasks::for_test();
    let notes = Arc::new(Mutex::new(Vec::new()));
    for stage in Stage::ALL.into_iter().rev() {
        note_stop(&running.tasks(), stage, &notes);
    }
    let report = soon("stopping", running.stop()).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(*notes.lock().unwrap(), Stage::ALL);
}

#[tokio::test]
async fn a_stage_is_asked_only_when_the_one_before_has_finished() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let (asked, was_asked) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let intake = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "intake", async move {
        intake.requested().await;
        asked.send(()).unwrap();
        Ok(released.await?)
    });
    let pipeline = tasks.shutdown(Stage::Pipeline);
    let watch = async {
        was_asked.await.unwrap();
        assert!(!pipeline.is_requested(), "the pipeline stops while intake still works");
        assert!(!tasks.ready_report().ready, "readiness is still true while stages stop");
        release.send(()).unwrap();
        pipeline.requested().await;
    };
    let (report, ()) = soon("stopping", async { tokio::join!(running.stop(), watch) }).await;
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn late_tasks_are_named_and_leave_time_for_later_stages() {
    let running = running(Duration::from_millis(200));
    let tasks = running.tasks();
    let (held, mut freed) = mpsc::channel::<()>(1);
    tasks.spawn(Stage::Intake, "stuck", async move {
        let _held = held;
        std::future::pending().await
    });
    let notes = Arc::new(Mutex::new(Vec::new()));
    note_stop(&tasks, Stage::Pipeline, &notes);
    let report = soon("stopping", running.stop()).await;
    assert_eq!(
        report.late,
        [LateTask {
            stage: Stage::Intake,
            task: "stuck".into()
        }]
    );
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(*notes.lock().unwrap(), [Stage::Pipeline]);
    assert_eq!(
        freed.try_recv(),
        Err(mpsc::error::TryRecvError::Disconnected),
        "the late task still holds what it held"
    );
}

#[tokio::test]
async fn a_task_that_fails_is_reported_with_its_name() {
    let running = Tasks::for_test();
    running.tasks().spawn(Stage::Pipeline, "writer", async {
        Err(anyhow::anyhow!("disk is full").context("storing batch"))
    });
    soon("failing", running.failed()).await;
    let error = soon("stopping", running.stop()).await.into_result().unwrap_err();
    assert_eq!(format!("{error:#}"), "running task `writer`: storing batch: disk is full");
}

#[tokio::test]
async fn a_loop_that_ends_quietly_is_a_fault() {
    let running = Tasks::for_test();
    running.tasks().spawn(Stage::Intake, "loop", async { Ok(()) });
    soon("failing", running.failed()).await;
    let report = soon("stopping", running.stop()).await;
    assert_eq!(
        report.failed[0].error.to_string(),
        "the task ended although nobody asked it to stop"
    );
}

#[tokio::test]
async fn a_panic_is_a_fault_and_not_the_end_of_the_process() {
    let running = Tasks::for_test();
    running
        .tasks()
        .spawn(Stage::Query, "reader", async { panic!("index is {}", 7) });
    soon("failing", running.failed()).await;
    let report = soon("stopping", running.stop()).await;
    assert_eq!(report.failed[0].error.to_string(), "the task panicked: index is 7");
}

#[tokio::test]
async fn a_finite_task_may_end() {
    let running = Tasks::for_test();
    let (done, is_done) = oneshot::channel();
    running.tasks().spawn_finite(Stage::Pipeline, "migration", async move {
        done.send(()).unwrap();
        Ok(())
    });
    soon("migrating", is_done).await.unwrap();
    assert!(soon("stopping", running.stop()).await.is_clean());
}

#[tokio::test]
async fn a_worker_may_end_when_intake_closes_its_queue() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let (sender, mut receiver) = mpsc::channel::<u8>(4);
    tasks.spawn(Stage::Pipeline, "worker", async move {
        while receiver.recv().await.is_some() {}
        Ok(())
    });
    let intake = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "intake", async move {
        intake.requested().await;
        Ok(sender.send(1).await?)
    });
    let report = soon("stopping", running.stop()).await;
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn a_failure_while_draining_is_a_failure() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let pipeline = tasks.shutdown(Stage::Pipeline);
    tasks.spawn(Stage::Pipeline, "writer", async move {
        pipeline.requested().await;
        anyhow::bail!("flushing the last batch")
    });
    let report = soon("stopping", running.stop()).await;
    assert_eq!(report.failed.len(), 1, "{report:?}");
}

#[tokio::test]
async fn dropping_the_owner_asks_every_stage_to_stop() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    drop(running);
    assert!(Stage::ALL.into_iter().all(|stage| tasks.shutdown(stage).is_requested()));
    assert!(!tasks.ready_report().ready);
}

#[tokio::test]
async fn work_yields_to_shutdown() {
    let running = Tasks::for_test();
    let shutdown = running.shutdown(Stage::Query);
    assert_eq!(shutdown.or(async { 7 }).await, Some(7));
    drop(running);
    assert_eq!(shutdown.or(std::future::pending::<u8>()).await, None);
}

#[tokio::test]
async fn readiness_tasks_and_faults_are_counted() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    note_stop(&tasks, Stage::Query, &Arc::default());
    tasks.spawn(Stage::Intake, "loop", async { Ok(()) });
    soon("failing", running.failed()).await;
    let text = tasks.metrics().encode().unwrap();
    for line in [
        "service_kit_ready 1",
        r#"service_kit_tasks_running{stage="query"} 1"#,
        r#"service_kit_tasks_running{stage="pipeline"} 0"#,
        "service_kit_task_faults_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
}

#[tokio::test]
async fn a_task_started_in_a_finished_stage_is_cut_off_too() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let late = tasks.clone();
    let query = tasks.shutdown(Stage::Query);
    tasks.spawn(Stage::Query, "query", async move {
        query.requested().await;
        late.spawn(Stage::Intake, "afterthought", std::future::pending());
        Ok(())
    });
    let report = soon("stopping", running.stop()).await;
    let task = "afterthought".into();
    assert_eq!(
        report.late,
        [LateTask {
            stage: Stage::Intake,
            task
        }]
    );
}
