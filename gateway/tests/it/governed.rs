//! A server with a policy: what is refused, how the client is told, and what the event says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use domain::policy::{Document, token_hash};
use domain::{Decision, Identity, Outcome};
use futures::FutureExt as _;
use gateway::{DenyStatus, GatewayLimits, Rate};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use service_kit::{Running, Tasks};
use tokio::time::Instant;

use crate::support::{Setup, endless, soon, whole};

const TOKEN: &str = "mcps_alice_secret";

/// Alice and her agent may read, and have a session each.
pub(crate) fn document() -> Value {
    json!({
        "schema_version": "v1",
        "server": {"name": "payments", "namespace": "acme"},
        "policy": {"mode": "allow-list"},
        "tools": [
            {"name": "list", "side_effect": "read"},
            {"name": "refund", "side_effect": "destructive", "required_trust": "high"},
        ],
        "grants": [
            {"name": "alice", "human_id": "alice", "max_trust": "high", "allowed_side_effects": ["read"]},
        ],
        "sessions": [
            {"name": "s-alice", "human_id": "alice", "agent_id": "bot", "consented_trust": "high", "token_hash": token_hash(TOKEN)},
        ],
    })
}

pub(crate) fn parsed(document: &Value) -> Document {
    let (document, faults) = Document::parse(document.to_string().as_bytes()).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    document
}

/// A governed server that counts its calls and answers with the headers it got.
pub(crate) struct Governed {
    pub(crate) setup: Setup,
    asked: Arc<AtomicUsize>,
    /// What the description of `list` says.
    description: Arc<Mutex<String>>,
}

impl Governed {
    fn new(document: &Value) -> Self {
        Self::with(GatewayLimits::default(), document)
    }

    fn with(limits: GatewayLimits, document: &Value) -> Self {
        Self::on(Tasks::for_test(), limits, document)
    }

    pub(crate) fn on(running: Running, limits: GatewayLimits, document: &Value) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let description = Arc::new(Mutex::new("lists".to_owned()));
        let (counted, described) = (Arc::clone(&asked), Arc::clone(&description));
        let setup = Setup::on(running, limits, move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            let description = described.lock().unwrap().clone();
            async move { answer(request, &description).await }.boxed()
        });
        let governed = Self {
            setup,
            asked,
            description,
        };
        governed.apply(document);
        governed
    }

    pub(crate) fn apply(&self, document: &Value) {
        self.setup.gateway.routes().routes()[0].policy.apply(parsed(document));
    }

    pub(crate) fn request(&self, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let mut request = self.setup.request(Method::POST, body);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    pub(crate) async fn post(&self, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> (u16, HeaderMap, Value) {
        let response = whole(self.setup.send(self.request(headers, body)).await).await;
        let (head, body) = response.into_parts();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"));
        (head.status.as_u16(), head.headers, body)
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

async fn answer(request: Request<Incoming>, description: &str) -> Response<crate::support::Body> {
    if request.method() == Method::GET {
        return endless(": open\n\n");
    }
    let headers: Value = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-mcp"))
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("tools/list") => json!({"tools": [{"name": "refund"}, {"name": "list", "description": description}]}),
        _ => json!({ "headers": headers }),
    };
    crate::support::json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
}

pub(crate) fn call(tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": "c-1", "method": "tools/call", "params": {"name": tool}}).to_string()
}

const ALICE: (&str, &str) = ("x-mcp-human-id", "alice");
const SESSION: (&str, &str) = ("x-mcp-agent-session", TOKEN);

#[tokio::test]
async fn a_refused_call_is_an_answer_that_says_why_and_the_server_never_sees_it() {
    let governed = Governed::new(&document());
    let (status, _, body) = governed.post(&[ALICE], call("refund")).await;
    assert_eq!((status, &body["id"]), (200, &json!("c-1")));
    let error = &body["error"];
    assert_eq!(
        (&error["code"], &error["data"]["reason"]),
        (&json!(403), &json!("side_effect_not_allowed"))
    );
    assert!(error["data"]["hint"].as_str().unwrap().contains("grant"), "{error}");
    assert_eq!(governed.asked(), 0);
    let event = governed.setup.event().await;
    let payload = &event.payload;
    assert_eq!(
        (payload.outcome, payload.decision),
        (Some(Outcome::Denied), Some(Decision::Deny))
    );
    assert_eq!(payload.reason.as_deref(), Some("side_effect_not_allowed"));
    assert_eq!(payload.human_id.as_deref(), Some("alice"));
    assert_eq!(payload.identity, Some(Identity::Asserted));
    assert_eq!(payload.required_side_effect.as_deref(), Some("destructive"));
    assert!(payload.policy_revision.as_deref().unwrap().starts_with("sha256:"));
    assert_eq!(error["data"]["decision_id"], event.span_id.unwrap().to_string());
}

#[tokio::test]
async fn a_session_names_its_caller_and_its_credential_goes_no_further() {
    let governed = Governed::new(&document());
    let spoofed = ("x-mcp-verified-spiffe-id", "spiffe://x");
    let (status, _, body) = governed.post(&[SESSION, spoofed], call("list")).await;
    assert_eq!(status, 200);
    let told = json!({"x-mcp-human-id": "alice", "x-mcp-agent-id": "bot", "x-mcp-agent-session": "s-alice"});
    assert_eq!(body["result"]["headers"], told);
    let payload = governed.setup.event().await.payload;
    assert_eq!(
        (payload.outcome, payload.decision),
        (Some(Outcome::Ok), Some(Decision::Allow))
    );
    assert_eq!(
        (payload.human_id.as_deref(), payload.agent_id.as_deref()),
        (Some("alice"), Some("bot"))
    );
    assert_eq!(payload.identity, Some(Identity::Verified));
    assert_eq!(
        (payload.matched_grant.as_deref(), payload.matched_session.as_deref()),
        (Some("alice"), Some("s-alice"))
    );
    assert_eq!(payload.effective_trust.as_deref(), Some("high"));
    assert!(!format!("{payload:?}").contains(TOKEN));
}

#[tokio::test]
async fn who_is_not_known_is_challenged() {
    let governed = Governed::new(&document());
    for (headers, reason) in [
        (vec![], "missing_identity"),
        (vec![("x-mcp-agent-session", "guessed")], "session_not_found"),
        (vec![("x-mcp-agent-session", "s-alice")], "session_not_found"),
        (vec![SESSION, ("x-mcp-human-id", "bob")], "identity_mismatch"),
    ] {
        let (status, head, body) = governed.post(&headers, call("list")).await;
        assert_eq!(
            (status, &body["error"]["data"]["reason"]),
            (401, &json!(reason)),
            "{headers:?}"
        );
        let challenge = head["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains("x-mcp-agent-session"), "{challenge}");
    }
    let mut twice = governed.request(&[ALICE], call("list"));
    twice.headers_mut().append("x-mcp-human-id", "bob".parse().unwrap());
    assert_eq!(governed.setup.send(twice).await.status(), 400);
    assert_eq!(governed.asked(), 0);
    assert_eq!(
        governed.post(&[], r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await.0,
        200,
        "handshakes pass"
    );
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_refused() {
    let governed = Governed::new(&document());
    let read = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let cases = [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#.to_owned(),
            -32_600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}"#.to_owned(),
            -32_600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools/call","method":"ping"}"#.to_owned(),
            -32_600,
        ),
        (read(r#"{"name":"list","Name":"refund"}"#), -32_600),
        (read(r#"{"name":"list","n\u0061me":"refund"}"#), -32_600),
        (read(r#"{"name":"list","arguments":{},"arguments":{"a":1}}"#), -32_600),
        (r#"{"id":1,"method":"ping"}"#.to_owned(), -32_600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_owned(), -32_600),
        (r#"{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}"#.to_owned(), -32_600),
        (r#""tools/call""#.to_owned(), -32_600),
        ("[]".to_owned(), -32_600),
        ("{} {}".to_owned(), -32_700),
        ("\u{feff}{}".to_owned(), -32_700),
        ("/* c */ {}".to_owned(), -32_700),
        (read(r#"{"name":NaN}"#), -32_700),
        (String::new(), -32_600),
    ];
    for (body, code) in cases {
        let (status, _, answer) = governed.post(&[ALICE], body.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{body}");
        assert_eq!(answer["error"]["data"]["reason"], "rpc_inspection_failed", "{body}");
    }
    assert_eq!(governed.asked(), 0);
    let (status, ..) = governed
        .post(&[ALICE], r#"{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}"#)
        .await;
    assert_eq!((status, governed.asked()), (200, 1), "answers to the server's questions pass");
}

#[tokio::test]
async fn batches_are_judged_message_by_message_where_the_revision_has_them() {
    let governed = Governed::new(&document());
    let batch = |tools: [&str; 2]| format!("[{},{}]", call(tools[0]), call(tools[1]));
    assert_eq!(governed.post(&[ALICE], batch(["list", "list"])).await.0, 200);
    assert_eq!(governed.asked(), 1);
    let response = governed
        .setup
        .send(governed.request(&[ALICE], batch(["list", "refund"])))
        .await;
    assert_eq!(response.status(), 403, "there is no one id to answer");
    let later = ("mcp-protocol-version", "2025-06-18");
    assert_eq!(governed.post(&[ALICE, later], batch(["list", "list"])).await.0, 400);
    assert_eq!(governed.asked(), 0);
}

#[tokio::test]
async fn modern_headers_must_say_what_the_body_says() {
    let governed = Governed::new(&document());
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list", "_meta": meta}}).to_string();
    let version = ("mcp-protocol-version", "2026-07-28");
    for (headers, status) in [
        (vec![ALICE, version, ("mcp-method", "tools/call"), ("mcp-name", "list")], 200),
        (
            vec![
                ALICE,
                version,
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?bGlzdA==?="),
            ],
            200,
        ),
        (
            vec![ALICE, version, ("mcp-method", "tools/call"), ("mcp-name", "refund")],
            400,
        ),
        (
            vec![ALICE, version, ("mcp-method", "tools/call"), ("mcp-name", "=?base64??=")],
            400,
        ),
        (vec![ALICE, version, ("mcp-method", "ping"), ("mcp-name", "list")], 400),
        (vec![ALICE, version, ("mcp-name", "list")], 400),
        (
            vec![
                ALICE,
                ("mcp-protocol-version", "2026-08-01"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "list"),
            ],
            400,
        ),
        (vec![ALICE], 400),
    ] {
        let (seen, _, answer) = governed.post(&headers, body.clone()).await;
        assert_eq!(seen, status, "{headers:?}");
        if status == 400 {
            assert_eq!(answer["error"]["code"], -32_020, "{headers:?}");
        }
    }
}

#[tokio::test]
async fn lists_show_what_the_caller_may_use() {
    let governed = Governed::new(&document());
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let (_, head, body) = governed.post(&[ALICE], list).await;
    let tools = &body["result"]["tools"];
    assert_eq!(tools, &json!([{"name": "list", "description": "lists"}]));
    assert_eq!(head["cache-control"], "private");
    let (_, _, body) = governed.post(&[("x-mcp-human-id", "bob")], list).await;
    assert_eq!(body["result"]["tools"], json!([]));
}

#[tokio::test]
async fn observing_lets_pass_and_records_what_would_have_been() {
    let mut observing = document();
    observing["policy"]["mode"] = json!("observe");
    let governed = Governed::new(&observing);
    for (headers, body, reason) in [
        (vec![ALICE], call("refund"), "side_effect_not_allowed"),
        (vec![], call("list"), "missing_identity"),
        (vec![ALICE], "[]".to_owned(), "rpc_inspection_failed"),
        (vec![ALICE], call("list"), "allowed"),
    ] {
        assert_eq!(governed.post(&headers, body.clone()).await.0, 200, "{body}");
        let payload = governed.setup.event().await.payload;
        assert_eq!(payload.reason.as_deref(), Some(reason));
        assert_ne!(payload.outcome, Some(Outcome::Denied));
        assert_eq!(payload.attributes["policy_mode"], "observe");
    }
    assert_eq!(governed.asked(), 4);
}

#[tokio::test]
async fn revocation_ends_open_streams_at_once_and_for_good() {
    let governed = Governed::new(&document());
    let open = async |headers: &[(&'static str, &str)]| {
        let mut request = governed.request(headers, "");
        *request.method_mut() = Method::GET;
        governed.setup.send(request).await
    };
    let response = open(&[SESSION]).await;
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    soon("the first event", stream.frame()).await.unwrap().unwrap();
    let mut revoking = document();
    revoking["sessions"][0]["revoked"] = json!(true);
    let revoked_at = Instant::now();
    governed.apply(&revoking);
    while let Some(Ok(_)) = soon("the end of the stream", stream.frame()).await {}
    assert!(revoked_at.elapsed() < Duration::from_secs(1), "{:?}", revoked_at.elapsed());
    let payload = governed.setup.event().await.payload;
    assert_eq!(payload.reason.as_deref(), Some("session_revoked"));
    governed.apply(&document());
    let (status, _, body) = governed.post(&[SESSION], call("list")).await;
    assert_eq!((status, &body["error"]["data"]["reason"]), (401, &json!("session_revoked")));
}

#[tokio::test]
async fn rates_hold_for_each_caller_and_each_grant() {
    let limits = GatewayLimits {
        caller_rate: Some(Rate {
            calls: 3,
            per: Duration::from_hours(1),
        }),
        ..GatewayLimits::default()
    };
    let mut rated = document();
    rated["grants"][0]["rate"] = json!({"calls": 2, "per": "1h"});
    let governed = Governed::with(limits, &rated);
    for (status, reason) in [
        (200, None),
        (200, None),
        (200, Some("rate_exceeded")),
        (429, Some("rate_limited")),
    ] {
        let (seen, head, body) = governed.post(&[ALICE], call("list")).await;
        assert_eq!(seen, status, "{body}");
        let event = governed.setup.event().await;
        if let Some(reason) = reason {
            assert!(head["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
            assert_eq!(event.payload.reason.as_deref(), Some(reason));
        }
    }
    assert_eq!(
        governed.post(&[("x-mcp-human-id", "bob")], call("list")).await.0,
        200,
        "a denial within the protocol"
    );
}

#[tokio::test]
async fn refusals_can_be_told_by_status() {
    let limits = GatewayLimits {
        deny_status: DenyStatus::Forbidden,
        ..GatewayLimits::default()
    };
    let governed = Governed::with(limits, &document());
    let (status, _, body) = governed.post(&[ALICE], call("refund")).await;
    assert_eq!((status, &body["error"]), (403, &json!("side_effect_not_allowed")));
}

#[tokio::test]
async fn a_tool_that_changes_is_told_and_refused_where_it_is_pinned() {
    let governed = Governed::new(&document());
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    governed.post(&[ALICE], list).await;
    governed.post(&[ALICE], call("list")).await;
    let events = governed.setup.events(3).await;
    let listed = events.iter().find(|event| event.event_type == "mcp.list").unwrap();
    let inventory = domain::inventory::Inventory::of_attributes(&listed.payload.attributes).unwrap();
    let names: Vec<_> = inventory.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(
        (names.as_slice(), inventory.is_complete),
        (["refund", "list"].as_slice(), true)
    );
    let called = events.iter().find(|event| event.payload.tool_name.is_some()).unwrap();
    let pin = called.payload.tool_schema_hash.clone().unwrap();
    let mut pinned = document();
    pinned["tools"][0]["pin"] = json!(pin);
    governed.apply(&pinned);
    assert!(governed.post(&[ALICE], call("list")).await.2["error"].is_null());
    "now does what its author wants".clone_into(&mut governed.description.lock().unwrap());
    governed.post(&[ALICE], list).await;
    let (_, _, body) = governed.post(&[ALICE], call("list")).await;
    assert_eq!(body["error"]["data"]["reason"], "tool_changed");
    let events = governed.setup.events(5).await;
    let is_change = |event: &&domain::Event| event.payload.attributes.contains_key("previous_schema_hash");
    let change = events.iter().find(is_change).unwrap();
    assert_eq!(change.payload.tool_name.as_deref(), Some("list"));
    assert_eq!(change.payload.attributes["previous_schema_hash"], pin);
    assert_ne!(change.payload.tool_schema_hash.as_deref(), Some(pin.as_str()));
}

#[tokio::test]
async fn a_refusal_of_the_server_to_list_passes_as_it_is() {
    let setup =
        Setup::new(|_request| async { crate::support::answer(404, "text/plain", "Not Found: Session not found") }.boxed());
    setup.gateway.routes().routes()[0].policy.apply(parsed(&document()));
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/list"}"#,
    ] {
        let mut request = setup.request(Method::POST, message);
        request.headers_mut().insert(ALICE.0, ALICE.1.parse().unwrap());
        let response = whole(setup.send(request).await).await;
        assert_eq!(
            (response.status().as_u16(), response.body().as_ref()),
            (404, &b"Not Found: Session not found"[..])
        );
    }
}
