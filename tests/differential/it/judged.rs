//! The gateway's side: what it judged, and what reached the server.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::policy::Document;
use gateway::{Gateway, GatewayLimits, Recorder, RecorderLimits, Route, RouteTable};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use service_kit::http::{HttpLimits, bind, serve_with};
use service_kit::{Running, Stage, Tasks};

use crate::corpus::{self, Case};
use crate::readers;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DEADLINE: Duration = Duration::from_mins(1);

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// A gateway, and a server that keeps what it is sent.
struct Setup {
    _running: Running,
    recorder: Recorder,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Bytes>>>,
    client: Client<HttpConnector, Body>,
}

/// What the gateway judged a body to be that it let pass.
struct Judged {
    method: String,
    tool: Option<String>,
}

/// Alice may call `list`, and `read_file` of one path.
fn policy() -> Document {
    let document = json!({
        "schema_version": "v1",
        "server": {"name": "files", "namespace": "acme"},
        "policy": {"mode": "allow-list", "others": "deny"},
        "tools": [{"name": "list", "side_effect": "read"}, {"name": "read_file", "side_effect": "read"}],
        "grants": [{
            "name": "alice", "human_id": "alice", "max_trust": "high", "allowed_side_effects": ["read"],
            "tool_rules": [{"name": "list"}, {"name": "read_file", "when": "arguments.path == \"/safe\""}],
        }],
    });
    let (document, faults) = Document::parse(document.to_string().as_bytes()).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    document
}

impl Setup {
    fn new() -> Self {
        let running = Tasks::for_test();
        let tasks = running.tasks();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let make = move |_peer| {
            let keep = Arc::clone(&keep);
            service_fn(move |request: Request<Incoming>| {
                let keep = Arc::clone(&keep);
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    keep.lock().unwrap().push(body);
                    let answer = Full::new(Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
                    let response = Response::builder().header("content-type", "application/json");
                    Ok::<_, hyper::Error>(response.body(answer).unwrap())
                }
            })
        };
        let limits = HttpLimits::default();
        let server = serve_with("server", bind(LOCAL).unwrap(), make, limits, &tasks, Stage::Query).unwrap();
        let route = Route::new("files", "acme", format!("http://{server}/mcp").parse().unwrap()).at("files");
        route.policy.apply(policy());
        let recorder = Recorder::new(RecorderLimits::default());
        let table = RouteTable::new(vec![route]).unwrap();
        let gateway = Gateway::new(table, recorder.clone(), GatewayLimits::default(), &tasks);
        Self {
            address: gateway::listen(&gateway, bind(LOCAL).unwrap(), &tasks).unwrap(),
            _running: running,
            recorder,
            seen,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// What it was judged to be, if it reached the server; and then it did so byte by byte.
    async fn send(&self, case: &Case) -> Option<Judged> {
        let response = tokio::time::timeout(DEADLINE, self.client.request(self.request(case))).await;
        let response = response.expect("an answer in time").expect("an answer");
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        let mut events = Vec::new();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while events.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "{}: no event; {answer:?}", case.name);
            events = self.recorder.drain(10);
            tokio::task::yield_now().await;
        }
        assert_eq!(events.len(), 1, "{}: each body is one event", case.name);
        let payload = events.remove(0).payload;
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let [body] = seen.as_slice() else {
            assert!(seen.is_empty(), "{}: sent more than once", case.name);
            return None;
        };
        assert!(*body == case.body, "{}: it was changed on the way", case.name);
        Some(Judged {
            method: payload.rpc_method.expect("a method was judged"),
            tool: payload.tool_name,
        })
    }

    fn request(&self, case: &Case) -> Request<Body> {
        let mut request = Request::post(format!("http://{}/files/mcp", self.address))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("x-mcp-human-id", "alice");
        for (name, value) in &case.headers {
            request = request.header(*name, *value);
        }
        let body = if case.chunk_bytes == usize::MAX {
            Full::new(Bytes::from(case.body.clone())).boxed_unsync()
        } else {
            let pieces: Vec<_> = case.body.chunks(case.chunk_bytes).map(Bytes::copy_from_slice).collect();
            let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
            StreamBody::new(futures::stream::iter(pieces)).boxed_unsync()
        };
        request.body(body).unwrap()
    }
}

#[tokio::test]
async fn what_passes_is_read_by_every_parser_as_it_was_judged() {
    let setup = Setup::new();
    let cases = corpus::all();
    let mut wrong = Vec::new();
    let mut passed = Vec::new();
    for case in &cases {
        let judged = setup.send(case).await;
        if judged.is_some() != case.must_pass() {
            wrong.push(format!(
                "{}: {}",
                case.name,
                if judged.is_some() { "passed" } else { "was refused" }
            ));
        }
        if let Some(judged) = judged {
            passed.push((case, judged));
        }
    }
    let bodies: Vec<_> = passed.iter().map(|(case, _)| case.body.as_slice()).collect();
    let read = readers::all(&bodies);
    assert_eq!(read.len(), 6);
    for (index, (case, judged)) in passed.iter().enumerate() {
        let message: Value = serde_json::from_slice(&case.body).unwrap_or_default();
        let arguments = &message["params"]["arguments"];
        for (parser, read) in &read {
            if !read[index].is(&judged.method, judged.tool.as_deref(), arguments) {
                wrong.push(format!("{}: {parser} reads {:?}", case.name, read[index]));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} bodies:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
