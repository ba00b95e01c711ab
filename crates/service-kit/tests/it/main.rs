//! The process as the system sees it. Signals reach the whole test process, so only one test sends them, and no other one may wait.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use service_kit::{ProcessArgs, Stage, Tasks};

#[test]
fn sigterm_drains_and_exits_with_success() {
    let drained = AtomicBool::new(false);
    let drained: &'static AtomicBool = Box::leak(Box::new(drained));
    let code = service_kit::run("probe", ProcessArgs::default(), async |tasks: Tasks| {
        let shutdown = tasks.shutdown(Stage::Pipeline);
        tasks.spawn(Stage::Pipeline, "worker", async move {
            shutdown.requested().await;
            drained.store(true, Ordering::SeqCst);
            Ok(())
        });
        tasks.spawn_finite(Stage::Admin, "sender", async {
            let sent = Command::new("kill")
                .arg("-TERM")
                .arg(std::process::id().to_string())
                .status()?;
            anyhow::ensure!(sent.success(), "sending the signal");
            Ok(())
        });
        Ok(())
    });
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    assert!(drained.load(Ordering::SeqCst), "the worker was not asked to stop");
}

#[test]
fn exit_code_tells_a_fault() {
    let code = service_kit::run("probe", ProcessArgs::default(), async |_tasks| {
        anyhow::bail!("this probe fails on purpose")
    });
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
}

#[test]
fn an_unreadable_log_filter_stops_the_start() {
    let args = ProcessArgs {
        log_level: "info,=,".to_owned(),
        ..ProcessArgs::default()
    };
    let code = service_kit::run("probe", args, async |_tasks| unreachable!("nothing may start"));
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
}
