//! Streams that are resumed, cancelled, or read slowly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::Outcome;
use futures::FutureExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{Body, Setup, channel, full, soon, until, whole};

fn sse(body: Body) -> Response<Body> {
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(body)
        .unwrap()
}

/// A server that keeps what it was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Question>>>);

/// Method, the id to go on from, and the message.
type Question = (Method, Option<String>, Value);

impl Asked {
    async fn note(&self, request: Request<Incoming>) -> Question {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let last = head.headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
        let asked = (head.method, last, serde_json::from_slice(&body).unwrap_or_default());
        self.0.lock().unwrap().push(asked.clone());
        asked
    }

    fn all(&self) -> Vec<Question> {
        self.0.lock().unwrap().clone()
    }
}

fn request(setup: &Setup, method: Method, body: &str) -> Request<Full<Bytes>> {
    let mut request = setup.request(method, body.to_owned());
    request.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
    request
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"long"}}"#;

#[tokio::test]
async fn a_client_goes_on_where_its_stream_ended() {
    let asked = Asked::default();
    let server = asked.clone();
    let setup = Setup::new(move |request| {
        let server = server.clone();
        async move {
            match server.note(request).await {
                (Method::GET, Some(last), _) => {
                    let rest = format!("id: {last}-next\ndata: {{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{{}}}}\n\n");
                    sse(full(rest))
                }
                _ => sse(full("id: e-1\nretry: 10\ndata:\n\n")),
            }
        }
        .boxed()
    });
    let first = whole(setup.send(request(&setup, Method::POST, CALL)).await).await;
    assert_eq!(
        first.body().as_ref(),
        b"id: e-1\nretry: 10\ndata:\n\n",
        "nothing is added to a stream that goes on"
    );
    let mut again = request(&setup, Method::GET, "");
    again.headers_mut().insert("last-event-id", "e-1".parse().unwrap());
    let rest = whole(setup.send(again).await).await;
    assert!(rest.body().starts_with(b"id: e-1-next\n"), "{:?}", rest.body());
    assert_eq!(asked.all()[1].1.as_deref(), Some("e-1"));
    let events = setup.events(2).await;
    assert_eq!(events[0].payload.attributes["answer"], "elsewhere");
    assert_eq!(events[1].event_type, "mcp.stream");
}

#[tokio::test]
async fn a_legacy_client_cancels_by_a_message_and_the_server_gets_it_at_once() {
    let asked = Asked::default();
    let server = asked.clone();
    let (sender, body) = channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let setup = Setup::new(move |request| {
        let (server, body) = (server.clone(), Arc::clone(&body));
        async move {
            let (_, _, message) = server.note(request).await;
            if message["method"] == "tools/call" {
                return sse(body.lock().unwrap().take().unwrap());
            }
            Response::builder().status(202).body(full("")).unwrap()
        }
        .boxed()
    });
    let mut call = request(&setup, Method::POST, CALL);
    call.headers_mut()
        .insert("mcp-protocol-version", "2025-11-25".parse().unwrap());
    let open = setup.send(call).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    let answer = setup.send(request(&setup, Method::POST, &cancel.to_string())).await;
    assert_eq!(answer.status(), 202);
    assert_eq!(asked.all()[1].2, cancel, "while the call is still open");
    // Servers end the stream of a cancelled call without an answer.
    drop(sender);
    drop(whole(open).await);
    let events = setup.events(2).await;
    let call = events
        .iter()
        .find(|event| event.payload.rpc_method.as_deref() == Some("tools/call"));
    assert_eq!(call.unwrap().payload.outcome, Some(Outcome::Cancelled));
}

#[tokio::test]
async fn a_modern_client_cancels_by_leaving_and_the_server_sees_it_leave() {
    let (sender, body) = channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let setup = Setup::new(move |_request| {
        let body = Arc::clone(&body);
        async move { sse(body.lock().unwrap().take().unwrap()) }.boxed()
    });
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": "long", "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    }});
    let mut call = setup.request(Method::POST, message.to_string());
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "long"),
    ] {
        call.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut open = setup.send(call).await;
    sender.send(Ok(Bytes::from_static(b": begun\n\n"))).await.unwrap();
    let first = soon("the first bytes", open.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), ": begun\n\n");
    drop(open);
    soon("the server's end of it", sender.closed()).await;
    assert_eq!(setup.event().await.payload.outcome, Some(Outcome::Cancelled));
}

#[tokio::test]
async fn a_server_writes_no_faster_than_its_client_reads() {
    const PIECE_BYTES: usize = 64 << 10;
    const PIECES: usize = 1_024;
    let sent = Arc::new(AtomicUsize::new(0));
    let (sender, body) = channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let setup = Setup::new(move |_request| {
        let body = Arc::clone(&body);
        async move { sse(body.lock().unwrap().take().unwrap()) }.boxed()
    });
    let count = Arc::clone(&sent);
    let piece = Bytes::from(format!(": {}\n\n", "x".repeat(PIECE_BYTES - 4)));
    let write = async move {
        for _ in 0..PIECES {
            sender.send(Ok(piece.clone())).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
        drop(sender);
    };
    let read = async {
        let mut response = setup.send(setup.request(Method::POST, CALL)).await;
        // Nobody reads: what is on the way fills up, and then the server waits.
        let stalled = until("the server to wait", stall(Arc::clone(&sent))).await;
        assert!(
            stalled < PIECES / 2,
            "{stalled} pieces of {PIECE_BYTES} bytes are held for a client that reads none"
        );
        let mut bytes = 0;
        while let Some(frame) = soon("the rest", response.body_mut().frame()).await {
            bytes += frame.unwrap().into_data().unwrap().len();
        }
        assert!(bytes >= PIECES * PIECE_BYTES, "{bytes}");
    };
    timeout(Duration::from_mins(2), async { tokio::join!(write, read) })
        .await
        .unwrap();
}

/// Tells the count once it has not grown for a while.
fn stall(sent: Arc<AtomicUsize>) -> impl FnMut() -> Result<usize, String> {
    const QUIET: Duration = Duration::from_secs(1);
    let mut last = (0, Instant::now());
    move || {
        let now = sent.load(Ordering::SeqCst);
        if now != last.0 || now == 0 {
            last = (now, Instant::now());
        }
        if last.1.elapsed() >= QUIET {
            Ok(now)
        } else {
            Err(format!("{now} pieces"))
        }
    }
}
