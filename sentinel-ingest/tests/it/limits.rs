//! Bounds: of bodies, of events, of memory, of a key's rate, of the queue.

use std::io::Write as _;
use std::time::Duration;

use sentinel_ingest::Config;
use sentinel_queue::AppendError;
use serde_json::json;

use crate::harness::{Harness, event, lines, with_rate};

#[tokio::test]
async fn a_body_of_ten_megabytes_gets_413() {
    let harness = Harness::start().await;
    let body = lines(&vec![event("a"); 1_000]).repeat(10 << 20 >> 17);
    assert!(body.len() > 10 << 20, "{}", body.len());
    harness
        .post("application/x-ndjson", body.clone())
        .await
        .assert_refused(413, "payload_too_large");
    let pieces: Vec<_> = body
        .into_bytes()
        .chunks(1 << 16)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect();
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    harness
        .post("application/x-ndjson", chunked)
        .await
        .assert_refused(413, "payload_too_large");
    harness.post_json(&event("a")).await.assert_accepted(1);
}

#[tokio::test]
async fn zip_bombs_stop_at_the_bound() {
    let harness = Harness::start().await;
    let zeros = vec![b' '; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut zstd = zstd::Encoder::new(Vec::new(), 3).unwrap();
    for _ in 0..200 {
        gzip.write_all(&zeros).unwrap();
        zstd.write_all(&zeros).unwrap();
    }
    for (coding, body) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd.finish().unwrap())] {
        let request = harness.request("application/json", body).header("content-encoding", coding);
        let answer = harness.send(request).await;
        answer.assert_refused(413, "payload_too_large");
        assert!(answer.body["message"].as_str().unwrap().contains("33554432"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_zstd_frame_with_a_giant_window_is_refused() {
    let harness = Harness::start().await;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(lines(&[event("a")]).as_bytes()).unwrap();
    let request = harness.request("application/x-ndjson", encoder.finish().unwrap());
    harness
        .send(request.header("content-encoding", "zstd"))
        .await
        .assert_refused(400, "invalid_encoding");
}

#[tokio::test]
async fn a_million_tiny_events_get_413() {
    let harness = Harness::start().await;
    let lines = "1\n".repeat(1_000_000);
    harness
        .post("application/x-ndjson", lines.clone())
        .await
        .assert_refused(413, "too_many_events");
    harness
        .post("application/json", lines)
        .await
        .assert_refused(413, "too_many_events");
    let array = format!("[{}1]", "1,".repeat(999_999));
    harness
        .post("application/json", array)
        .await
        .assert_refused(413, "too_many_events");
    harness
        .post("application/json", "{}".repeat(1_000_000))
        .await
        .assert_refused(413, "too_many_events");
}

#[tokio::test]
async fn one_event_too_large_is_refused_and_its_neighbours_are_not() {
    let harness = Harness::start().await;
    let mut large = event("a");
    large["payload"]["blob"] = "x".repeat(64 << 10).into();
    harness.post_json(&large).await.assert_refused(413, "too_large");
    let answer = harness.post_json(&json!([event("a"), large, event("b")])).await;
    answer.assert_accepted(2);
    assert_eq!(answer.body["rejected"][0]["code"], "too_large");
}

#[tokio::test]
async fn a_key_over_its_rate_waits_as_told() {
    let harness = Harness::start().await;
    let key = harness.keys.create(with_rate(10)).unwrap().key;
    harness.ring.refresh();
    let post = async |events: usize| {
        let request = harness.request("application/x-ndjson", lines(&vec![event("a"); events]));
        // The later header is added to the first, so the request is made anew.
        let mut request = request.build().unwrap();
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        harness
            .send(reqwest::RequestBuilder::from_parts(harness.client.clone(), request))
            .await
    };
    post(50).await.assert_accepted(50);
    let answer = post(1).await;
    answer.assert_refused(429, "rate_limited");
    assert_eq!(answer.header("retry-after"), "5");
    harness.hand.advance(Duration::from_secs(5));
    post(1).await.assert_accepted(1);
    harness.post_json(&event("other key")).await.assert_accepted(1);
    assert_eq!(harness.status.snapshot().refused["rate_limited"], 1);
}

#[tokio::test]
async fn events_the_queue_did_not_take_cost_no_rate() {
    let harness = Harness::start().await;
    let key = harness.keys.create(with_rate(1)).unwrap().key;
    harness.ring.refresh();
    harness.queue.fail_with(Some(|| AppendError::Closed));
    for _ in 0..3 {
        harness.post_as(&key).await.assert_refused(503, "queue_unavailable");
    }
    harness.queue.fail_with(None);
    harness.post_as(&key).await.assert_accepted(1);
}

type Fault = fn() -> AppendError;

#[tokio::test]
async fn a_full_or_absent_queue_gets_503_and_nothing_is_acknowledged() {
    let harness = Harness::start().await;
    let faults: [(Fault, &str, &str); 3] = [
        (|| AppendError::Full { bytes: 9, bytes_max: 8 }, "queue_full", "5"),
        (
            || AppendError::Unavailable(std::io::Error::other("secret path of ours")),
            "queue_unavailable",
            "1",
        ),
        (|| AppendError::Closed, "queue_unavailable", "1"),
    ];
    for (fault, error, retry_after) in faults {
        harness.queue.fail_with(Some(fault));
        let answer = harness.post_json(&event("a")).await;
        answer.assert_refused(503, error);
        assert_eq!(answer.header("retry-after"), retry_after);
        assert!(!answer.body.to_string().contains("secret path"), "{answer:?}");
    }
    let snapshot = harness.status.snapshot();
    assert_eq!(snapshot.accepted, 0);
    assert_eq!(snapshot.last_error.unwrap().message, "the queue is closed");
    harness.queue.fail_with(None);
    harness.post_json(&event("a")).await.assert_accepted(1);
}

#[tokio::test]
async fn a_queue_that_hangs_is_not_waited_for_without_end() {
    let config = Config {
        append_timeout: Duration::from_millis(20),
        ..Config::default()
    };
    let harness = Harness::with(config);
    harness.queue.get_stuck();
    harness.post_json(&event("a")).await.assert_refused(503, "queue_unavailable");
}

#[tokio::test]
async fn requests_beyond_the_memory_are_asked_to_come_again() {
    let config = Config {
        memory_bytes_max: 4_096,
        ..Config::default()
    };
    let harness = Harness::with(config);
    harness.post_json(&event("a")).await.assert_accepted(1);
    let answer = harness.post_json(&json!([event("a"), event("b"), event("c")])).await;
    answer.assert_refused(503, "overloaded");
    assert_eq!(answer.header("retry-after"), "1");
    harness.post_json(&event("a")).await.assert_accepted(1);
}
