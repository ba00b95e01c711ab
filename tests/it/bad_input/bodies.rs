//! Bodies of ingest that are wrong in form or content.

use serde_json::{Value, json};

use super::{a_neighbour_is_taken, refused};
use crate::harness::{Home, Standalone, event, now};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// An event that is valid but for one change.
fn but(change: impl FnOnce(&mut Value)) -> Value {
    let mut event = event("wrong");
    change(&mut event);
    event
}

/// An event that cannot be taken: what is wrong, the event, the code of its refusal, and a word that the sentence must contain.
type Wrong = (&'static str, Value, &'static str, &'static str);

fn wrong_events() -> Vec<Wrong> {
    [wrong_shapes(), wrong_values(), out_of_bounds()].concat()
}

fn wrong_shapes() -> Vec<Wrong> {
    let without_payload = but(|event| drop(event.as_object_mut().unwrap().remove("payload")));
    vec![
        ("a number", json!(42), "invalid_field", "object"),
        ("null", Value::Null, "invalid_field", "object"),
        ("a text", json!("event"), "invalid_field", "object"),
        ("an empty object", json!({}), "missing_fields", "payload"),
        ("no payload", without_payload, "missing_fields", "payload"),
        ("a blank source", with("source", json!("  ")), "missing_fields", "source"),
        (
            "no event type",
            with("event_type", Value::Null),
            "missing_fields",
            "event_type",
        ),
        ("a list as payload", with("payload", json!([1])), "invalid_field", "payload"),
        ("a later version", with("v", json!(99)), "invalid_field", "version"),
    ]
}

fn wrong_values() -> Vec<Wrong> {
    vec![
        (
            "a text as status",
            of("status", json!("two hundred")),
            "invalid_field",
            "status",
        ),
        (
            "a negative latency",
            of("latency_us", json!(-5)),
            "invalid_field",
            "latency_us",
        ),
        ("a number as tool", of("tool_name", json!(7)), "invalid_field", "tool_name"),
        (
            "an unknown outcome",
            of("outcome", json!("splendid")),
            "invalid_field",
            "outcome",
        ),
        ("an id that is none", with("id", json!("first")), "invalid_field", "id"),
        (
            "a huge count",
            with("producer_seq", json!(1e300)),
            "invalid_field",
            "producer_seq",
        ),
        (
            "a time that is none",
            with("timestamp", json!("yesterday")),
            "invalid_field",
            "timestamp",
        ),
    ]
}

fn out_of_bounds() -> Vec<Wrong> {
    let ahead = now().plus(std::time::Duration::from_hours(1)).to_string();
    let many_keys = but(|event| (0..100).for_each(|key| event["payload"][format!("k{key}")] = json!(1)));
    let long = |bytes: usize| json!("x".repeat(bytes));
    vec![
        (
            "a time ahead",
            with("timestamp", json!(ahead)),
            "timestamp_out_of_range",
            "ahead",
        ),
        (
            "the year 2200",
            with("timestamp", json!("2200-01-01T00:00:00Z")),
            "timestamp_out_of_range",
            "ahead",
        ),
        (
            "the year 1970",
            with("timestamp", json!("1970-01-01T00:00:00Z")),
            "timestamp_out_of_range",
            "older",
        ),
        ("a long name", of("tool_name", long(2_000)), "too_large", "tool_name"),
        ("a large event", of("extra", long(100_000)), "too_large", "bytes"),
        ("too many keys", many_keys, "too_large", "keys"),
        (
            "a foreign namespace",
            of("namespace", json!("others")),
            "namespace_mismatch",
            "namespace",
        ),
    ]
}

fn with(field: &str, value: Value) -> Value {
    but(|event| event[field] = value)
}

fn of(column: &str, value: Value) -> Value {
    but(|event| event["payload"][column] = value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_event_is_refused_alone_and_its_neighbours_are_taken() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let cases = wrong_events();
    let mut stored = 0;
    for content_type in [JSON, LINES] {
        // Valid, wrong, valid, wrong, … in one body.
        let body: Vec<Value> = cases
            .iter()
            .flat_map(|(_, wrong, _, _)| [event("valid"), wrong.clone()])
            .collect();
        let text = if content_type == JSON {
            json!(body).to_string()
        } else {
            body.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
        };
        let answer = standalone
            .ask(standalone.ingest(content_type, text))
            .await
            .expect(202, content_type);
        assert_eq!(answer.taken(), Some((cases.len() as u64, 0)), "{content_type}: {answer:?}");
        let rejected = answer.body["rejected"].as_array().expect("a list of refused events");
        assert_eq!(rejected.len(), cases.len(), "{content_type}: {answer:?}");
        for (place, ((what, _, code, word), refusal)) in cases.iter().zip(rejected).enumerate() {
            assert_eq!(
                (&refusal["index"], &refusal["code"]),
                (&json!(2 * place + 1), &json!(code)),
                "{content_type}: {what}: {refusal}"
            );
            let message = refusal["message"].as_str().unwrap_or_default();
            assert!(
                message.contains(word),
                "{content_type}: {what}: the sentence does not say `{word}`: {refusal}"
            );
        }
        stored += cases.len() as u64;
    }
    standalone.counts(stored, "valid neighbours").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_with_nothing_valid_is_refused_by_its_own_status() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let mut neighbours = 0;
    for (what, wrong, code, _) in wrong_events() {
        let status = match code {
            "namespace_mismatch" => 403,
            "too_large" => 413,
            "invalid_field" => 422,
            _ => 400,
        };
        let answer = standalone.ask(standalone.ingest(JSON, wrong.to_string())).await;
        refused(&answer, status, code, what);
        a_neighbour_is_taken(&standalone, what).await;
        neighbours += 1;
    }
    standalone.counts(neighbours, "valid neighbours").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_is_refused() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let nested = "[".repeat(200_000);
    let deep_event = format!(
        r#"{{"source":"s","event_type":"t","payload":{{"x":{}1{}}}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    let cases: [(&str, &[u8]); 9] = [
        ("nothing", b""),
        ("blanks", b" \n\t "),
        ("half an object", br#"{"source":"#),
        ("half an array", br#"[{"source":"s","event_type":"t","payload":{}},"#),
        ("a comma too many", br#"[{"source":"s","event_type":"t","payload":{}},]"#),
        ("no JSON at all", b"source=s&event_type=t"),
        (
            "bytes that are no UTF-8",
            b"{\"source\":\"\xff\xfe\",\"event_type\":\"t\",\"payload\":{}}",
        ),
        (
            "a bare control character",
            b"{\"source\":\"a\x01b\",\"event_type\":\"t\",\"payload\":{}}",
        ),
        ("brackets without end", nested.as_bytes()),
    ];
    // The text is JSON, but no text that could be kept; the refusal names the field.
    let half = r#"{"source":"\ud800","event_type":"t","payload":{}}"#;
    let answer = standalone.ask(standalone.ingest(JSON, half)).await;
    refused(&answer, 422, "invalid_field", "half a surrogate pair");
    let answer = standalone.ask(standalone.ingest(JSON, deep_event)).await;
    refused(&answer, 422, "invalid_field", "a field nested too deeply");
    let mut neighbours = 0;
    for (what, body) in cases {
        let answer = standalone.ask(standalone.ingest(JSON, body.to_vec())).await;
        refused(&answer, 400, "invalid_json", what);
        a_neighbour_is_taken(&standalone, what).await;
        neighbours += 1;
    }
    standalone.counts(neighbours, "valid neighbours").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_line_costs_only_itself() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let (first, last) = (event("first"), event("last"));
    let answer = standalone
        .ask(standalone.ingest(LINES, format!("{first}\n{{\"source\":\n\n{last}")))
        .await;
    assert_eq!(answer.taken(), Some((2, 0)), "{answer:?}");
    assert_eq!(answer.body["rejected"][0]["code"], "invalid_json", "{answer:?}");
    standalone.counts(2, "the lines around the broken one").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_types_methods_and_paths_say_what_would_be_right() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    for content_type in [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "nonsense",
        "application/json; charset=utf-16",
    ] {
        let answer = standalone
            .ask(standalone.ingest(content_type, event("wrong").to_string()))
            .await;
        refused(&answer, 415, "unsupported_media_type", content_type);
        assert!(
            answer.header("accept").is_some_and(|accept| accept.contains(JSON)),
            "{content_type}: {answer:?}"
        );
        a_neighbour_is_taken(&standalone, content_type).await;
    }
    for coding in ["br", "compress", "gzip, gzip", "gzip, zstd"] {
        let answer = standalone
            .ask(
                standalone
                    .ingest(JSON, event("wrong").to_string())
                    .header("content-encoding", coding),
            )
            .await;
        refused(&answer, 415, "unsupported_media_type", coding);
    }
    for coding in ["gzip", "zstd"] {
        let answer = standalone
            .ask(
                standalone
                    .ingest(JSON, event("wrong").to_string())
                    .header("content-encoding", coding),
            )
            .await;
        refused(&answer, 400, "invalid_encoding", &format!("a body that is not {coding}"));
    }
    for path in ["/events", "/ingest/events"] {
        let answer = standalone
            .ask(
                standalone
                    .request(reqwest::Method::PUT, path)
                    .header("x-api-key", &standalone.key),
            )
            .await;
        refused(&answer, 405, "method_not_allowed", path);
        assert!(
            answer.header("allow").is_some_and(|allow| allow.contains("POST")),
            "{path}: {answer:?}"
        );
    }
    for path in [
        "/nothing",
        "/api/v1/nothing",
        "/api/v9/events",
        "/nobody/mcp",
        "/events/../../etc/passwd",
    ] {
        let answer = standalone.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        a_neighbour_is_taken(&standalone, path).await;
    }
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_any_script_come_back_as_they_were_sent() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let names = [
        "grüße ✓",
        "请求-工具",
        "\u{202e}lortnoc",
        "👩‍👩‍👧‍👦",
        "tab\tline\nreturn\r",
        "escape \u{1b}[31mred\u{1b}[0m",
        "nul \0 inside",
        "'; drop table events; --",
        "\" or \\ and %27 &amp; {{x}}",
        "=cmd|' /C calc'!A0",
    ];
    for name in names {
        standalone.send(&[event(name)]).await;
    }
    standalone.counts(names.len() as u64, "events with unusual names").await;
    for name in names {
        let path = standalone
            .request(reqwest::Method::GET, "/api/v1/events")
            .query(&[("tool_name", name)]);
        let answer = standalone.ask(path).await.expect(200, name);
        let found: Vec<_> = answer.body["events"]
            .as_array()
            .expect("events")
            .iter()
            .map(|event| &event["payload"]["tool_name"])
            .collect();
        assert_eq!(found, [&json!(name)], "filtering by {name:?}");
    }
    terminal_is_safe(&standalone).await;
    standalone.stop().await;
}

/// Names of others must not steer the reader's terminal.
async fn terminal_is_safe(standalone: &Standalone) {
    for command in [
        &["sentinel", "events"][..],
        &["sentinel", "tools"],
        &["sentinel", "query", "select tool_name from events"],
    ] {
        let exit = standalone.cli(command).await;
        let shown = exit.well("showing unusual names");
        let control = shown
            .chars()
            .find(|each| each.is_control() && *each != '\n' || *each == '\u{202e}');
        assert_eq!(control, None, "{command:?} printed a control character: {shown:?}");
    }
}
