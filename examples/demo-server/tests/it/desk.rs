//! The payments desk and its callers, over real connections.

use std::collections::HashSet;
use std::time::Duration;

use demo_server::client::{Amount, CallRecord, Caller, Era, Outcome, Traffic, drive, drive_and_collect};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

struct Server {
    url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns both ends")]
fn run(task: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> JoinHandle<anyhow::Result<()>> {
    tokio::spawn(task)
}

async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = run(demo_server::serve(listener, async move {
        stopped.await.ok();
    }));
    Server { url, stop, task }
}

fn traffic(amount: Amount) -> Traffic {
    Traffic {
        seed: 11,
        amount,
        rate: 400.0,
        callers: Caller::cast(8),
    }
}

fn seen(records: &[CallRecord], method: &str) -> HashSet<Outcome> {
    records
        .iter()
        .filter(|each| each.method == method)
        .map(|each| each.outcome)
        .collect()
}

#[tokio::test]
async fn callers_meet_every_outcome_in_both_eras() {
    let server = start().await;
    let records = drive_and_collect(&server.url, traffic(Amount::Calls(300)))
        .await
        .expect("a full run");

    let calls = records
        .iter()
        .filter(|each| !matches!(each.method, "initialize" | "server/discover" | "tools/list"));
    // A call that needs its human's answer is two requests.
    let answered = records.iter().filter(|each| each.outcome == Outcome::InputRequired).count();
    assert_eq!(calls.count(), 300 + answered);
    assert_eq!(seen(&records, "initialize"), HashSet::from([Outcome::Ok]));
    assert_eq!(seen(&records, "server/discover"), HashSet::from([Outcome::Ok]));
    assert!(seen(&records, "resources/read").contains(&Outcome::Ok));
    let wanted = [
        Outcome::Ok,
        Outcome::ToolError,
        Outcome::RpcError,
        Outcome::Cancelled,
        Outcome::InputRequired,
    ];
    assert_eq!(seen(&records, "tools/call"), HashSet::from(wanted));
    for era in [Era::Legacy, Era::Modern] {
        let exports = || {
            records
                .iter()
                .filter(move |each| each.era == era && each.name.as_deref() == Some("export_report"))
        };
        assert!(exports().any(|each| each.outcome == Outcome::Cancelled), "{era:?}");
        let complete: Vec<_> = exports().filter(|each| each.outcome == Outcome::Ok).collect();
        assert!(
            !complete.is_empty() && complete.iter().all(|each| each.progress_count == 5),
            "{era:?} {complete:#?}"
        );
        let approvals = records
            .iter()
            .filter(|each| each.era == era && each.name.as_deref() == Some("ask_approval"));
        assert!(
            approvals.map(|each| each.outcome).any(|outcome| outcome == Outcome::Ok),
            "{era:?}"
        );
    }
    server.stop.send(()).expect("still serving");
    server.task.await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_does_not_wait_for_its_callers() {
    let server = start().await;
    let (sender, mut records) = mpsc::channel(16);
    let url = server.url;
    let callers = run(async move { drive(&url, traffic(Amount::For(Duration::from_mins(10))), sender).await });
    for _ in 0..50 {
        records.recv().await.expect("callers at work");
    }
    server.stop.send(()).expect("still serving");
    let end = tokio::time::timeout(Duration::from_secs(5), server.task).await;
    end.expect("stopped in time").expect("no panic").expect("an orderly end");
    // The callers wait for answers that never come, until nobody takes their records.
    drop(records);
    let end = tokio::time::timeout(Duration::from_secs(5), callers).await;
    end.expect("stopped in time").expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn callers_without_a_server_say_where_they_looked() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port")
        .local_addr()
        .expect("an address");
    let error = drive_and_collect(&format!("http://{gone}/mcp"), traffic(Amount::Calls(1)))
        .await
        .expect_err("nobody there");
    assert!(format!("{error:#}").contains(&gone.to_string()), "{error:#}");
}
