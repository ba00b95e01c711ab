//! Questions that are wrong or hostile.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::a_neighbour_is_taken;
use crate::harness::{Answer, Home, Standalone, event};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_sql_reads_nothing_but_the_views_and_changes_nothing() {
    let home = Home::new();
    let secret = home.path().join("secret.csv");
    std::fs::write(&secret, "word\nxyzzy\n").expect("a file to protect");
    let target = home.path().join("written.csv");
    let standalone = home.launch().start().await;
    standalone.send(&(0..500).map(|_| event("probe")).collect::<Vec<_>>()).await;
    standalone.counts(500, "events to ask about").await;
    let (secret, target) = (secret.display(), target.display());
    let data = home.data();
    let data = data.display();
    let cases = [
        String::new(),
        ";".to_owned(),
        "select".to_owned(),
        "select * from nothing".to_owned(),
        "select nothing from events".to_owned(),
        "select 1; drop table events".to_owned(),
        "insert into events select * from events".to_owned(),
        "delete from events".to_owned(),
        "update events set server = 'x'".to_owned(),
        "drop table events".to_owned(),
        "drop view events".to_owned(),
        "truncate table events".to_owned(),
        "create table stolen as select * from events".to_owned(),
        "create view stolen as select * from events".to_owned(),
        "create schema stolen".to_owned(),
        "create database stolen".to_owned(),
        "alter table events add column x int".to_owned(),
        format!("copy events to '{target}'"),
        format!("copy (select * from events) to '{target}' stored as csv"),
        format!("create external table stolen stored as csv location '{secret}'"),
        format!("create external table stolen stored as parquet location '{data}'"),
        format!("select * from '{secret}'"),
        format!("select * from read_csv('{secret}')"),
        format!("select * from read_parquet('{data}/**/*.parquet')"),
        format!("select * from parquet_metadata('{data}')"),
        "select * from '/etc/passwd'".to_owned(),
        "select * from information_schema.tables".to_owned(),
        "select * from information_schema.df_settings".to_owned(),
        "show all".to_owned(),
        "show tables".to_owned(),
        "describe events".to_owned(),
        "set datafusion.execution.batch_size = 1".to_owned(),
        "reset datafusion.execution.batch_size".to_owned(),
        "prepare stolen as select * from events".to_owned(),
        "execute stolen".to_owned(),
        "begin".to_owned(),
        "explain analyze delete from events".to_owned(),
        "create function f(bigint) returns bigint return $1".to_owned(),
        format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("select 1 {}", "+ 1 ".repeat(12_000)),
        format!("select '{}'", "x".repeat(100_000)),
    ];
    let mut failures = Vec::new();
    for sql in &cases {
        failures.extend(judge(sql, &standalone.ask_sql(sql).await));
        let left = standalone.number("select count(*) from events").await;
        assert_eq!(left, 500, "after {sql:.120}");
    }
    assert!(
        failures.is_empty(),
        "{} of {} questions:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    assert!(!home.path().join("written.csv").exists(), "a query wrote a file");
    a_neighbour_is_taken(&standalone, "hostile SQL").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_sql_is_ended_and_delays_nobody_else() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    standalone.send(&(0..500).map(|_| event("probe")).collect::<Vec<_>>()).await;
    standalone.counts(500, "events to ask about").await;
    let endless = [
        "with recursive t as (select 1 as n union all select n + 1 from t) select count(*) from t",
        "select count(*) from events a, events b, events c, events d, events e",
        "select array_agg(a.id || b.id || c.id) from events a, events b, events c",
        "select * from generate_series(1, 100000000000) order by 1 desc",
        "select repeat(repeat('x', 100000), 100000)",
    ];
    let asked = futures::future::join_all(endless.iter().map(|sql| standalone.ask_sql(sql)));
    let meanwhile = async {
        for number in 0..20 {
            let start = Instant::now();
            a_neighbour_is_taken(&standalone, "endless SQL").await;
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(10),
                "event {number} took {took:?} beside endless SQL"
            );
        }
    };
    let (answers, ()) = tokio::join!(asked, meanwhile);
    let failures: Vec<String> = endless
        .iter()
        .zip(&answers)
        .filter_map(|(sql, answer)| judge(sql, answer))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let peak = standalone.memory_peak();
    assert!(peak < 1 << 30, "queries made the process grow to {} MiB", peak >> 20);
    standalone.counts(520, "events beside endless SQL").await;
    standalone.stop().await;
}

/// What is wrong with the answer to a hostile question. Refused, out of time, or over a limit: all of these are right. A result is
/// right only where nothing foreign is in it.
fn judge(sql: &str, answer: &Answer) -> Option<String> {
    let shown: String = sql.chars().take(120).collect();
    let refused = (400..500).contains(&answer.status) || matches!(answer.status, 503 | 504);
    let harmless = answer.status == 200 && harmless_result(&answer.body);
    if !refused && !harmless || answer.text.contains("xyzzy") || answer.text.contains("root:") {
        return Some(format!("{shown}: {answer:?}"));
    }
    let words = !answer.code().is_empty() && answer.body["message"].as_str().is_some_and(|text| !text.is_empty());
    (refused && !words).then(|| format!("{shown}: refused without words: {answer:?}"))
}

/// Sums and texts of one row and names of our own views tell nothing; settings and other tables would.
fn harmless_result(body: &Value) -> bool {
    let text = body["rows"].to_string();
    body["rows"].as_array().is_some_and(|rows| rows.len() <= 200)
        && !["information_schema", "df_settings", "datafusion."]
            .iter()
            .any(|word| text.contains(word))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_are_cut_and_said_to_be_cut() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    for _ in 0..3 {
        standalone.send(&(0..5_000).map(|_| event("probe")).collect::<Vec<_>>()).await;
    }
    standalone.counts(15_000, "events to ask about").await;
    let answer = standalone
        .ask_sql("select id from events")
        .await
        .expect(200, "more rows than one answer has");
    let rows = answer.body["rows"].as_array().expect("rows").len();
    assert!(
        rows < 15_000 && answer.body["truncated"] == json!(true),
        "{rows} rows, truncated: {}",
        answer.body["truncated"]
    );
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_neither_repeat_nor_skip_and_foreign_cursors_are_refused() {
    let home = Home::new();
    let standalone = home.launch().busy_store().start().await;
    let sent: Vec<Value> = (0..750)
        .map(|number| event(if number % 3 == 0 { "third" } else { "other" }))
        .collect();
    for some in sent.chunks(50) {
        standalone.send(some).await;
    }
    standalone.counts(750, "events to page through").await;
    let third: HashSet<&str> = sent
        .iter()
        .filter(|event| event["payload"]["tool_name"] == "third")
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    for order in ["newest", "arrival"] {
        let mut next = Some(format!("/api/v1/events?tool_name=third&limit=40&order={order}"));
        let mut seen = Vec::new();
        while let Some(path) = next {
            let page = standalone.get(&path).await.expect(200, &path);
            seen.extend(
                page.body["events"]
                    .as_array()
                    .expect("events")
                    .iter()
                    .map(|event| event["id"].as_str().unwrap().to_owned()),
            );
            // More arrive while somebody turns pages.
            standalone.send(&[event("other")]).await;
            next = page.body["next"].as_str().map(str::to_owned);
        }
        let distinct: HashSet<&str> = seen.iter().map(String::as_str).collect();
        assert_eq!((seen.len(), &distinct), (third.len(), &third), "{order}: each event once");
    }
    cursors_of_others(&standalone).await;
    standalone.stop().await;
}

async fn cursors_of_others(standalone: &Standalone) {
    let page = standalone
        .get("/api/v1/events?tool_name=third&limit=10")
        .await
        .expect(200, "a first page");
    let cursor = page.body["meta"]["next_cursor"].as_str().expect("a cursor").to_owned();
    let half: String = cursor.chars().take(cursor.len() / 2).collect();
    for query in [
        format!("tool_name=other&cursor={cursor}"),
        format!("cursor={cursor}"),
        format!("tool_name=third&order=arrival&cursor={cursor}"),
        format!("tool_name=third&since=1h&cursor={cursor}"),
        format!("tool_name=third&cursor={half}"),
        "tool_name=third&cursor=nonsense".to_owned(),
        format!("tool_name=third&cursor={}", "A".repeat(3_000)),
        "tool_name=third&cursor=%00%ff".to_owned(),
    ] {
        let answer = standalone.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        answer.is_clear_refusal().unwrap_or_else(|fault| panic!("{query}: {fault}"));
    }
    standalone
        .get(&format!("/api/v1/events?tool_name=third&limit=10&cursor={cursor}"))
        .await
        .expect(200, "the cursor of this query");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_parameters_say_which_and_what_would_be_right() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    standalone.send(&[event("probe")]).await;
    let cases = [
        ("/api/v1/events?limit=0", "limit"),
        ("/api/v1/events?limit=1000000", "limit"),
        ("/api/v1/events?limit=ten", "limit"),
        ("/api/v1/events?limit=5&limit=6", "limit"),
        ("/api/v1/events?since=yesterday", "since"),
        ("/api/v1/events?since=2026-13-45T00:00:00Z", "since"),
        ("/api/v1/events?since=1h&until=2h", "since"),
        ("/api/v1/events?since=-1h", "since"),
        ("/api/v1/events?outcome=splendid", "outcome"),
        ("/api/v1/events?id=first", "id"),
        ("/api/v1/events?servr=payments", "servr"),
        ("/api/v1/events?status=abc", "status"),
        ("/api/v1/analytics/series?metric=happiness", "metric"),
        ("/api/v1/analytics/series?metric=calls&by=weather", "by"),
        ("/api/v1/analytics/series?metric=calls&step=0s", "step"),
        ("/api/v1/analytics/export?format=xlsx", "format"),
        ("/api/v1/sentinel/dlq?after=x", "after"),
    ];
    for (path, named) in cases {
        let answer = standalone.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(message.contains(named), "{path}: `{named}` is not named: {answer:?}");
    }
    for body in [
        "",
        "{",
        "[]",
        "{\"sql\":1}",
        "{\"sql\":\"select 1\",\"sq\":2}",
        "{\"sql\":\"select 1\",\"format\":\"xml\"}",
    ] {
        let request = standalone
            .request(reqwest::Method::POST, "/api/v1/query")
            .header("content-type", "application/json");
        let answer = standalone.ask(request.body(body)).await;
        assert!(matches!(answer.status, 400 | 422), "{body:?}: {answer:?}");
        answer.is_clear_refusal().unwrap_or_else(|fault| panic!("{body:?}: {fault}"));
    }
    for (method, path) in [
        ("GET", "/api/v1/sentinel/dlq/99"),
        ("DELETE", "/api/v1/sentinel/dlq/99"),
        ("DELETE", "/api/v1/sentinel/keys/none"),
        ("GET", "/api/v1/sentinel/logs/nobody"),
    ] {
        let answer = standalone
            .ask(standalone.request(method.parse().expect("a method"), path))
            .await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        answer
            .is_clear_refusal()
            .unwrap_or_else(|fault| panic!("{method} {path}: {fault}"));
    }
    // A page of another origin, or another machine behind a forwarder, must not use the open door of this machine.
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("host", "evil.example"),
        ("x-forwarded-for", "203.0.113.9"),
    ] {
        // Without a key: whoever has one may come from anywhere.
        let request = standalone.http.get(format!("{}/api/v1/events", standalone.url));
        let answer = standalone.ask(request.header(name, value)).await;
        assert!(matches!(answer.status, 401 | 403), "{name}: {value}: {answer:?}");
    }
    a_neighbour_is_taken(&standalone, "wrong parameters").await;
    standalone.stop().await;
}
