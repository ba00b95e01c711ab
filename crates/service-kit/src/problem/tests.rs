use std::fmt::Write as _;
use std::time::Duration;

use ::http::{Method, Request, StatusCode};
use axum::body::{Body, to_bytes};
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

use super::{JsonBody, Problem, QueryParams, with_fallbacks};
use crate::trace::{self, TraceContext};

/// Status, headers and body, as a client sees them.
async fn text(response: axum::response::Response) -> String {
    let mut text = format!("{}\n", response.status());
    for (name, value) in response.headers() {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    text + std::str::from_utf8(&body).unwrap() + "\n"
}

#[tokio::test]
async fn bodies_are_as_agreed() {
    let context = TraceContext::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    let second = Duration::from_millis(1_200);
    let mut all = String::new();
    for problem in [
        Problem::bad_request("the time range is empty")
            .with_code("empty_range")
            .with_hint("let `since` be before `until`"),
        Problem::unauthorized("the token is not known"),
        Problem::forbidden("this role may not publish"),
        Problem::not_found("there is no server `a`"),
        Problem::method_not_allowed(&[Method::GET, Method::HEAD]),
        Problem::request_timeout("the body took too long"),
        Problem::conflict("the server changed meanwhile"),
        Problem::gone("the session has ended"),
        Problem::payload_too_large("the body is larger than 2 MiB"),
        Problem::unsupported_media_type("expected JSON"),
        Problem::unprocessable("`limit` must be at least 1"),
        Problem::too_many_requests("too many calls", second),
        Problem::bad_gateway("the server closed the connection"),
        Problem::unavailable("the queue does not answer", Duration::from_secs(5)),
        Problem::gateway_timeout("the server did not answer in time"),
        Problem::internal(anyhow::anyhow!("password is hunter2").context("opening the store")),
    ] {
        let response = trace::scope(context, async { problem.into_response() }).await;
        all += &(text(response).await + "\n");
    }
    assert!(
        !all.contains("hunter2") && !all.contains("store"),
        "the cause of an internal fault leaks"
    );
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn no_trace_means_no_trace_id() {
    let body = text(Problem::not_found("nothing").into_response()).await;
    assert!(!body.contains("trace_id"), "{body}");
}

#[derive(Deserialize, Serialize)]
struct Range {
    limit: u8,
}

fn app() -> Router {
    let route = post(async |QueryParams(_): QueryParams<Range>, JsonBody(range): JsonBody<Range>| Json(range));
    with_fallbacks(Router::new().route("/range", route))
}

async fn send(request: Request<Body>) -> String {
    text(app().oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn refusals_of_routes_and_extractors_are_problems() {
    let post = |uri: &str, kind: &str, body: &str| {
        let request = Request::post(uri).header("content-type", kind);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let json = "application/json";
    let mut all = String::new();
    for request in [
        Request::get("/nowhere").body(Body::empty()).unwrap(),
        Request::get("/range").body(Body::empty()).unwrap(),
        post("/range", json, r#"{"limit":1}"#),
        post("/range?limit=1", "text/plain", r#"{"limit":1}"#),
        post("/range?limit=1", json, r#"{"limit":"#),
        post("/range?limit=1", json, r#"{"limit":300}"#),
        post("/range?limit=1", json, &format!(r#"{{"limit":{}}}"#, " ".repeat(3 << 20))),
    ] {
        all += &(send(request).await + "\n");
    }
    insta::assert_snapshot!(all);
    assert!(
        send(post("/range?limit=1", json, r#"{"limit":7}"#))
            .await
            .starts_with(StatusCode::OK.as_str())
    );
}
