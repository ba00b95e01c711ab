//! What may be in a body, good and bad.

use std::io::Write as _;

use domain::Outcome;
use serde_json::{Value, json};

use crate::harness::{Harness, event, later, lines};

#[cfg(test)]
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[cfg(test)]
fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

async fn packed(harness: &Harness, coding: &str, body: Vec<u8>) -> crate::harness::Answer {
    let request = harness
        .request("application/x-ndjson", body)
        .header("content-encoding", coding);
    harness.send(request).await
}

#[tokio::test]
async fn one_envelope_of_the_predecessor_is_taken() {
    let harness = Harness::start().await;
    let answer = harness.post_json(&event("list_invoices")).await;
    answer.assert_accepted(1);
    assert_eq!(
        answer.body,
        json!({"ok": true, "accepted": 1, "duplicates": 0, "rejected": [], "rejected_total": 0})
    );
    let events = harness.queue.events();
    let [stored] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((stored.namespace(), stored.server()), ("acme", "payments"));
    assert_eq!(stored.received_at, later(0));
    assert_eq!(stored.timestamp, later(0));
    assert!(harness.key.contains(stored.received_by.as_deref().unwrap()));
    assert_eq!(stored.id.made_at_millis(), Some(later(0).millis().unsigned_abs()));
    assert_eq!(stored.payload.latency_us, Some(3_000));
    assert_eq!(stored.payload.outcome, Some(Outcome::Ok));
}

#[tokio::test]
async fn every_layout_holds_the_same_events() {
    let harness = Harness::start().await;
    let events = [event("a"), event("b"), event("c")];
    let compact = lines(&events);
    let pretty = events.each_ref().map(|event| format!("{event:#}")).join("\n");
    let array = Value::from(events.to_vec()).to_string();
    let cases = [
        ("application/json", array.clone()),
        ("application/json; charset=utf-8", format!("\u{feff}  {array}\n")),
        ("application/x-ndjson", compact.clone()),
        ("application/ndjson", compact.replace('\n', "\r\n\r\n")),
        // Predecessor: stored the first and said 202.
        ("application/json", compact.clone()),
        ("application/json", pretty),
        ("application/json", compact.replace('\n', "")),
    ];
    for (content_type, body) in &cases {
        harness.post(content_type, body.clone()).await.assert_accepted(3);
    }
    let tools: Vec<_> = harness
        .queue
        .events()
        .iter()
        .map(|event| event.payload.tool_name.clone().unwrap())
        .collect();
    assert_eq!(tools, ["a", "b", "c"].repeat(cases.len()));
}

#[tokio::test]
async fn gzip_zstd_and_identity_are_unpacked() {
    let harness = Harness::start().await;
    let text = lines(&[event("a"), event("b")]);
    for (coding, body) in [
        ("gzip", gzip(text.as_bytes())),
        ("X-GZIP", gzip(text.as_bytes())),
        ("gzip", [gzip(text.as_bytes()), gzip(b"")].concat()),
        ("zstd", zstd(text.as_bytes())),
        ("identity", text.clone().into_bytes()),
        ("identity, gzip", gzip(text.as_bytes())),
    ] {
        packed(&harness, coding, body).await.assert_accepted(2);
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_its_encoding_says_is_refused() {
    let harness = Harness::start().await;
    let text = lines(&[event("a")]);
    let (gzip, zstd) = (gzip(text.as_bytes()), zstd(text.as_bytes()));
    for (coding, body) in [
        ("gzip", gzip[..gzip.len() - 6].to_vec()),
        ("gzip", gzip[..20].to_vec()),
        ("zstd", zstd[..zstd.len() - 3].to_vec()),
        ("gzip", text.clone().into_bytes()),
        ("zstd", gzip.clone()),
        ("gzip", Vec::new()),
    ] {
        packed(&harness, coding, body).await.assert_refused(400, "invalid_encoding");
    }
    assert!(harness.queue.events().is_empty());
}

#[tokio::test]
async fn unknown_types_and_encodings_get_415_with_what_is_taken() {
    let harness = Harness::start().await;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "é",
    ] {
        let answer = harness.post(content_type, event("a").to_string()).await;
        answer.assert_refused(415, "unsupported_media_type");
        assert_eq!(answer.header("accept"), "application/json, application/x-ndjson");
        assert!(
            answer.body["hint"].as_str().unwrap().contains("application/x-ndjson"),
            "{answer:?}"
        );
    }
    for coding in ["br", "gzip, gzip", "zstd, gzip", "deflate"] {
        let answer = packed(&harness, coding, vec![1, 2, 3]).await;
        answer.assert_refused(415, "unsupported_media_type");
        assert_eq!(answer.header("accept-encoding"), "gzip, zstd, identity");
    }
    let untyped = harness.client.post(harness.url("/events")).header("x-api-key", &harness.key);
    harness.send(untyped.body(event("a").to_string())).await.assert_accepted(1);
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let harness = Harness::start().await;
    for body in [
        "",
        " \n ",
        "{",
        "nonsense",
        "{\"source\":}",
        "[{\"source\":\"a\"},",
        "[1,2,]",
        "{}}",
        "[] []",
    ] {
        let answer = harness.post("application/json", body.to_owned()).await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, if body == "{}}" { "missing_fields" } else { "invalid_json" }),
            "{body:.20}: {answer:?}"
        );
    }
    harness
        .post("application/json", vec![0xff, 0xfe, b'{', 0])
        .await
        .assert_refused(400, "invalid_json");
    harness
        .post("application/x-ndjson", "")
        .await
        .assert_refused(400, "invalid_json");
    assert!(harness.queue.events().is_empty());
}

#[tokio::test]
async fn deep_nesting_is_refused_and_breaks_nothing() {
    let harness = Harness::start().await;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    harness
        .post("application/json", deep.clone())
        .await
        .assert_refused(422, "invalid_field");
    let within = format!(r#"{{"source":"a","event_type":"b","payload":{{"x":{deep}}}}}"#);
    harness
        .post("application/json", within)
        .await
        .assert_refused(422, "invalid_field");
    let open = "[".repeat(1 << 20);
    harness
        .post("application/json", open)
        .await
        .assert_refused(400, "invalid_json");
    harness.post_json(&event("a")).await.assert_accepted(1);
}

#[tokio::test]
async fn missing_fields_and_wrong_types_are_named() {
    let harness = Harness::start().await;
    for body in [
        "{}",
        r#"{"source":" ","event_type":"x","payload":{}}"#,
        r#"{"source":"a","event_type":"x","payload":null}"#,
    ] {
        let answer = harness.post("application/json", body).await;
        answer.assert_refused(400, "missing_fields");
        assert_eq!(answer.body["rejected_total"], 1);
        assert_eq!(answer.body["rejected"][0]["index"], 0);
    }
    for (body, field) in [
        (r#"{"source":7,"event_type":"x","payload":{}}"#, "source"),
        (r#"{"source":"a","event_type":"x","payload":[]}"#, "payload"),
        (
            r#"{"source":"a","event_type":"x","payload":{"status":"fine"}}"#,
            "payload.status",
        ),
        (
            r#"{"source":"a","event_type":"x","payload":{"latency_us":-1}}"#,
            "payload.latency_us",
        ),
        (
            r#"{"source":"a","event_type":"x","payload":{"outcome":"well"}}"#,
            "payload.outcome",
        ),
        (r#"{"id":"7","source":"a","event_type":"x","payload":{}}"#, "id"),
        (r#"{"v":2,"source":"a","event_type":"x","payload":{}}"#, "v"),
        (
            r#"{"timestamp":"yesterday","source":"a","event_type":"x","payload":{}}"#,
            "timestamp",
        ),
        ("5", "an event"),
        ("\"text\"", "an event"),
    ] {
        let answer = harness.post("application/json", body).await;
        answer.assert_refused(422, "invalid_field");
        assert!(answer.body["message"].as_str().unwrap().contains(field), "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn nothing_valid_beside_a_fault_is_lost() {
    let harness = Harness::start().await;
    let body = [
        event("a").to_string(),
        "{\"broken\":".to_owned(),
        event("b").to_string(),
        "{}".to_owned(),
        "\u{1}".to_owned(),
        event("c").to_string(),
    ];
    for content_type in ["application/x-ndjson", "application/json"] {
        let answer = harness.post(content_type, body.join("\n")).await;
        answer.assert_accepted(3);
        let rejected: Vec<_> = answer.body["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (&item["index"], &item["code"]))
            .collect();
        assert_eq!(
            rejected,
            [
                (&json!(1), &json!("invalid_json")),
                (&json!(3), &json!("missing_fields")),
                (&json!(4), &json!("invalid_json"))
            ]
        );
    }
    let mixed = json!([event("a"), 7, {"source": "x"}, event("b")]);
    let answer = harness.post_json(&mixed).await;
    answer.assert_accepted(2);
    assert_eq!(answer.body["rejected"][0]["code"], "invalid_field");
    assert_eq!(answer.body["rejected"][1]["code"], "missing_fields");
    assert_eq!(harness.queue.events().len(), 8);
    let snapshot = harness.status.snapshot();
    assert_eq!(
        (
            snapshot.accepted,
            snapshot.rejected["invalid_json"],
            snapshot.rejected["missing_fields"]
        ),
        (8, 4, 3)
    );
}

#[tokio::test]
async fn a_broken_pretty_printed_document_is_one_fault() {
    let harness = Harness::start().await;
    let good = format!("{:#}\n", event("a"));
    let answer = harness
        .post(
            "application/json",
            format!("{good}{}", "{\n  \"source\": \"a\",\n  oops\n}\n"),
        )
        .await;
    answer.assert_accepted(1);
    assert_eq!(answer.body["rejected_total"], 1, "{answer:?}");
    assert_eq!(answer.body["rejected"][0]["index"], 1);
}

#[tokio::test]
async fn the_list_of_faults_is_bounded_and_the_count_is_not() {
    let harness = Harness::start().await;
    let answer = harness.post("application/x-ndjson", "{}\n".repeat(5_000)).await;
    answer.assert_refused(400, "missing_fields");
    assert_eq!(answer.body["rejected"].as_array().unwrap().len(), 100);
    assert_eq!(answer.body["rejected_total"], 5_000);
    let long = json!({"source": "a", "event_type": "b", "payload": {"outcome": "é".repeat(20_000)}});
    let answer = harness.post_json(&json!([long, event("a")])).await;
    answer.assert_accepted(1);
    assert!(
        answer.body["rejected"][0]["message"].as_str().unwrap().chars().count() <= 301,
        "{answer:?}"
    );
}

#[tokio::test]
async fn ids_repeated_within_a_body_count_once() {
    let harness = Harness::start().await;
    let with_id = |id: &str, tool: &str| {
        let mut event = event(tool);
        event["id"] = id.into();
        event
    };
    let (one, two) = ("0190f1e0-0000-7abc-8def-000000000001", "0190f1e0-0000-7abc-8def-000000000002");
    let body = [
        with_id(one, "a"),
        with_id(two, "b"),
        with_id(one, "again"),
        event("c"),
        event("d"),
    ];
    let answer = harness.post("application/x-ndjson", lines(&body)).await;
    answer.assert_accepted(4);
    assert_eq!(answer.body["duplicates"], 1);
    let tools: Vec<_> = harness
        .queue
        .events()
        .iter()
        .map(|event| event.payload.tool_name.clone().unwrap())
        .collect();
    assert_eq!(tools, ["a", "b", "c", "d"]);
    assert_eq!(harness.status.snapshot().duplicates, 1);
}

#[tokio::test]
async fn times_in_the_future_and_before_the_retention_are_refused() {
    let harness = Harness::start().await;
    let at = |time: String| {
        let mut event = event("a");
        event["timestamp"] = time.into();
        event
    };
    for time in [later(301), later(-91 * 86_400)] {
        let answer = harness.post_json(&at(time.to_string())).await;
        answer.assert_refused(400, "timestamp_out_of_range");
    }
    harness
        .post_json(&at("0001-01-01T00:00:00Z".to_owned()))
        .await
        .assert_refused(422, "invalid_field");
    for time in [later(299), later(-89 * 86_400)] {
        harness.post_json(&at(time.to_string())).await.assert_accepted(1);
    }
}

#[tokio::test]
async fn unicode_and_control_characters_arrive_as_they_are() {
    let harness = Harness::start().await;
    let name = "zażółć 🦀 \u{202e}\u{0}\u{7f}\n\t\"\\ \u{feff}";
    for content_type in ["application/json", "application/x-ndjson"] {
        harness.post(content_type, event(name).to_string()).await.assert_accepted(1);
    }
    let events = harness.queue.events();
    assert!(
        events.iter().all(|event| event.payload.tool_name.as_deref() == Some(name)),
        "{events:?}"
    );
    let raw = event("a").to_string().replace("\"a\"", "\"a\u{1}b\"");
    harness
        .post("application/json", raw)
        .await
        .assert_refused(400, "invalid_json");
    let lone = event("a").to_string().replace("\"a\"", r#""\ud800""#);
    harness
        .post("application/json", lone)
        .await
        .assert_refused(422, "invalid_field");
}

#[tokio::test]
async fn what_is_no_column_is_kept_as_attribute() {
    let harness = Harness::start().await;
    let mut sent = event("a");
    sent["payload"]["pod"] = "payments-0".into();
    sent["region"] = json!({"name": "eu"});
    harness.post_json(&sent).await.assert_accepted(1);
    let attributes = harness.queue.events()[0].payload.attributes.clone();
    assert_eq!(attributes["pod"], "payments-0");
    assert_eq!(attributes["region"], r#"{"name":"eu"}"#);
}

#[tokio::test]
async fn the_trace_of_the_request_becomes_that_of_its_events() {
    let harness = Harness::start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = harness.request("application/json", event("a").to_string());
    let answer = harness
        .send(request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01")))
        .await;
    answer.assert_accepted(1);
    harness.post_json(&event("b")).await.assert_accepted(1);
    let traces: Vec<_> = harness
        .queue
        .events()
        .iter()
        .map(|event| event.trace_id.map(|id| id.to_string()))
        .collect();
    assert_eq!(traces, [Some(trace.to_owned()), None]);
}

#[tokio::test]
async fn chunked_bodies_are_read_to_their_end() {
    let harness = Harness::start().await;
    let text = lines(&[event("a"), event("b"), event("c")]);
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(7)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    harness.post("application/x-ndjson", body).await.assert_accepted(3);
}

#[tokio::test]
async fn an_empty_array_is_nothing_and_fine() {
    let harness = Harness::start().await;
    harness.post("application/json", "[]").await.assert_accepted(0);
}

#[tokio::test]
async fn large_bodies_are_decoded_beside_the_workers() {
    let harness = Harness::start().await;
    let events: Vec<_> = (0..2_000).map(|number| event(&number.to_string())).collect();
    harness
        .post("application/x-ndjson", lines(&events))
        .await
        .assert_accepted(2_000);
    let last = harness.queue.events().last().unwrap().payload.tool_name.clone();
    assert_eq!(last.as_deref(), Some("1999"));
}
