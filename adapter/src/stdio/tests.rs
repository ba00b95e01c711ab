//! The bridge against servers made of a few lines: what official servers never do, or do only sometimes.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;

use super::*;
use crate::config::Config;
use crate::session::{Session, SessionError, SessionSource, Sessions, secret};

const DEADLINE: Duration = Duration::from_mins(1);

/// What the server saw of a request.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Script = Box<dyn Fn(&Seen, usize) -> Response + Send + Sync>;

struct Server {
    script: Script,
    seen: Mutex<Vec<Seen>>,
}

async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let seen = Seen {
        method: head.method,
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let count = {
        let mut all = server.seen.lock().unwrap();
        all.push(seen.clone());
        all.len()
    };
    (server.script)(&seen, count)
}

struct Source(reqwest::Url);

impl SessionSource for Source {
    fn issue<'a>(&'a self, last: Option<&'a Session>) -> BoxFuture<'a, Result<Session, SessionError>> {
        let name = if last.is_some() { "second" } else { "first" };
        let headers = [("x-mcp-agent-id", "cursor"), ("x-mcp-agent-session", name)];
        let headers = headers.map(|(name, text)| (http::HeaderName::from_static(name), secret(text).unwrap()));
        Box::pin(async move {
            Ok(Session {
                endpoint: self.0.clone(),
                name: name.to_owned(),
                headers: headers.into_iter().collect(),
                expires_at: None,
            })
        })
    }

    fn end<'a>(&'a self, _session: &'a Session) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// A client on one end, a scripted server on the other.
struct Rig {
    input: Option<DuplexStream>,
    lines: tokio::io::Lines<BufReader<DuplexStream>>,
    server: Arc<Server>,
    done: tokio::task::JoinHandle<Result<(), StdioError>>,
    _running: service_kit::Running,
}

impl Rig {
    async fn start(config: StdioConfig, script: impl Fn(&Seen, usize) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
        let server = Arc::new(Server {
            script: Box::new(script),
            seen: Mutex::default(),
        });
        let app = Router::new().fallback(handle).with_state(Arc::clone(&server));
        let running = Tasks::for_test();
        let tasks = running.tasks();
        service_kit::http::serve(
            "scripted",
            listener,
            app,
            service_kit::http::HttpLimits::default(),
            &tasks,
            Stage::Admin,
        )
        .unwrap();
        let sessions = Sessions::new(Source(url), true, &tasks);
        let upstream = Upstream::new(sessions, Config::default(), &tasks).unwrap();
        let (input, theirs) = tokio::io::duplex(1 << 16);
        let (output, ours) = tokio::io::duplex(1 << 16);
        #[expect(clippy::disallowed_methods, reason = "the test holds the handle and awaits it")]
        let done = tokio::spawn(async move {
            let client = Lines { input: theirs, output };
            serve(upstream, config, client, std::future::pending(), &tasks).await
        });
        Self {
            input: Some(input),
            lines: BufReader::new(ours).lines(),
            server,
            done,
            _running: running,
        }
    }

    async fn send(&mut self, message: Value) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let line = timeout(DEADLINE, self.lines.next_line()).await;
        line.expect("no line in time").unwrap().expect("standard output ended")
    }

    async fn message(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.server.seen.lock().unwrap().clone()
    }

    async fn initialize(&mut self) {
        self.send(json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": { "protocolVersion": "2025-11-25" } }))
            .await;
        assert_eq!(self.message().await["result"]["protocolVersion"], "2025-11-25");
        self.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
    }

    async fn close(mut self) -> Vec<Seen> {
        drop(self.input.take());
        timeout(DEADLINE, &mut self.done).await.unwrap().unwrap().unwrap();
        self.seen()
    }
}

fn answer(status: u16, kind: &str, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(body.into())
        .unwrap()
}

fn result(seen: &Seen, result: &Value) -> Response {
    let body = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": result });
    let mut response = answer(200, "application/json", serde_json::to_string_pretty(&body).unwrap());
    if seen.body["method"] == "initialize" {
        response
            .headers_mut()
            .insert("mcp-session-id", HeaderValue::from_static("s-1"));
    }
    response
}

/// Answers the handshake as any server; `None` is for the test's own requests.
fn handshake(seen: &Seen) -> Option<Response> {
    match (seen.method.as_str(), seen.body["method"].as_str()) {
        ("POST", Some("initialize")) => Some(result(seen, &json!({ "protocolVersion": "2025-11-25" }))),
        ("POST", Some("notifications/initialized")) => Some(answer(202, "text/plain", "")),
        ("GET", _) => Some(answer(405, "text/plain", "")),
        ("DELETE", _) => Some(answer(204, "text/plain", "")),
        _ => None,
    }
}

#[tokio::test]
async fn the_older_era_has_its_session_on_every_request_and_ends_it_on_exit() {
    let mut rig = Rig::start(StdioConfig::default(), |seen, _| {
        handshake(seen).unwrap_or_else(|| result(seen, &json!({ "content": [], "n": 1.0 })))
    })
    .await;
    rig.initialize().await;
    rig.send(json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": { "name": "echo" } }))
        .await;
    let line = rig.line().await;
    assert!(line.contains(r#""n": 1.0"#) && line.contains(r#""id": "a""#), "{line}");
    let seen = rig.close().await;
    let call = seen.iter().find(|seen| seen.body["id"] == "a").unwrap();
    let told = [
        "mcp-session-id",
        "mcp-protocol-version",
        "x-mcp-agent-id",
        "x-mcp-agent-session",
        "mcp-method",
    ];
    assert_eq!(
        told.map(|name| call.header(name)),
        ["s-1", "2025-11-25", "cursor", "first", ""]
    );
    let last = seen.last().unwrap();
    assert_eq!((&last.method, last.header("mcp-session-id")), (&Method::DELETE, "s-1"));
}

#[tokio::test]
async fn a_forgotten_session_is_made_again_unnoticed() {
    let mut rig = Rig::start(StdioConfig::default(), |seen, count| match seen.body["method"].as_str() {
        Some("tools/call") if count < 6 => answer(
            404,
            "application/json",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#,
        ),
        _ => handshake(seen).unwrap_or_else(|| result(seen, &json!({}))),
    })
    .await;
    rig.initialize().await;
    rig.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo" } }))
        .await;
    assert_eq!(rig.message().await, json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    let seen = rig.close().await;
    let count = |method: &str| seen.iter().filter(|seen| seen.body["method"] == method).count();
    assert_eq!(
        (count("initialize"), count("notifications/initialized"), count("tools/call")),
        (2, 2, 2)
    );
}

#[tokio::test]
async fn an_error_without_an_id_reaches_whoever_asked() {
    let mut rig = Rig::start(StdioConfig::default(), |_, _| {
        answer(
            400,
            "application/json",
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no session"},"id":null}"#,
        )
    })
    .await;
    rig.send(json!({ "jsonrpc": "2.0", "id": "probe", "method": "server/discover", "params": {} }))
        .await;
    let told = rig.message().await;
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!("probe"), &json!(-32000)));
    rig.close().await;
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_after_its_last_event() {
    let mut rig = Rig::start(StdioConfig::default(), |seen, _| {
        if seen.header("last-event-id") == "7" {
            return answer(
                200,
                "text/event-stream",
                "id: 8\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":true}}\n\n",
            );
        }
        match seen.body["method"].as_str() {
            Some("tools/call") => answer(200, "text/event-stream", "id: 7\nretry: 10\ndata:\n\n"),
            _ => handshake(seen).unwrap_or_else(|| answer(500, "text/plain", "")),
        }
    })
    .await;
    rig.initialize().await;
    rig.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "slow" } }))
        .await;
    assert_eq!(rig.message().await["result"]["ok"], true);
    rig.close().await;
}

#[tokio::test]
async fn a_stream_cut_before_its_answer_is_told_and_the_call_is_not_repeated() {
    let mut rig = Rig::start(StdioConfig::default(), |_, _| answer(200, "text/event-stream", ": hello\n\n")).await;
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    rig.send(json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "pay", "_meta": meta } }))
        .await;
    let told = rig.message().await;
    assert_eq!((&told["id"], &told["error"]["data"]["reason"]), (&json!(5), &json!("broken")));
    let seen = rig.close().await;
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].header("mcp-method"), seen[0].header("mcp-name")),
        ("tools/call", "pay")
    );
    assert_eq!(seen[0].header("mcp-protocol-version"), "2026-07-28");
}

#[tokio::test]
async fn a_dead_session_is_replaced_once_and_the_refused_call_sent_again() {
    let mut rig = Rig::start(StdioConfig::default(), |seen, _| {
        if seen.header("x-mcp-agent-session") == "first" {
            let body = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "error": { "code": 403, "message": "", "data": { "reason": "session_expired" } } });
            return answer(200, "application/json", body.to_string());
        }
        result(seen, &json!({ "done": true }))
    })
    .await;
    rig.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo" } }))
        .await;
    assert_eq!(rig.message().await["result"]["done"], true);
    assert_eq!(rig.close().await.len(), 2);
}

#[tokio::test]
async fn headers_that_a_tool_asks_for_are_learnt_when_the_server_misses_them() {
    let mut rig = Rig::start(StdioConfig::default(), |seen, _| match seen.body["method"].as_str() {
        Some("tools/list") => result(
            seen,
            &json!({ "tools": [{ "name": "q", "inputSchema": { "properties": { "region": { "x-mcp-header": "Region" } } } }] }),
        ),
        _ if seen.header("mcp-param-region") == "eu" => result(seen, &json!({})),
        _ => answer(
            400,
            "application/json",
            json!({ "jsonrpc": "2.0", "id": seen.body["id"], "error": { "code": -32020, "message": "x" } }).to_string(),
        ),
    })
    .await;
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    rig.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "q", "arguments": { "region": "eu" }, "_meta": meta } }))
        .await;
    assert_eq!(rig.message().await["result"], json!({}));
    assert_eq!(rig.close().await.len(), 3);
}

#[tokio::test]
async fn a_list_of_tools_is_kept_until_the_server_says_it_changed() {
    let config = StdioConfig {
        tools_cache_ttl: Some(Duration::from_hours(1)),
        ..StdioConfig::default()
    };
    let mut rig = Rig::start(config, |seen, _| match seen.body["method"].as_str() {
        Some("tools/call") => answer(
            200,
            "text/event-stream",
            format!(
                "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}}\n\ndata: {}\n\n",
                json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": {} })
            ),
        ),
        _ => handshake(seen).unwrap_or_else(|| result(seen, &json!({ "tools": [] }))),
    })
    .await;
    rig.initialize().await;
    let mut ids: VecDeque<u32> = (1..=4).collect();
    let mut list = async |rig: &mut Rig| {
        rig.send(json!({ "jsonrpc": "2.0", "id": ids.pop_front(), "method": "tools/list" }))
            .await;
        assert_eq!(rig.message().await["result"]["tools"], json!([]));
    };
    list(&mut rig).await;
    list(&mut rig).await;
    rig.send(json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": { "name": "grow" } }))
        .await;
    assert_eq!(rig.message().await["method"], "notifications/tools/list_changed");
    assert_eq!(rig.message().await["id"], 9);
    list(&mut rig).await;
    let seen = rig.close().await;
    assert_eq!(seen.iter().filter(|seen| seen.body["method"] == "tools/list").count(), 2);
}

#[tokio::test]
async fn what_is_no_message_is_answered_and_spoils_nothing() {
    let config = StdioConfig {
        line_bytes_max: 200,
        ..StdioConfig::default()
    };
    let mut rig = Rig::start(config, |seen, _| result(seen, &json!({}))).await;
    for wrong in ["nonsense", "{\"jsonrpc\":\"2.0\"}", &"x".repeat(300)] {
        rig.input
            .as_mut()
            .unwrap()
            .write_all(format!("{wrong}\n").as_bytes())
            .await
            .unwrap();
    }
    let mut codes = Vec::new();
    for _ in 0..3 {
        let told = rig.message().await;
        assert_eq!(told["id"], Value::Null);
        codes.push(told["error"]["code"].as_i64().unwrap());
    }
    assert_eq!(codes, [-32700, -32600, -32600]);
    rig.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert_eq!(rig.message().await["id"], 1);
    rig.close().await;
}

#[tokio::test]
async fn anonymous_callers_may_use_the_named_methods_alone() {
    let config = StdioConfig {
        methods: Some(vec!["tools/list".to_owned()]),
        ..StdioConfig::default()
    };
    let mut rig = Rig::start(config, |seen, _| result(seen, &json!({}))).await;
    rig.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "x" } }))
        .await;
    assert_eq!(rig.message().await["error"]["code"], -32601);
    rig.send(json!({ "jsonrpc": "2.0", "method": "notifications/progress" }))
        .await;
    rig.send(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" })).await;
    assert_eq!(rig.message().await["id"], 2);
    assert_eq!(rig.close().await.len(), 1);
}

#[tokio::test]
async fn a_batch_is_answered_for_each_request_in_it() {
    let mut rig = Rig::start(StdioConfig::default(), |_, _| answer(502, "text/html", "<html>")).await;
    rig.send(json!([{ "id": 1, "method": "tools/call" }, { "id": 2, "method": "ping" }, { "method": "n" }]))
        .await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let told = rig.message().await;
        assert_eq!(told["error"]["code"], 502);
        ids.push(told["id"].as_i64().unwrap());
    }
    assert_eq!(ids, [1, 2]);
    rig.close().await;
}
