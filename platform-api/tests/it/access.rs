//! Who may call what: every route with every kind of caller.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use platform_api::{Config, OpenLoopback, ROUTES};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{ACME, ADMIN, GLOBEX, World, body, config, json_body};

/// A route, a request for it about the namespace `acme`, and the status for nobody, an administrator, a caller of `acme` and one
/// of `globex`.
const ROWS: &[(&str, &str, &str, [u16; 4])] = &[
    (
        "GET /api/v1/events",
        "/api/v1/events?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/events/stream",
        "/api/v1/events/stream?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    ("GET /api/v1/stats", "/api/v1/stats?namespace=acme", "", [401, 200, 200, 403]),
    (
        "GET /api/v1/sources",
        "/api/v1/sources?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/event-types",
        "/api/v1/event-types?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/analytics/usage",
        "/api/v1/analytics/usage?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/user/analytics/usage",
        "/api/v1/user/analytics/usage?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/analytics/series",
        "/api/v1/analytics/series?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/analytics/tools",
        "/api/v1/analytics/tools?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/analytics/export",
        "/api/v1/analytics/export?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    // The store confines SQL; there is no namespace to refuse.
    (
        "POST /api/v1/query",
        "/api/v1/query",
        r#"{"sql":"select 1"}"#,
        [401, 200, 200, 200],
    ),
    (
        "GET /api/v1/dashboard/summary",
        "/api/v1/dashboard/summary?namespace=acme",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/runtime/server-events",
        "/api/v1/runtime/server-events?namespace=acme&server=payments",
        "",
        [401, 200, 200, 403],
    ),
    (
        "GET /api/v1/runtime/components",
        "/api/v1/runtime/components",
        "",
        [401, 200, 403, 403],
    ),
    (
        "POST /api/v1/runtime/actions/restart",
        "/api/v1/runtime/actions/restart",
        r#"{"component":"ingest"}"#,
        [401, 200, 403, 403],
    ),
    (
        "GET /api/v1/sentinel/status",
        "/api/v1/sentinel/status",
        "",
        [401, 200, 403, 403],
    ),
    (
        "GET /api/v1/sentinel/alerts",
        "/api/v1/sentinel/alerts",
        "",
        [401, 200, 403, 403],
    ),
    (
        "GET /api/v1/sentinel/logs/{component}",
        "/api/v1/sentinel/logs/gateway",
        "",
        [401, 200, 403, 403],
    ),
    ("GET /api/v1/sentinel/keys", "/api/v1/sentinel/keys", "", [401, 200, 403, 403]),
    (
        "POST /api/v1/sentinel/keys",
        "/api/v1/sentinel/keys",
        r#"{"namespace":"acme"}"#,
        [401, 201, 403, 403],
    ),
    (
        "DELETE /api/v1/sentinel/keys/{id}",
        "/api/v1/sentinel/keys/k1",
        "",
        [401, 200, 403, 403],
    ),
    (
        "POST /api/v1/sentinel/keys/{id}/rotate",
        "/api/v1/sentinel/keys/k1/rotate",
        "",
        [401, 201, 403, 403],
    ),
    ("GET /api/v1/sentinel/dlq", "/api/v1/sentinel/dlq", "", [401, 200, 403, 403]),
    (
        "GET /api/v1/sentinel/dlq/{id}",
        "/api/v1/sentinel/dlq/1",
        "",
        [401, 200, 403, 403],
    ),
    (
        "DELETE /api/v1/sentinel/dlq/{id}",
        "/api/v1/sentinel/dlq/1",
        "",
        [401, 200, 403, 403],
    ),
    (
        "POST /api/v1/sentinel/dlq/{id}/replay",
        "/api/v1/sentinel/dlq/1/replay",
        "",
        [401, 200, 403, 403],
    ),
    ("GET /api/v1/openapi.json", "/api/v1/openapi.json", "", [200, 200, 200, 200]),
];

#[test]
fn every_route_has_a_row() {
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| format!("{} {}", route.method.as_str(), route.path))
        .collect();
    let control = crate::matrix::ROWS.iter().map(|(route, ..)| *route);
    let rows: Vec<_> = ROWS
        .iter()
        .map(|(route, ..)| *route)
        .chain(control)
        .map(str::to_owned)
        .collect();
    assert_eq!(rows.len(), ROUTES.len(), "a row is there twice, or none");
    assert_eq!(BTreeSet::from_iter(rows), routes);
}

#[tokio::test]
async fn every_route_admits_whom_it_should() {
    let world = World::new();
    world.store.fill(4).await;
    for (route, uri, body_text, expected) in ROWS {
        let (method, _) = route.split_once(' ').unwrap();
        let mut seen = [0; 4];
        for (seen, key) in seen.iter_mut().zip([None, Some(ADMIN), Some(ACME), Some(GLOBEX)]) {
            let response = world.call(method, uri, key, body_text).await;
            *seen = response.status().as_u16();
            if *seen >= 400 {
                let problem = json_body(response).await;
                assert!(
                    problem["error"].is_string() && problem["message"].is_string(),
                    "{route}: {problem}"
                );
            }
        }
        assert_eq!(
            seen, *expected,
            "{route}: [nobody, administrator, caller of acme, caller of globex]"
        );
        assert_eq!(
            world.call(method, uri, Some("unknown"), body_text).await.status().as_u16() == 200,
            expected[0] == 200,
            "{route}"
        );
    }
}

#[tokio::test]
async fn answers_are_confined_to_what_the_caller_may_see() {
    let world = World::new();
    world.store.fill(10).await;
    for (key, count) in [(ADMIN, 10), (ACME, 5), (GLOBEX, 5)] {
        let stats = json_body(world.call("GET", "/api/v1/stats", Some(key), "").await).await;
        assert_eq!(stats["events_total"], count, "{key}");
        let events = json_body(world.call("GET", "/api/v1/events", Some(key), "").await).await;
        assert_eq!(events["events"].as_array().unwrap().len(), count, "{key}");
        let usage = json_body(world.call("GET", "/api/v1/user/analytics/usage", Some(key), "").await).await;
        assert_eq!(
            (&usage["totals"]["events"], usage["recent"].as_array().unwrap().len()),
            (&count.into(), count),
            "{key}"
        );
        let export = body(world.call("GET", "/api/v1/analytics/export", Some(key), "").await).await;
        assert_eq!(
            export.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(),
            count,
            "{key}"
        );
    }
    let _answer = world.call("POST", "/api/v1/query", Some(ACME), r#"{"sql":"select 1"}"#).await;
    let asked = world.store.asked.lock().unwrap().clone().unwrap();
    assert_eq!(
        asked.scope,
        sentinel_store::query::Scope::Only {
            namespaces: vec!["acme".to_owned()],
            teams: vec![]
        }
    );
}

#[tokio::test]
async fn wrong_methods_are_refused_with_those_allowed() {
    let world = World::new();
    for (method, uri, allow) in [
        ("POST", "/api/v1/events", "GET,HEAD"),
        ("PUT", "/api/v1/sentinel/keys", "GET,HEAD,POST"),
        ("GET", "/api/v1/query", "POST"),
        ("GET", "/api/v1/sentinel/keys/k1", "DELETE"),
    ] {
        let response = world.call(method, uri, Some(ADMIN), "").await;
        assert_eq!(response.status(), 405, "{method} {uri}");
        let mut allowed: Vec<_> = response.headers()["allow"]
            .to_str()
            .unwrap()
            .split(',')
            .map(str::trim)
            .collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {uri}");
        assert_eq!(json_body(response).await["error"], "method_not_allowed");
    }
    let head = world.call("HEAD", "/api/v1/events", Some(ADMIN), "").await;
    assert_eq!((head.status().as_u16(), body(head).await.len()), (200, 0));
    let unknown = world.call("GET", "/api/v1/event", Some(ADMIN), "").await;
    assert_eq!(json_body(unknown).await["error"], "not_found");
}

#[tokio::test]
async fn an_open_loopback_lets_this_machine_in_and_no_page() {
    let world = World::with(Config {
        open_loopback: OpenLoopback::Yes,
        ..config()
    });
    let ask = |host: &str, origin: Option<&str>| {
        let mut request = Request::get("/api/v1/sentinel/status").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        world.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(ask("127.0.0.1:8085", None).await.status(), 200);
    assert_eq!(ask("127.0.0.1:8085", Some("http://127.0.0.1:8085")).await.status(), 200);
    let rebound = ask("evil.example:8085", None).await;
    assert_eq!(rebound.status(), 403);
    assert_eq!(json_body(rebound).await["error"], "forbidden_host");
    let page = ask("127.0.0.1:8085", Some("http://evil.example")).await;
    assert_eq!(json_body(page).await["error"], "forbidden_origin");
}

#[tokio::test]
async fn an_open_loopback_does_not_start_where_others_reach_it() {
    let world = World::new();
    let tasks = world.running.tasks();
    let config = Config {
        open_loopback: OpenLoopback::Yes,
        ..config()
    };
    let listener = service_kit::http::bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let api = |config: &Config| {
        let reader: std::sync::Arc<dyn sentinel_store::Reader> =
            std::sync::Arc::new(sentinel_store::memory::MemoryStore::new());
        platform_api::Api::new(config.clone(), reader, crate::world::system(), &tasks)
    };
    let error = platform_api::serve(&config, listener, api(&config), &tasks).unwrap_err();
    assert!(error.to_string().contains("0.0.0.0"), "{error}");
    let listener = service_kit::http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = platform_api::serve(&config, listener, api(&config), &tasks).unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v1/stats HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    crate::world::soon("an answer over a socket", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-content-type-options: nosniff"),
        "{answer}"
    );
    assert!(world.running.stop().await.is_clean());
}
