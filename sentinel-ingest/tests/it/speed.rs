//! How fast ingest is. Not a test of anything: run by hand, with the crates on the way optimised, for example
//! `cargo test -p sentinel-ingest --config 'profile.dev.package."*".opt-level=3' --config profile.dev.opt-level=3 speed -- --ignored --nocapture --test-threads 1`.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::json;
use service_kit::http::HttpLimits;
use service_kit::{Clock, Stage, Tasks};

use crate::harness::Harness;

const CLIENTS: usize = 16;
const SPAN: Duration = Duration::from_secs(4);

/// A call as the gateway reports it: about 700 bytes.
fn call(number: usize) -> String {
    json!({
        "v": 1, "id": uuid::Uuid::now_v7(), "timestamp": "2026-11-22T15:04:05.123456789Z",
        "source": "payments-gateway", "event_type": "mcp.request", "producer": "gw-7f9c", "producer_seq": number,
        "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
        "payload": {
            "server": "payments", "namespace": "acme", "team_id": "team-payments", "cluster": "local", "human_id": "ada@example.com",
            "agent_id": "claude-code", "session_id": "s-8842", "identity": "verified", "method": "POST", "path": "/payments/mcp",
            "status": 200, "rpc_method": "tools/call", "tool_name": "list_invoices", "outcome": "ok", "decision": "allow",
            "reason": "allowed", "latency_us": 1200 + number % 977, "upstream_us": 1100, "ttfb_us": 1150, "bytes_in": 412, "bytes_out": 2048,
            "protocol_version": "2025-11-25", "response_kind": "json", "request_id": number.to_string(),
        },
    })
    .to_string()
}

/// Posts one body again and again from all clients; gives requests per second.
async fn rate(url: &str, key: &str, content_type: &str, body: Bytes) -> f64 {
    let clock = Clock::system();
    let started = clock.monotonic();
    let clients = (0..CLIENTS).map(|_| {
        let (clock, body) = (clock.clone(), body.clone());
        async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let mut requests = 0_u32;
            while clock.monotonic() < started + SPAN {
                let request = client.post(url).header("x-api-key", key).header("content-type", content_type);
                let response = request.body(body.clone()).send().await.unwrap();
                assert_eq!(response.status(), 202);
                response.bytes().await.unwrap();
                requests += 1;
            }
            requests
        }
    });
    let requests: u32 = futures::future::join_all(clients).await.into_iter().sum();
    f64::from(requests) / clock.monotonic().saturating_sub(started).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for seconds; run by hand"]
async fn batches() {
    for size in [100_u32, 1_000] {
        let harness = Harness::forgetful().await;
        let lines: Vec<_> = (0..size as usize).map(call).collect();
        let body = Bytes::from(lines.join("\n"));
        let bytes = body.len();
        let rate = rate(&harness.url("/events"), &harness.key, "application/x-ndjson", body).await;
        eprintln!("batches of {size} ({bytes} bytes): {:.0} events/s", rate * f64::from(size));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for seconds; run by hand"]
async fn single_posts_against_a_server_that_stores_nothing() {
    let harness = Harness::forgetful().await;
    let running = Tasks::for_test();
    let bare = Router::new().route("/events", post(async |_: Bytes| (StatusCode::ACCEPTED, r#"{"ok":true}"#)));
    let listener = service_kit::http::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address =
        service_kit::http::serve("bare", listener, bare, HttpLimits::default(), &running.tasks(), Stage::Intake).unwrap();
    let body = Bytes::from(call(7));
    for _ in 0..3 {
        let bare = rate(
            &format!("http://{address}/events"),
            &harness.key,
            "application/json",
            body.clone(),
        )
        .await;
        let ours = rate(&harness.url("/events"), &harness.key, "application/json", body.clone()).await;
        eprintln!("single posts: {ours:.0}/s, bare {bare:.0}/s, ratio {:.2}", ours / bare);
    }
}
