//! The routes around the events, and what is counted.

use sentinel_queue::AppendError;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Harness, event, until};

#[tokio::test]
async fn other_methods_get_405_with_allow() {
    let harness = Harness::start().await;
    for path in ["/events", "/ingest/events"] {
        let answer = harness.send(harness.client.get(harness.url(path))).await;
        answer.assert_refused(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "POST");
    }
    let answer = harness.send(harness.client.post(harness.url("/nowhere"))).await;
    answer.assert_refused(404, "not_found");
}

#[tokio::test]
async fn health_is_on_the_port_of_the_events() {
    let harness = Harness::start().await;
    for path in ["/live", "/health"] {
        let answer = harness.send(harness.client.get(harness.url(path))).await;
        assert_eq!((answer.status, answer.body), (200, json!({"ok": true})));
    }
    let answer = harness.send(harness.client.get(harness.url("/ready"))).await;
    assert_eq!((answer.status, &answer.body["ok"]), (200, &json!(true)), "{answer:?}");
}

#[tokio::test]
async fn readiness_names_a_queue_that_fails() {
    let harness = Harness::start().await;
    harness.queue.fail_with(Some(|| AppendError::Closed));
    harness.post_json(&event("a")).await.assert_refused(503, "queue_unavailable");
    let ready = async |wanted: u16| {
        let answer = harness.send(harness.client.get(harness.url("/ready"))).await;
        let text = answer.body.to_string();
        (answer.status == wanted && (wanted == 200 || text.contains("the queue is closed")))
            .then_some(())
            .ok_or(text)
    };
    until("not ready", async || ready(503).await).await;
    harness.hand.advance(std::time::Duration::from_secs(6));
    until("ready again, to be tried", async || ready(200).await).await;
}

#[tokio::test]
async fn everything_is_counted() {
    let harness = Harness::start().await;
    let answer = harness.post_json(&json!([event("a"), event("b"), 7])).await;
    answer.assert_accepted(2);
    harness
        .post("text/plain", "x")
        .await
        .assert_refused(415, "unsupported_media_type");
    let text = harness.running.tasks().metrics().encode().unwrap();
    for line in [
        r#"sentinel_ingest_events_accepted_total{namespace="acme"} 2"#,
        r#"sentinel_ingest_events_rejected_total{namespace="acme",code="invalid_field"} 1"#,
        r#"sentinel_ingest_requests_refused_total{code="unsupported_media_type"} 1"#,
        "sentinel_ingest_durability_seconds_count 1",
        "sentinel_ingest_append_seconds_count 1",
        "sentinel_ingest_requests_in_flight 0",
        "sentinel_ingest_in_flight_bytes 0",
        "sentinel_ingest_keys_usable 1",
    ] {
        assert!(text.contains(line), "missing {line} in\n{text}");
    }
    assert!(
        text.contains("sentinel_ingest_body_bytes_total{namespace=\"acme\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn shutdown_finishes_requests_and_ends_clean() {
    let harness = Harness::start().await;
    harness.post_json(&event("a")).await.assert_accepted(1);
    let report = harness.running.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(harness.queue.events().len(), 1);
}

#[tokio::test]
async fn a_sender_that_leaves_half_way_leaves_nothing() {
    let harness = Harness::start().await;
    let mut connection = TcpStream::connect(harness.address).await.unwrap();
    let half = event("a");
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 1000\r\n\r\n{half}\n",
        harness.key
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let gauge = async |wanted: &str| {
        let text = harness.running.tasks().metrics().encode().unwrap();
        text.contains(wanted).then_some(()).ok_or(text)
    };
    until("the request is in flight", async || {
        gauge("sentinel_ingest_requests_in_flight 1").await
    })
    .await;
    drop(connection);
    until("the request is gone", async || {
        gauge("sentinel_ingest_requests_in_flight 0").await
    })
    .await;
    gauge("sentinel_ingest_in_flight_bytes 0").await.unwrap();
    assert!(harness.queue.events().is_empty());
}

#[tokio::test]
async fn who_asks_before_sending_is_refused_without_being_told_to_go_on() {
    let harness = Harness::start().await;
    let mut connection = TcpStream::connect(harness.address).await.unwrap();
    let head = "POST /events HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}
