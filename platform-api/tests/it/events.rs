//! Pages, counts, SQL and exports.

use std::collections::BTreeSet;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::world::{ADMIN, World, body, config, event, json_body, soon};

fn ids(page: &Value) -> Vec<String> {
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_never_repeat_or_skip_while_events_arrive() {
    for order in ["newest", "arrival"] {
        let world = World::new();
        // Three events of each time, so that only the place tells them apart.
        for at in 0..60 {
            world.store.insert(event(at, 1_000 - at / 3)).await;
        }
        let before: BTreeSet<_> = (0..60).map(|at| event(at, 0).id.to_string()).collect();
        let (mut seen, mut uri, mut more) = (
            Vec::new(),
            format!("/api/v1/events?limit=7&order={order}&server=payments"),
            1_000,
        );
        loop {
            let page = world.get(&uri).await;
            assert_eq!(page["meta"]["limit"], 7);
            seen.extend(ids(&page));
            // One that is newer than all, one that is older than all, one in the midst.
            for seconds in [0, 5_000, 990] {
                more += 1;
                world.store.insert(event(more, seconds)).await;
            }
            if seen.len() > 400 {
                break;
            }
            let Some(next) = page["next"].as_str() else { break };
            assert!(next.contains("server=payments") && next.contains("limit=7"), "{next}");
            next.clone_into(&mut uri);
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "{order}: an event came twice");
        assert!(before.is_subset(&distinct), "{order}: an event was skipped");
    }
}

#[tokio::test]
async fn a_relative_window_stands_still_while_pages_turn() {
    let world = World::new();
    for at in 0..6 {
        world.store.insert(event(at, 100)).await;
    }
    let first = world.get("/api/v1/events?since=101s&limit=2").await;
    assert!(first["next"].as_str().unwrap().contains("since=101s"));
    let second = world.get(first["next"].as_str().unwrap()).await;
    let third = world.get(second["next"].as_str().unwrap()).await;
    assert_eq!(third["meta"], json!({"limit": 2, "has_more": false}));
    assert_eq!([ids(&first), ids(&second), ids(&third)].concat().len(), 6);
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let world = World::new();
    world.store.fill(5).await;
    let page = world.get("/api/v1/events?limit=2&outcome=ok").await;
    let cursor = page["meta"]["next_cursor"].as_str().unwrap();
    let other = world
        .call(
            "GET",
            &format!("/api/v1/events?limit=2&outcome=denied&cursor={cursor}"),
            Some(ADMIN),
            "",
        )
        .await;
    assert_eq!(other.status(), 400);
    let problem = json_body(other).await;
    assert!(problem["message"].as_str().unwrap().contains("another query"), "{problem}");
    // The size of a page is no part of the question.
    assert_eq!(
        ids(&world.get(&format!("/api/v1/events?limit=5&outcome=ok&cursor={cursor}")).await).len(),
        1
    );
}

#[tokio::test]
async fn an_empty_store_answers_with_empty_lists() {
    let world = World::new();
    assert_eq!(world.get("/api/v1/events").await["events"], json!([]));
    assert_eq!(world.get("/api/v1/sources").await["sources"], json!([]));
    assert_eq!(world.get("/api/v1/event-types").await["event_types"], json!([]));
    let usage = world.get("/api/v1/analytics/usage").await;
    for list in ["servers", "actors", "tools", "decisions", "recent"] {
        assert_eq!(usage[list], json!([]), "{list}");
    }
    assert_eq!(world.get("/api/v1/analytics/tools").await["tools"], json!([]));
    assert_eq!(world.get("/api/v1/stats").await["events_total"], 0);
    assert!(world.get("/api/v1/dashboard/summary").await["last_event_time"].is_null());
}

#[tokio::test]
async fn counts_have_the_keys_and_filters_that_clients_know() {
    let world = World::new();
    world.store.fill(10).await;
    assert_eq!(
        world.get("/api/v1/sources").await["sources"],
        json!([{"source": "payments-gateway", "count": 10}])
    );
    assert_eq!(
        world.get("/api/v1/event-types?outcome=ok").await["event_types"],
        json!([{"event_type": "mcp.request", "count": 5}])
    );
    let usage = world
        .get("/api/v1/analytics/usage?decision=deny&namespace=globex&tool=list_invoices&since=2h&status=403")
        .await;
    assert_eq!(
        (&usage["totals"]["events"], &usage["totals"]["denied"], &usage["window_days"]),
        (&json!(5), &json!(5), &json!(1))
    );
    let filters = json!({"namespaces": ["globex"], "team_ids": [], "server": "", "decision": "deny", "tool_name": "list_invoices", "status": "403"});
    assert_eq!(usage["filters"], filters);
    let event = &world.get("/api/v1/events?limit=1").await["events"][0];
    for key in [
        "server",
        "namespace",
        "team_id",
        "human_id",
        "agent_id",
        "decision",
        "tool_name",
    ] {
        assert_eq!(event[key], event["payload"][key], "{key}");
    }
    let summary = world.get("/api/v1/dashboard/summary").await;
    assert_eq!(
        (&summary["total_events"], &summary["active_servers"], &summary["deny_rate"]),
        (&json!(10), &json!(2), &json!(0.5))
    );
    let series = world
        .get("/api/v1/analytics/series?metric=denied&by=namespace&since=2h&step=1h")
        .await;
    assert_eq!(series["step_seconds"], 3_600);
    let sum: f64 = series["series"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|one| one["values"].as_array().unwrap())
        .filter_map(Value::as_f64)
        .sum();
    assert!((sum - 5.0).abs() < f64::EPSILON, "{series}");
}

#[tokio::test]
async fn too_many_steps_and_two_beginnings_are_refused() {
    let world = World::new();
    for uri in [
        "/api/v1/analytics/series?since=30d&step=1s",
        "/api/v1/analytics/usage?since=30d&step=1m",
        "/api/v1/analytics/usage?since=1d&window_days=2",
        "/api/v1/runtime/server-events?namespace=acme",
        "/api/v1/runtime/server-events?server=payments",
        "/api/v1/events/stream?after=here",
    ] {
        let response = world.call("GET", uri, Some(ADMIN), "").await;
        assert_eq!(response.status(), 400, "{uri}");
        assert_eq!(json_body(response).await["error"], "invalid_query_param", "{uri}");
    }
}

#[tokio::test]
async fn sql_answers_as_json_or_csv_within_bounds() {
    let world = World::new();
    let ask = |body: &'static str| world.call("POST", "/api/v1/query", Some(ADMIN), body);
    let answer = json_body(ask(r#"{"sql":"select 1","limit":99999999}"#).await).await;
    assert_eq!(
        answer["columns"],
        json!([{"name": "server", "type": "text"}, {"name": "calls", "type": "integer"}])
    );
    assert_eq!(
        (&answer["row_count"], &answer["truncated"], &answer["rows"][1]),
        (&json!(2), &json!(true), &json!([null, 1]))
    );
    assert_eq!(world.store.asked.lock().unwrap().as_ref().unwrap().rows_max, 10_000);
    let csv = ask(r#"{"sql":"select 1","format":"csv","limit":5}"#).await;
    assert_eq!(csv.headers()["x-truncated"], "true");
    assert_eq!(body(csv).await, "server,calls\n\"a,\"\"b\"\"\",7\n,1\n");
    assert_eq!(world.store.asked.lock().unwrap().as_ref().unwrap().rows_max, 5);
    for (bad, status) in [
        (r#"{"sql":" "}"#, 422),
        (r#"{"sql":"select 1","limit":0}"#, 422),
        (r#"{"sql":"select 1","rows":1}"#, 422),
        ("{}", 422),
        ("{", 400),
    ] {
        assert_eq!(ask(bad).await.status(), status, "{bad}");
    }
}

#[tokio::test]
async fn exports_are_streamed_piece_by_piece() {
    const PIECES: u64 = 20_000;
    let world = World::new();
    let made = watch::Sender::new(0);
    *world.store.pieces.lock().unwrap() = Some((PIECES, made.clone()));
    let response = world
        .call("GET", "/api/v1/analytics/export?format=csv", Some(ADMIN), "")
        .await;
    assert!(
        response.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .contains("events.csv")
    );
    let (mut body, mut read) = (response.into_body(), 0);
    while let Some(frame) = soon("a piece", body.frame()).await {
        read += u64::from(frame.unwrap().is_data());
        assert!(
            *made.borrow() <= read + 2,
            "{} pieces were made and {read} read",
            *made.borrow()
        );
    }
    assert_eq!(read, PIECES);
}

#[tokio::test]
async fn keys_and_dead_letters_are_handled() {
    let world = World::new();
    let post = |uri: &'static str, body: &'static str| world.call("POST", uri, Some(ADMIN), body);
    let made = post(
        "/api/v1/sentinel/keys",
        r#"{"namespace":"acme","server":"payments","expires_in":"90d"}"#,
    )
    .await;
    assert_eq!(made.headers()["cache-control"], "no-store");
    assert_eq!(json_body(made).await["key"], "mcpi_k2_secret");
    for bad in [
        r#"{"namespace":"Not A Name"}"#,
        r#"{"namespace":"*","server":"a"}"#,
        r#"{"namespace":"acme","expires_at":"2020-01-01T00:00:00Z"}"#,
        r#"{"namespace":"acme","expires_at":"2099-01-01T00:00:00Z","expires_in":"1d"}"#,
        r#"{"namespace":"acme","events_per_second_max":0}"#,
        r#"{"namespace":"acme","expires":"1d"}"#,
        "{}",
    ] {
        assert_eq!(post("/api/v1/sentinel/keys", bad).await.status(), 422, "{bad}");
    }
    assert_eq!(
        post("/api/v1/sentinel/keys/k1/rotate", r#"{"overlap":"1h"}"#).await.status(),
        201
    );
    assert_eq!(
        post("/api/v1/sentinel/keys/k1/rotate", r#"{"overlap":"soon"}"#)
            .await
            .status(),
        422
    );
    assert_eq!(
        world
            .call("DELETE", "/api/v1/sentinel/keys/k9", Some(ADMIN), "")
            .await
            .status(),
        404
    );
    let first = world.get("/api/v1/sentinel/dlq?limit=3").await;
    let rest = world.get(first["next"].as_str().unwrap()).await;
    let ids: Vec<_> = [&first, &rest]
        .iter()
        .flat_map(|page| page["dead_letters"].as_array().unwrap())
        .map(|letter| letter["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(
        world.call("GET", "/api/v1/sentinel/dlq/9", Some(ADMIN), "").await.status(),
        404
    );
    assert_eq!(
        world.call("GET", "/api/v1/sentinel/dlq/x", Some(ADMIN), "").await.status(),
        400
    );
}

#[tokio::test]
async fn bodies_read_back_as_the_types_of_domain() {
    use domain::analytics::{EventsPage, SeriesReport, ToolsReport, UsageReport};
    use domain::operations::{DeadLetter, KeyView, LogLine, NewKey, SystemStatus};

    let world = World::new();
    world.store.fill(4).await;
    let page: EventsPage = serde_json::from_value(world.get("/api/v1/events?order=arrival").await).unwrap();
    let read: Vec<_> = page
        .events
        .iter()
        .map(|stored| (stored.partition, stored.offset, stored.event.payload.latency_us))
        .collect();
    assert_eq!(read, (0..4).map(|at| (0, at, Some(1_000 + at))).collect::<Vec<_>>());
    let usage: UsageReport = serde_json::from_value(world.get("/api/v1/analytics/usage").await).unwrap();
    assert_eq!((usage.totals.calls.events, usage.recent.len()), (4, 4));
    let series: SeriesReport = serde_json::from_value(world.get("/api/v1/analytics/series").await).unwrap();
    assert!(!series.buckets.is_empty());
    let tools: ToolsReport = serde_json::from_value(world.get("/api/v1/analytics/tools").await).unwrap();
    assert_eq!(tools.tools.len(), 2);
    let status: SystemStatus = serde_json::from_value(world.get("/api/v1/sentinel/status").await).unwrap();
    assert_eq!(status.components.len(), 2);
    let _lines: Vec<LogLine> = serde_json::from_value(world.get("/api/v1/sentinel/logs/gateway").await).unwrap();
    let _keys: Vec<KeyView> = serde_json::from_value(world.get("/api/v1/sentinel/keys").await["keys"].clone()).unwrap();
    let _letter: DeadLetter = serde_json::from_value(world.get("/api/v1/sentinel/dlq/1").await).unwrap();
    let made = world
        .call("POST", "/api/v1/sentinel/keys", Some(ADMIN), r#"{"namespace":"acme"}"#)
        .await;
    let made: NewKey = serde_json::from_value(json_body(made).await).unwrap();
    assert_eq!(made.view.namespace, "acme");
}

#[tokio::test]
async fn sql_is_given_up_by_the_store_before_the_service_does() {
    let world = World::new();
    let _answer = world
        .call("POST", "/api/v1/query", Some(ADMIN), r#"{"sql":"select 1"}"#)
        .await;
    let asked = world.store.asked.lock().unwrap().clone().unwrap();
    assert!(asked.time_max < config().query_time_max, "{:?}", asked.time_max);
}
