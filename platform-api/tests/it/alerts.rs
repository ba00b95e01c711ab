//! Alert rules: judged over real counts, told to a real webhook, read over the API.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use domain::Outcome;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::world::{World, config, event, soon};

/// A webhook that refuses its first notice and hands on what it is sent.
async fn webhook() -> (String, mpsc::Receiver<Value>) {
    type Peer = State<(mpsc::Sender<Value>, Arc<AtomicBool>)>;
    async fn take(State((sender, refused)): Peer, Json(notice): Json<Value>) -> StatusCode {
        sender.send(notice).await.unwrap();
        if refused.swap(true, Ordering::Relaxed) {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::BAD_GATEWAY
        }
    }
    let (sender, received) = mpsc::channel(16);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook/secret", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/hook/secret", post(take))
        .with_state((sender, Arc::default()));
    #[expect(clippy::disallowed_methods, reason = "the peer of a test, not a task of the service")]
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, received)
}

fn watched(folder: &Path) -> World {
    let mut config = config();
    config.alerts_file = Some(folder.join("alerts.yaml"));
    config.alerts_interval = Duration::from_millis(10);
    World::with(config)
}

/// Asks until the report is as wished.
async fn until(world: &World, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
    soon(what, async {
        loop {
            let report = world.get("/api/v1/sentinel/alerts").await;
            if wished(&report) {
                return report;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_rule_fires_and_ends_and_its_webhook_is_told_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut notices) = webhook().await;
    let rules = format!(
        "rules:\n  - {{ name: refunds fail, metric: error_rate, above: 0.5, window: 1h, filter: {{ server: payments }}, webhook: '{url}' }}\n  \
         - {{ name: other server, metric: calls, above: 0, window: 1h, filter: {{ server: hr }} }}\n"
    );
    std::fs::write(folder.path().join("alerts.yaml"), rules).unwrap();
    let world = watched(folder.path());
    let report = until(&world, "rules judged", |report| {
        report["alerts"].as_array().is_some_and(|all| all.len() == 2)
    })
    .await;
    assert_eq!(report["alerts"][0]["state"], "no_data", "{report}");

    let mut failing = event(0, 60);
    failing.payload.outcome = Some(Outcome::ToolError);
    world.store.insert(failing).await;
    let report = until(&world, "the rule fires", |report| report["alerts"][0]["state"] == "firing").await;
    assert_eq!(report["alerts"][0]["name"], "refunds fail", "{report}");
    assert_eq!(report["alerts"][0]["value"], 1.0, "{report}");
    assert!(
        !report.to_string().contains("secret"),
        "the address of a webhook is a secret: {report}"
    );

    let refused = soon("a first notice", notices.recv()).await.unwrap();
    let again = soon("the same notice again", notices.recv()).await.unwrap();
    assert_eq!(refused, again, "a notice that was not taken comes again unchanged");
    assert_eq!(
        (&again["state"], &again["name"]),
        (&"firing".into(), &"refunds fail".into()),
        "{again}"
    );

    world.store.insert(event(2, 50)).await;
    world.store.insert(event(4, 40)).await;
    let ended = soon("the end", notices.recv()).await.unwrap();
    assert_eq!(ended["state"], "ok", "{ended}");
    let report = until(&world, "both notices counted", |report| {
        let told = |alert: &Value| alert["webhook"]["delivered"] == 2;
        report["alerts"].as_array().is_some_and(|all| all.iter().any(told))
    })
    .await;
    assert!(
        report["alerts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|alert| alert["state"] != "firing"),
        "{report}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_leaves_the_rules_before_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.yaml");
    let world = watched(folder.path());
    let report = until(&world, "a report", |report| report["file"].is_string()).await;
    assert_eq!(report["alerts"], serde_json::json!([]), "no file is no rules: {report}");

    std::fs::write(
        &file,
        "rules: [{ name: quiet, metric: calls, below: 1, calls_min: 0 }, { name: wrong }]",
    )
    .unwrap();
    let report = until(&world, "the good rule", |report| report["alerts"][0]["state"] == "firing").await;
    assert!(
        report["faults"][0]
            .as_str()
            .is_some_and(|fault| fault.contains("rule 2 (wrong)")),
        "{report}"
    );

    std::fs::write(&file, "rules: [").unwrap();
    let report = until(&world, "the fault of the file", |report| {
        report["faults"][0]
            .as_str()
            .is_some_and(|fault| fault.contains("alerts.yaml"))
    })
    .await;
    assert_eq!(report["alerts"][0]["name"], "quiet", "{report}");

    std::fs::remove_file(&file).unwrap();
    let report = until(&world, "no rules", |report| report["alerts"] == serde_json::json!([])).await;
    assert_eq!(report["faults"], serde_json::json!([]), "{report}");
}
