//! Too much of something: bytes, events, connections that never finish.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{a_neighbour_is_taken, refused};
use crate::harness::{Home, Standalone, event};

const JSON: &str = "application/json";
/// No flood may make the process take more than this. The standalone's own limit is in its settings; this is well above it.
const MEMORY_MAX: u64 = 700 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_ten_megabytes_and_bombs_are_refused_in_bounded_memory() {
    let home = Home::new();
    let standalone = home.launch().arg("--memory-limit", "256MiB").start().await;
    let large = vec![b' '; 10 << 20];
    let answer = standalone.ask(standalone.ingest(JSON, large.clone())).await;
    refused(&answer, 413, "payload_too_large", "10 MB that announce their length");
    let pieces = futures::stream::iter(
        large
            .chunks(64 << 10)
            .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
            .collect::<Vec<_>>(),
    );
    let answer = standalone
        .ask(standalone.ingest(JSON, reqwest::Body::wrap_stream(pieces)))
        .await;
    refused(&answer, 413, "payload_too_large", "10 MB that do not");
    a_neighbour_is_taken(&standalone, "10 MB").await;

    let gzip = gzip_bomb();
    let zstd = zstd::encode_all(std::io::repeat(b' ').take(1 << 30), 1).expect("packing");
    for (coding, bomb) in [("gzip", gzip), ("zstd", zstd)] {
        assert!(
            bomb.len() < 4 << 20,
            "the {coding} bomb is small enough to be read: {} bytes",
            bomb.len()
        );
        let posts = (0..8).map(|_| standalone.ask(standalone.ingest(JSON, bomb.clone()).header("content-encoding", coding)));
        for answer in futures::future::join_all(posts).await {
            // Eight at once may also be too much at once, which is an answer as good.
            if answer.status != 503 {
                refused(&answer, 413, "payload_too_large", coding);
            }
        }
        a_neighbour_is_taken(&standalone, coding).await;
    }
    let peak = standalone.memory_peak();
    assert!(peak < MEMORY_MAX, "the process grew to {} MiB", peak >> 20);
    standalone.counts(3, "valid neighbours").await;
    standalone.stop().await;
}

/// A gigabyte of blanks.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let piece = vec![b' '; 1 << 20];
    (0..512).for_each(|_| encoder.write_all(&piece).expect("packing"));
    encoder.finish().expect("packing")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_tiny_events_are_refused_in_one_body_and_counted_in_many() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let million = format!("[{}{{}}]", "{},".repeat(999_999));
    let answer = standalone.ask(standalone.ingest(JSON, million)).await;
    refused(&answer, 413, "too_many_events", "a million events in one body");
    a_neighbour_is_taken(&standalone, "a million events").await;

    let tiny = r#"{"source":"s","event_type":"t","payload":{}}"#;
    let body = vec![tiny; 10_000].join("\n");
    let total: u64 = crate::harness::setting("MCP_RUNTIME_TINY_EVENTS").map_or(200_000, |text| text.parse().expect("a number"));
    for _ in 0..total / 10_000 {
        let answer = standalone.ask(standalone.ingest("application/x-ndjson", body.clone())).await;
        assert_eq!(answer.taken(), Some((10_000, 0)), "{answer:?}");
    }
    standalone.counts(total / 10_000 * 10_000 + 1, "tiny events").await;
    let peak = standalone.memory_peak();
    assert!(peak < MEMORY_MAX, "the process grew to {} MiB", peak >> 20);
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_http_and_bodies_that_never_end_harm_nobody() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let head = |more: &str| {
        format!(
            "POST /events HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n{more}\r\n",
            standalone.key
        )
    };
    let long_header = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "y".repeat(2 << 20));
    for (what, sent) in [
        ("no HTTP", "\u{16}\u{3}\u{1} hello\r\n\r\n".to_owned()),
        ("a header of two megabytes", long_header),
        ("two lengths", head("content-length: 2\r\ncontent-length: 3\r\n")),
        (
            "a length and chunks",
            format!(
                "{}2\r\n[]\r\n0\r\n\r\n",
                head("content-length: 2\r\ntransfer-encoding: chunked\r\n")
            ),
        ),
        (
            "a chunk size that is none",
            format!("{}zz\r\n", head("transfer-encoding: chunked\r\n")),
        ),
    ] {
        let answer = raw(&standalone, sent.as_bytes()).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        // RFC 9112 lets the chunks win over a length; then the two bytes in them, an empty list, are what was sent.
        let taken_as_chunks = what == "a length and chunks" && status == Some(202) && answer.contains("\"accepted\":0");
        assert!(
            taken_as_chunks || status.is_none_or(|status| (400..500).contains(&status)),
            "{what}: {answer:.200}"
        );
        a_neighbour_is_taken(&standalone, what).await;
    }
    // Half a body each, held open: others are served meanwhile.
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(&standalone).await;
        stream
            .write_all(format!("{}[{{\"source\":", head("content-length: 1000\r\n")).as_bytes())
            .await
            .expect("sending");
        open.push(stream);
    }
    a_neighbour_is_taken(&standalone, "a hundred half bodies").await;
    drop(open);
    a_neighbour_is_taken(&standalone, "a hundred broken connections").await;
    standalone.counts(7, "valid neighbours").await;
    standalone.stop().await;
}

async fn connect(standalone: &Standalone) -> TcpStream {
    TcpStream::connect(standalone.url.trim_start_matches("http://"))
        .await
        .expect("a connection")
}

/// Sends bytes and reads what comes back, until the other end closes.
async fn raw(standalone: &Standalone, bytes: &[u8]) -> String {
    let mut stream = connect(standalone).await;
    // Who is refused early may not be able to send the rest.
    stream.write_all(bytes).await.ok();
    stream.shutdown().await.ok();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
    assert!(
        read.is_ok(),
        "the connection stayed open after {:.100}",
        String::from_utf8_lossy(bytes)
    );
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_sent_a_thousand_times_counts_once() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let event = event("again");
    let body = json!(vec![&event; 100]).to_string();
    for _ in 0..10 {
        let answer = standalone.ask(standalone.ingest(JSON, body.clone())).await;
        let (accepted, duplicates) = answer.taken().unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(accepted + duplicates, 100, "{answer:?}");
    }
    a_neighbour_is_taken(&standalone, "a thousand repeats").await;
    standalone.counts(2, "the event and its neighbour").await;
    assert_eq!(standalone.number("select sum(events) from calls_hourly").await, 2);
    standalone.stop().await;
}
