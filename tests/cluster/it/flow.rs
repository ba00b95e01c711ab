//! Events from a sender to an answer of the API, and what operators see on the way.

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use reqwest::Method;
use serde_json::json;

use crate::harness::backends::Backends;
use crate::harness::installation::Installation;
use crate::harness::ledger::{Ledger, batch};
use crate::harness::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_from_a_sender_to_the_answers_of_the_api() {
    let Some(backends) = Backends::shared().await else { return };
    let installation = Installation::start(&backends, 1).await;
    installation.ingest.ready().await;
    installation.processors[0].ready().await;
    let (mut random, mut ledger) = (SmallRng::seed_from_u64(1), Ledger::new());
    for _ in 0..10 {
        let batch = batch(&mut random, "acme", &mut ledger);
        until("a batch is taken", async || installation.send(&batch).await).await;
    }
    installation.exact(&ledger, "ten batches").await;
    let sent: u64 = ledger.values().sum();

    let api = installation.api().await;
    let usage = api.get("/api/v1/analytics/usage?since=3d&limit=10").await;
    assert_eq!(usage["totals"]["events"], json!(sent), "{usage}");
    let page = api.get("/api/v1/events?limit=1000").await;
    assert_eq!(page["events"].as_array().map_or(0, Vec::len) as u64, sent.min(1_000));
    let sql = json!({ "sql": "select server, sum(events) from servers_daily group by server order by server" });
    let (status, answer) = api.ask(Method::POST, "/api/v1/query", Some(sql)).await;
    assert_eq!((status, answer["rows"].as_array().map_or(0, Vec::len)), (200, 3), "{answer}");

    until("nothing waits any more", async || {
        let status = api.get("/api/v1/sentinel/status").await;
        let waits = |partition: &serde_json::Value| partition["committed"] != partition["end"] && partition["end"] != json!(0);
        let waiting = status["queue"]["partitions"]
            .as_array()
            .is_none_or(|all| all.iter().any(waits));
        (!waiting).then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
    let status = api.get("/api/v1/sentinel/status").await;
    let told = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(told("/size"), json!("cluster"));
    assert_eq!(
        (told("/pipeline/accepted"), told("/pipeline/stored")),
        (json!(sent), json!(sent)),
        "{status}"
    );
    assert!(
        told("/pipeline/insert_p99_ms").as_f64().is_some_and(|time| time > 0.0),
        "{status}"
    );
    assert!(
        told("/pipeline/freshness_p50_ms").as_f64().is_some_and(|time| time > 0.0),
        "{status}"
    );
    assert_eq!(told("/storage/events"), json!(sent), "{status}");
    assert_eq!(told("/queue/brokers").as_array().map_or(0, Vec::len), 1, "{status}");
    for component in status["components"].as_array().expect("components") {
        assert_eq!(component["state"], "Ready", "{component}");
    }
    installation.end().await;
}

/// The engine of the tests has ClickHouse's Kafka tables, but not the threads that read for them. So each record is read here, and
/// given as it is to the same parser, with the setting that such a table makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clickhouse_reads_the_records_of_the_topic_as_json_each_row() {
    let Some(backends) = Backends::shared().await else { return };
    let installation = Installation::start(&backends, 5).await;
    installation.ingest.ready().await;
    let (mut random, mut ledger) = (SmallRng::seed_from_u64(5), Ledger::new());
    for _ in 0..5 {
        let batch = batch(&mut random, "acme", &mut ledger);
        until("a batch is taken", async || installation.send(&batch).await).await;
    }
    let table = "CREATE TABLE mirror (id UUID, timestamp String, source String, payload Tuple(server String, tool_name String, outcome \
                 String)) ENGINE = MergeTree ORDER BY id";
    installation.ask(table).await.expect("a table");
    let records = installation.records(ledger.values().sum());
    assert!(records.len() > 1);
    for record in records {
        let into = "INSERT INTO {db}.mirror (id, timestamp, source, payload) FORMAT JSONEachRow";
        installation.put(into, record).await.expect("a record that the parser takes");
    }
    let sql = "SELECT payload.server, payload.tool_name, payload.outcome, toUInt64(uniqExact(id)) FROM {db}.mirror WHERE timestamp LIKE \
               '20%T%Z' AND source LIKE 'server-%' GROUP BY ALL";
    assert_eq!(installation.counts(sql, 3).await.expect("counts"), ledger);
    installation.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_set_aside_shown_replayed_and_discarded() {
    let Some(backends) = Backends::shared().await else { return };
    let installation = Installation::start(&backends, 2).await;
    let (mut random, mut ledger) = (SmallRng::seed_from_u64(2), Ledger::new());
    installation.ingest.ready().await;
    let good = batch(&mut random, "acme", &mut ledger);
    until("a batch is taken", async || installation.send(&good).await).await;
    let mut hidden = Ledger::new();
    let event = batch(&mut random, "acme", &mut hidden).body;
    let event = event.lines().next().expect("an event");
    let mut found: serde_json::Value = serde_json::from_str(event).expect("an event");
    // As ingest completes it.
    found["v"] = json!(1);
    found["received_at"] = found["timestamp"].clone();
    let event = &found.to_string();
    for line in ["{\"no\": \"event\"}", "\u{1}\u{2} nothing at all", event] {
        installation.poison(line).await;
    }
    // The last is an event, and counts as one although no ingest has seen it.
    let text = |pointer: &str| {
        found
            .pointer(pointer)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    *ledger
        .entry((text("/payload/server"), text("/payload/tool_name"), text("/payload/outcome")))
        .or_default() += 1;
    installation.exact(&ledger, "beside poison").await;

    let api = installation.api().await;
    let letters = until("both are set aside", async || {
        let page = api.get("/api/v1/sentinel/dlq").await;
        let letters = page["dead_letters"].as_array().cloned().unwrap_or_default();
        if letters.len() == 2 {
            Ok(letters)
        } else {
            Err(page.to_string())
        }
    })
    .await;
    for letter in &letters {
        assert!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{letter}");
    }
    assert_eq!(letters[0]["record"], "{\"no\": \"event\"}");
    let path = |letter: &serde_json::Value| format!("/api/v1/sentinel/dlq/{}", letter["id"]);
    assert_eq!(api.get(&path(&letters[0])).await, letters[0]);
    let (status, body) = api.ask(Method::POST, &format!("{}/replay", path(&letters[0])), None).await;
    assert_eq!(status, 409, "what is no event cannot be replayed: {body}");
    for letter in &letters {
        let (status, body) = api.ask(Method::DELETE, &path(letter), None).await;
        assert_eq!(status, 200, "{body}");
        let (status, _) = api.ask(Method::GET, &path(letter), None).await;
        assert_eq!(status, 404);
    }
    let status = api.get("/api/v1/sentinel/status").await;
    assert_eq!(status["pipeline"]["dead_letters"], json!(0));
    installation.end().await;
}
