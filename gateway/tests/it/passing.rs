//! Bytes pass unchanged and at once, whoever goes away first is noticed, and each request is recorded once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::{Decision, Outcome, ResponseKind};
use futures::FutureExt as _;
use gateway::{CallerRules, GatewayLimits};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use service_kit::Tasks;
use tokio::sync::Notify;

use crate::support::{Body, Setup, answer, channel, full, json, soon, until, upstream, whole};

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"refund","arguments":{"a":1}}}"#;

fn sse(body: Body) -> Response<Body> {
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(body)
        .unwrap()
}

async fn next_data(body: &mut Incoming) -> Bytes {
    soon("a piece of the answer", body.frame())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap()
}

#[tokio::test]
async fn headers_are_cleaned_and_completed_on_the_way() {
    let seen = Arc::new(Mutex::new((HeaderMap::new(), String::new())));
    let noted = Arc::clone(&seen);
    let setup = Setup::new(move |request| {
        *noted.lock().unwrap() = (request.headers().clone(), request.uri().to_string());
        let mut response = json("{}");
        response.headers_mut().insert("x-answer", "yes".parse().unwrap());
        response.headers_mut().insert("connection", "x-hop".parse().unwrap());
        response.headers_mut().insert("x-hop", "1".parse().unwrap());
        async { response }.boxed()
    });
    let mut request = setup.request(Method::POST, CALL);
    *request.uri_mut() = format!("http://{}/payments/mcp/more?q=%2F1", setup.address).parse().unwrap();
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("accept-encoding", "gzip"),
        ("mcp-session-id", "s-1"),
        ("x-mcp-human-id", "h-7"),
        ("x-forwarded-for", "10.0.0.1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = setup.send(request).await;
    assert_eq!(response.headers()["x-answer"], "yes");
    assert!(!response.headers().contains_key("x-hop"), "{:?}", response.headers());
    drop(whole(response).await);
    let (headers, uri) = seen.lock().unwrap().clone();
    assert_eq!(uri, "/mcp/more?q=%2F1");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(headers["accept-encoding"], "identity");
    assert_eq!(headers["mcp-session-id"], "s-1");
    assert_eq!(headers["x-mcp-human-id"], "h-7");
    assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 127.0.0.1");
    assert_eq!(headers["x-forwarded-host"], setup.address.to_string());
    assert_ne!(headers["host"], setup.address.to_string());
    let traceparent = headers["traceparent"].to_str().unwrap();
    assert!(
        traceparent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && traceparent.ends_with("-03"),
        "{traceparent}"
    );
    let event = setup.event().await;
    assert_eq!(event.parent_span_id.unwrap().to_string(), "b7ad6b7169203331");
    assert_eq!(event.payload.path.as_deref(), Some("/payments/mcp/more"));
    let session = event.payload.session_id.unwrap();
    assert!(session.len() == 32 && !session.contains("s-1"), "{session}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_body_in_any_pieces_passes_unchanged_both_ways() {
    let setup = Setup::new(|request: Request<Incoming>| {
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (sender, answer) = channel();
            let pieces: Vec<_> = body.chunks(body.len() / 3 + 1).map(Bytes::copy_from_slice).collect();
            // The channel holds four, and there are three at most.
            for piece in pieces {
                sender.send(Ok(piece)).await.unwrap();
            }
            Response::builder()
                .header("content-type", "application/json")
                .body(answer)
                .unwrap()
        }
        .boxed()
    });
    let handle = tokio::runtime::Handle::current();
    let (setup, failure) = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config {
            cases: 64,
            ..Config::default()
        });
        let result = runner.run(&prop::collection::vec(any::<u8>(), 0..200_000), |body| {
            let response = handle.block_on(setup.post(body.clone()));
            prop_assert!(
                response.body() == &body,
                "{} bytes came back as {}",
                body.len(),
                response.body().len()
            );
            Ok(())
        });
        (setup, result.err())
    })
    .await
    .unwrap();
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(setup.recorder.drain(1_000).len(), 64);
}

#[tokio::test]
async fn the_first_event_passes_before_the_second_is_made() {
    let (sender, body) = channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let setup = Setup::new(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { sse(body) }.boxed()
    });
    let response = setup.send(setup.request(Method::POST, CALL)).await;
    let mut answer = response.into_body();
    let progress = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    sender.send(Ok(progress.into())).await.unwrap();
    assert_eq!(next_data(&mut answer).await, progress);
    let last = "data: {\"result\":{\"isError\":true},\"jsonrpc\":\"2.0\",\"id\":7}\r\n\r\n";
    sender.send(Ok(last.into())).await.unwrap();
    assert_eq!(next_data(&mut answer).await, last);
    drop(sender);
    assert!(soon("the end", answer.frame()).await.is_none());
    let payload = setup.event().await.payload;
    assert_eq!(payload.outcome, Some(Outcome::ToolError));
    assert_eq!((payload.sse_events, payload.progress_count), (Some(2), Some(1)));
    assert_eq!(payload.bytes_out, Some((progress.len() + last.len()) as u64));
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_for_the_open_request() {
    let (sender, body) = channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let setup = Setup::new(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { sse(body) }.boxed()
    });
    let response = setup.send(setup.request(Method::POST, CALL)).await;
    sender.send(Ok("data: {\"method\":\"notifi".into())).await.unwrap();
    let mut answer = response.into_body();
    let first = next_data(&mut answer).await;
    sender.send(Err(std::io::Error::other("gone"))).await.unwrap();
    let rest = soon("the end", answer.collect()).await.unwrap().to_bytes();
    let text = String::from_utf8([first, rest].concat()).unwrap();
    let last = text.rsplit("data: ").next().unwrap();
    let error: serde_json::Value = serde_json::from_str(last.trim()).unwrap();
    assert!(
        text.contains("\n\nevent: message\ndata: ") && text.ends_with("\n\n"),
        "{text}"
    );
    assert_eq!(
        (&error["id"], &error["error"]["data"]["reason"]),
        (&7.into(), &"upstream_broken".into())
    );
    let payload = setup.event().await.payload;
    assert_eq!(payload.outcome, Some(Outcome::TransportError));
    assert_eq!(payload.error_type.as_deref(), Some("upstream_broken"));
}

#[tokio::test]
async fn a_stream_that_ends_to_be_resumed_is_left_as_it_is() {
    let stream = "id: 1\ndata:\n\n";
    let setup = Setup::new(move |_| async move { sse(full(stream)) }.boxed());
    let response = setup.post(CALL).await;
    assert_eq!(response.body(), stream);
    let payload = setup.event().await.payload;
    assert_eq!(
        (payload.outcome, payload.attributes["answer"].as_str()),
        (Some(Outcome::Ok), "elsewhere")
    );
}

#[tokio::test]
async fn a_hang_up_reaches_the_server_and_is_recorded() {
    for waiting_for_head in [true, false] {
        let (entered, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (enter, drops) = (Arc::clone(&entered), Arc::clone(&dropped));
        let setup = Setup::new(move |_| {
            let (enter, drops) = (Arc::clone(&enter), NotifyWhenDropped(Arc::clone(&drops)));
            async move {
                enter.notify_one();
                if waiting_for_head {
                    // `drops` lives as long as this future.
                    std::future::pending::<()>().await;
                }
                let (sender, body) = channel();
                let held = futures::stream::once(async move {
                    let _held = (sender, drops);
                    std::future::pending::<Result<hyper::body::Frame<Bytes>, std::io::Error>>().await
                });
                drop(body);
                sse(http_body_util::StreamBody::new(held).boxed_unsync())
            }
            .boxed()
        });
        let request = setup.client.request(setup.request(Method::POST, CALL));
        if waiting_for_head {
            let mut request = Box::pin(request);
            soon("entering", async {
                tokio::select! {
                    _ = &mut request => panic!("answered"),
                    () = entered.notified() => {}
                }
            })
            .await;
            drop(request);
        } else {
            drop(soon("the head", request).await.unwrap());
        }
        soon("the server to notice", dropped.notified()).await;
        let payload = setup.event().await.payload;
        assert_eq!(payload.outcome, Some(Outcome::Cancelled), "{payload:?}");
        assert_eq!(payload.error_type.as_deref(), Some("client_disconnected"));
        assert_eq!(setup.gateway.in_flight(), 0);
    }
}

struct NotifyWhenDropped(Arc<Notify>);

impl Drop for NotifyWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_told_in_the_words_of_the_caller() {
    let running = Tasks::for_test();
    let taken = service_kit::http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let setup = Setup::before(running, GatewayLimits::default(), address);
    let response = setup
        .post(r#"{"jsonrpc":"2.0","id":"a\u0062","method":"tools/call","params":{"name":"x"}}"#)
        .await;
    assert_eq!(response.status(), 502);
    assert!(
        response
            .body()
            .starts_with(br#"{"jsonrpc":"2.0","id":"a\u0062","error":{"code":502,"#),
        "{response:?}"
    );
    let response = setup.post("no json").await;
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        (response.status().as_u16(), &problem["error"]),
        (502, &"upstream_unreachable".into())
    );
    for event in setup.events(2).await {
        assert_eq!(event.payload.outcome, Some(Outcome::TransportError));
        assert_eq!(event.payload.error_type.as_deref(), Some("upstream_unreachable"));
        assert_eq!(event.payload.decision, Some(Decision::Allow));
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_idle_time() {
    let limits = GatewayLimits {
        upstream_idle_timeout: Duration::from_millis(30),
        ..GatewayLimits::default()
    };
    let setup = Setup::with(limits, |_| std::future::pending().boxed());
    assert_eq!(setup.post(CALL).await.status(), 504);
    assert_eq!(setup.event().await.payload.error_type.as_deref(), Some("timeout"));
}

#[tokio::test]
async fn what_exceeds_the_bounds_is_refused_and_recorded() {
    let limits = GatewayLimits {
        body_bytes_max: 1_000,
        callers: CallerRules {
            loopback_only: true,
            ..CallerRules::default()
        },
        ..GatewayLimits::default()
    };
    let setup = Setup::with(limits, |_| async { json("{}") }.boxed());
    assert_eq!(setup.post(vec![b' '; 1_001]).await.status(), 413);
    assert_eq!(setup.post(vec![b' '; 1_000]).await.status(), 200);
    let mut request = setup.request(Method::POST, CALL);
    request.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(setup.send(request).await.status(), 403);
    let mut request = setup.request(Method::POST, CALL);
    request
        .headers_mut()
        .insert("origin", "https://evil.example".parse().unwrap());
    assert_eq!(setup.send(request).await.status(), 403);
    let response = setup.send(setup.request(Method::PUT, CALL)).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"POST, GET, DELETE, OPTIONS".parse().unwrap())
    );
    let events = setup.events(5).await;
    let reasons: Vec<_> = events.iter().map(|event| event.payload.reason.as_deref().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "body_too_large",
            "allowed",
            "host_not_allowed",
            "origin_not_allowed",
            "method_not_allowed"
        ]
    );
    assert_eq!(
        events
            .iter()
            .filter(|event| event.payload.outcome == Some(Outcome::Denied))
            .count(),
        4
    );
}

#[tokio::test]
async fn paths_of_no_server_say_where_servers_are() {
    let setup = Setup::new(|_| async { json("{}") }.boxed());
    for (path, status) in [
        ("/live", 200),
        ("/ready", 200),
        ("/other/mcp", 404),
        ("/payments", 404),
        ("/payments/mcp/ready", 200),
    ] {
        let mut request = setup.request(Method::GET, "");
        *request.uri_mut() = format!("http://{}{path}", setup.address).parse().unwrap();
        let response = whole(setup.send(request).await).await;
        assert_eq!(response.status(), status, "{path}");
        if status == 404 {
            assert!(
                String::from_utf8_lossy(response.body()).contains("/<server>/mcp"),
                "{response:?}"
            );
        }
    }
    assert_eq!(setup.event().await.payload.path.as_deref(), Some("/payments/mcp/ready"));
}

#[tokio::test]
async fn a_large_answer_passes_in_constant_memory() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 1_640;
    let setup = Setup::new(|_| {
        let frames = futures::stream::unfold(0, |sent| async move {
            let piece = match sent {
                0 => Bytes::from_static(br#"{"result":{"content":[{"type":"text","text":""#),
                PIECES => Bytes::from_static(br#""}],"isError":true},"jsonrpc":"2.0","id":7}"#),
                _ if sent > PIECES => return None,
                _ => Bytes::from(vec![b'x'; PIECE]),
            };
            Some((Ok::<_, std::io::Error>(hyper::body::Frame::data(piece)), sent + 1))
        });
        let body = http_body_util::StreamBody::new(frames).boxed_unsync();
        async {
            Response::builder()
                .header("content-type", "application/json")
                .body(body)
                .unwrap()
        }
        .boxed()
    });
    let before = resident_bytes();
    let mut answer = setup.send(setup.request(Method::POST, CALL)).await.into_body();
    let (mut bytes, mut grown) = (0, 0);
    while let Some(frame) = soon("a piece", answer.frame()).await {
        bytes += frame.unwrap().into_data().unwrap().len();
        grown = grown.max(resident_bytes().saturating_sub(before));
    }
    assert!(bytes > 100 << 20, "{bytes}");
    assert!(grown < 40 << 20, "grown by {grown} bytes");
    assert_eq!(setup.event().await.payload.outcome, Some(Outcome::ToolError));
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4_096
}

#[tokio::test]
async fn an_encoded_answer_passes_unread() {
    let setup = Setup::new(|_| {
        let mut response = answer(200, "application/json", &b"\x1f\x8b not for us"[..]);
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        async { response }.boxed()
    });
    let response = setup.post(CALL).await;
    assert_eq!(
        (&response.headers()["content-encoding"], &response.body()[..]),
        (&"gzip".parse().unwrap(), &b"\x1f\x8b not for us"[..])
    );
    let payload = setup.event().await.payload;
    assert_eq!(
        (payload.outcome, payload.response_kind),
        (Some(Outcome::Ok), Some(ResponseKind::Json))
    );
    assert_eq!(payload.attributes["answer"], "unread");
}

#[tokio::test]
async fn open_streams_end_when_the_process_stops() {
    let setup = Setup::new(|_| {
        let (sender, body) = channel();
        // Open for as long as the test runs.
        std::mem::forget(sender);
        async { sse(body) }.boxed()
    });
    let response = setup.send(setup.request(Method::GET, "")).await;
    assert_eq!(response.status(), 200);
    let reading = whole(response);
    let (answer, report) = soon("stopping", async { tokio::join!(reading, setup.running.stop()) }).await;
    assert!(answer.body().is_empty());
    assert!(!report.late.iter().any(|late| late.task.contains("gateway")), "{report:?}");
    let events = setup.recorder.drain(10);
    assert_eq!(
        (events.len(), events[0].event_type.as_str(), events[0].payload.outcome),
        (1, "mcp.stream", Some(Outcome::Ok))
    );
}

#[tokio::test]
async fn routes_change_while_requests_pass() {
    let setup = Setup::new(|_| async { json("{}") }.boxed());
    let other = upstream(&setup.running.tasks(), |_| async { json("[]") }.boxed());
    assert_eq!(setup.post(CALL).await.body(), "{}");
    let route = gateway::Route::new("other", "acme", format!("http://{other}").parse().unwrap()).at("payments");
    setup.gateway.routes().replace(vec![route]).unwrap();
    assert_eq!(setup.post(CALL).await.body(), "[]");
    let events = setup.events(2).await;
    assert_eq!((events[0].server(), events[1].server()), ("payments", "other"));
}

#[tokio::test]
async fn metrics_count_what_passed() {
    let setup = Setup::new(|_| async { json(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#) }.boxed());
    drop(setup.post(CALL).await);
    setup.event().await;
    let line = r#"mcp_gateway_requests_total{namespace="acme",server="payments",method="POST",rpc_method="tools/call",decision="allow",outcome="ok",status="2xx"} 1"#;
    until("the metric", || {
        let text = setup.running.tasks().metrics().encode().unwrap();
        if text.lines().any(|found| found == line) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
}
