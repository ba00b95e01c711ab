//! What a request may cost before it is judged, and how one ends that is framed in two ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use gateway::{GatewayLimits, Recording};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Setup, json, soon};

/// What a connection answers to these bytes until it is closed.
async fn raw(setup: &Setup, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_framed_twice_smuggles_nothing() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let setup = Setup::new(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(!request.headers().contains_key("transfer-encoding"), "{request:?}");
            assert_eq!(request.headers()["content-length"], "2");
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "{}");
            json("{}")
        }
        .boxed()
    });
    for framing in [
        "content-length: 60\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 60",
    ] {
        let hidden = "POST /payments/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
        let request =
            format!("POST /payments/mcp HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{hidden}");
        let answer = raw(&setup, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 2, "what hid behind the body was asked for");
    let twice = b"POST /payments/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}";
    assert!(raw(&setup, twice).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_as_a_whole() {
    let limits = GatewayLimits {
        body_timeout: Duration::from_millis(30),
        ..GatewayLimits::default()
    };
    let setup = Setup::with(limits, |_| async { json("{}") }.boxed());
    let answer = raw(
        &setup,
        b"POST /payments/mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(setup.event().await.payload.reason.as_deref(), Some("body_too_slow"));
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let limits = GatewayLimits {
        bodies_bytes_max: 100_000,
        ..GatewayLimits::default()
    };
    let setup = Setup::with(limits, |_| async { json("{}") }.boxed());
    for (bytes, status) in [(99_000, 200), (200_000, 503), (99_000, 200)] {
        assert_eq!(setup.post(vec![b' '; bytes]).await.status(), status, "{bytes}");
    }
    let reasons: Vec<_> = setup
        .events(3)
        .await
        .into_iter()
        .map(|event| event.payload.reason.unwrap())
        .collect();
    assert_eq!(reasons, ["allowed", "bodies_too_large", "allowed"]);
}

#[tokio::test]
async fn a_server_may_ask_not_to_be_recorded() {
    let setup = Setup::new(|_| async { json("{}") }.boxed());
    let mut routes = setup.gateway.routes().routes();
    routes[0].recording = Recording::Off;
    setup.gateway.routes().replace(routes.clone()).unwrap();
    setup.post("{}").await;
    routes[0].recording = Recording::On;
    setup.gateway.routes().replace(routes).unwrap();
    setup.post("{}").await;
    setup.events(1).await;
}
