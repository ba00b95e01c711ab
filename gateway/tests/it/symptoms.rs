//! Faults that gateways of this kind had in the field, each as a test that it is not ours.

use std::time::Duration;

use bytes::Bytes;
use domain::policy::token_hash;
use futures::FutureExt as _;
use gateway::GatewayLimits;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::governed::{Governed, call, document};
use crate::support::{DEADLINE, Setup, channel, json as answer, soon, whole};

const ALICE: (&str, &str) = ("x-mcp-human-id", "alice");

fn governed(document: &Value) -> Governed {
    Governed::on(service_kit::Tasks::for_test(), GatewayLimits::default(), document)
}

fn reason(body: &Value) -> &str {
    body["error"]["data"]["reason"]
        .as_str()
        .or_else(|| body["error"].as_str())
        .unwrap_or("passed")
}

#[tokio::test]
async fn data_is_handed_out_without_identity_by_other_methods_than_tool_calls() {
    let governed = governed(&document());
    for (method, params) in [
        ("tools/call", json!({"name": "list"})),
        ("call_tool", json!({"name": "list"})),
        ("resources/read", json!({"uri": "file:///a"})),
        ("resources/subscribe", json!({"uri": "file:///a"})),
        ("prompts/get", json!({"name": "p"})),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "p"}})),
        ("tasks/get", json!({"taskId": "t"})),
        ("tasks/result", json!({"taskId": "t"})),
        ("vendor/anything", json!({})),
    ] {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let (status, _, body) = governed.post(&[], message.clone()).await;
        assert_eq!((status, reason(&body)), (401, "missing_identity"), "{method}");
        if method.starts_with("tasks/") || method.starts_with("vendor/") {
            // Whoever is known may ask for its tasks, and for what hands out nothing that we know of.
            continue;
        }
        let (_, _, body) = governed.post(&[("x-mcp-human-id", "bob")], message).await;
        assert_ne!(reason(&body), "passed", "{method} of somebody without a grant");
    }
    assert_eq!(governed.asked(), 0);
}

#[tokio::test]
async fn other_http_methods_pass_unjudged() {
    let governed = governed(&document());
    for method in ["PUT", "PATCH", "HEAD", "TRACE", "CONNECT", "QUERY", "post", "TOOLS"] {
        let mut request = governed.request(&[ALICE], call("refund"));
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        if method == "CONNECT" {
            // The client library makes a tunnel of it.
            continue;
        }
        let response = governed.setup.send(request).await;
        assert_eq!(response.status(), 405, "{method}");
        assert!(response.headers().contains_key("allow"), "{method}");
    }
    assert_eq!(governed.asked(), 0);
}

#[tokio::test]
async fn an_upgrade_opens_a_tunnel_past_the_policy() {
    let setup = Setup::new(|request| {
        let is_asked = request.headers().contains_key("upgrade") || request.headers().contains_key("sec-websocket-protocol");
        async move { answer(format!(r#"{{"upgrade":{is_asked}}}"#)) }.boxed()
    });
    let mut stream = TcpStream::connect(setup.address).await.unwrap();
    let request = "GET /payments/mcp HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    soon("the end", stream.read_to_string(&mut said)).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(
        said.ends_with("{\"upgrade\":false}") || said.contains("\"upgrade\":false"),
        "{said}"
    );
}

#[tokio::test]
async fn a_name_that_a_caller_gives_itself_switches_recording_off() {
    let governed = governed(&document());
    for agent in ["mcp-runtime-live-inventory", "healthcheck", "internal", "kube-probe/1.33"] {
        let (status, ..) = governed
            .post(&[ALICE, ("x-mcp-agent-id", agent), ("user-agent", agent)], call("list"))
            .await;
        assert_eq!(status, 200);
        assert_eq!(governed.setup.event().await.payload.agent_id.as_deref(), Some(agent));
    }
}

#[tokio::test]
async fn a_dead_session_counts_as_none_where_none_is_required() {
    let mut dead = document();
    dead["session"] = json!({"required": false});
    dead["sessions"] = json!([
        {"name": "gone", "human_id": "alice", "consented_trust": "low", "revoked": true, "token_hash": token_hash("gone")},
        {"name": "over", "human_id": "alice", "consented_trust": "low", "expires_at": "2020-01-01T00:00:00Z", "token_hash": token_hash("over")},
        {"name": "odd", "human_id": "alice", "consented_trust": "low", "expires_at": "tomorrow", "token_hash": token_hash("odd")},
    ]);
    let (document, _faults) = domain::policy::Document::parse(dead.to_string().as_bytes()).unwrap();
    let governed = governed(&crate::governed::document());
    governed.setup.gateway.routes().routes()[0].policy.apply(document);
    for token in ["gone", "over", "odd"] {
        let (status, _, body) = governed.post(&[ALICE, ("x-mcp-agent-session", token)], call("list")).await;
        assert_eq!(status, 401, "{token}: {body}");
    }
    assert_eq!(governed.post(&[ALICE], call("list")).await.0, 200, "without any, she may");
    assert_eq!(governed.asked(), 1);
}

#[tokio::test]
async fn mode_none_believes_headers() {
    let mut open = document();
    open["auth"] = json!({"mode": "none"});
    let governed = governed(&open);
    let (_, _, body) = governed.post(&[ALICE], call("list")).await;
    assert_eq!(reason(&body), "no_matching_grant", "she is nobody here");
    assert_eq!(governed.setup.event().await.payload.human_id, None);
}

#[tokio::test]
async fn strangers_make_the_gateway_read_their_bodies() {
    let mut proven = document();
    proven["auth"] = json!({"mode": "mtls", "trust_domain": "prod.example"});
    let governed = governed(&proven);
    let mut stream = TcpStream::connect(governed.setup.address).await.unwrap();
    let head =
        "POST /payments/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // Not one byte of the body was sent, and yet:
    let mut said = [0; 12];
    soon("the refusal", stream.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 401");
}

#[tokio::test]
async fn operational_pages_are_on_the_port_of_clients() {
    let governed = governed(&document());
    for path in ["/metrics", "/config/status", "/debug/pprof", "/"] {
        let mut request = governed.setup.request(Method::GET, "");
        *request.uri_mut() = format!("http://{}{path}", governed.setup.address).parse().unwrap();
        assert_eq!(governed.setup.send(request).await.status(), 404, "{path}");
    }
    assert_eq!(governed.asked(), 0);
}

#[tokio::test]
async fn the_client_cannot_answer_what_the_server_asks() {
    let governed = governed(&document());
    for message in [
        json!({"jsonrpc": "2.0", "id": "s-1", "result": {"role": "assistant", "content": {"type": "text", "text": "hi"}}}),
        json!({"jsonrpc": "2.0", "id": 2, "result": {"action": "decline"}}),
        json!({"jsonrpc": "2.0", "id": 3, "error": {"code": -1, "message": "not now"}}),
        json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}),
    ] {
        let (status, _, body) = governed.post(&[ALICE], message.to_string()).await;
        assert_eq!((status, reason(&body)), (200, "passed"), "{message}");
    }
    assert_eq!(governed.asked(), 4);
}

#[tokio::test]
async fn streams_end_after_a_fixed_time() {
    let limits = GatewayLimits {
        upstream_idle_timeout: Duration::from_millis(300),
        ..GatewayLimits::default()
    };
    let (sender, body) = channel();
    let body = std::sync::Arc::new(std::sync::Mutex::new(Some(body)));
    let setup = Setup::with(limits, move |request| {
        let body = std::sync::Arc::clone(&body);
        async move {
            if request.method() == Method::POST {
                return std::future::pending().await;
            }
            let body = body.lock().unwrap().take().unwrap();
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .unwrap()
        }
        .boxed()
    });
    let mut open = setup.send(setup.request(Method::GET, "")).await;
    // A server that owes an answer is given up in the meantime, so more than that time has gone by.
    for _ in 0..2 {
        let late = setup.send(setup.request(Method::POST, call("list"))).await;
        assert_eq!(late.status(), 504);
        drop(whole(late).await);
    }
    sender.send(Ok(Bytes::from_static(b": still here\n\n"))).await.unwrap();
    let frame = tokio::time::timeout(DEADLINE, open.body_mut().frame()).await.unwrap();
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), ": still here\n\n");
}
