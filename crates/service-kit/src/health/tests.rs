use ::http::{Request, StatusCode, header};
use axum::body::{Body, to_bytes};
use tower::ServiceExt as _;

use super::admin_router;
use crate::tasks::{Running, RunningOptions, Tasks};

async fn ask(tasks: &Tasks, path: &str) -> (StatusCode, String, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = admin_router(tasks).oneshot(request).await.unwrap();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, kind, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn ready_names_each_condition_and_why_it_does_not_hold() {
    let running = Running::new(&RunningOptions::default());
    let tasks = running.tasks();
    let queue = tasks.readiness("queue");
    let policy = tasks.readiness("policy");
    policy.set_ready();
    queue.set_not_ready("the broker does not answer");
    let (status, kind, body) = ask(&tasks, "/ready").await;
    assert_eq!((status, kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
    insta::assert_snapshot!(body);
    running.set_started();
    queue.set_ready();
    for path in ["/ready", "/health"] {
        let (status, _, body) = ask(&tasks, path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    drop(running);
    assert_eq!(ask(&tasks, "/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn live_answers_while_not_ready() {
    let running = Running::new(&RunningOptions::default());
    assert_eq!(ask(&running.tasks(), "/live").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let running = Tasks::for_test();
    let (status, kind, body) = ask(&running.tasks(), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(body.contains("service_kit_log_records_evicted_total 0"), "{body}");
    assert!(body.ends_with("# EOF\n"));
}
