//! A platform made of a few lines: it issues sessions for adapters, and serves one MCP server to whoever has a live one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the platform knows, which outlives its process.
#[derive(Default)]
pub(crate) struct Memory {
    /// Ends of sessions by their credential.
    pub(crate) sessions: BTreeMap<String, Timestamp>,
    pub(crate) issued: u32,
    pub(crate) refreshed: u32,
    pub(crate) calls: u32,
    pub(crate) is_revoked: bool,
}

#[derive(Clone)]
struct Fake {
    url: String,
    life: Duration,
    memory: Arc<Mutex<Memory>>,
}

pub(crate) struct Platform {
    pub(crate) url: String,
    memory: Arc<Mutex<Memory>>,
    task: JoinHandle<()>,
    life: Duration,
}

impl Platform {
    pub(crate) async fn start(life: Duration) -> Self {
        Self::with(Arc::default(), life, "127.0.0.1:0").await
    }

    async fn with(memory: Arc<Mutex<Memory>>, life: Duration, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Fake {
            url: url.clone(),
            life,
            memory: Arc::clone(&memory),
        };
        let app = Router::new()
            .route(
                "/api/v1/auth/me",
                get(async || Json(json!({ "principal": { "teams": [{ "slug": "acme" }] } }))),
            )
            .route("/api/v1/runtime/adapter/sessions", post(issue))
            .route("/api/v1/runtime/adapter/sessions/{namespace}/{name}/refresh", post(refresh))
            .route(
                "/api/v1/runtime/adapter/sessions/{namespace}/{name}",
                axum::routing::delete(async || Json(json!({}))),
            )
            .route("/payments/mcp", post(call).fallback(async || StatusCode::METHOD_NOT_ALLOWED))
            .with_state(fake);
        #[expect(clippy::disallowed_methods, reason = "the test holds the handle and ends it")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, memory, task, life }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    /// Sessions issued, and calls that were let through.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let memory = self.memory();
        (memory.issued, memory.calls)
    }

    /// Ends it as a crash would; `restart` brings it back at the same address.
    pub(crate) async fn stop(self) -> impl AsyncFnOnce() -> Self {
        self.task.abort();
        let _ended = self.task.await;
        let address = self.url.trim_start_matches("http://").to_owned();
        async move || Self::with(self.memory, self.life, &address).await
    }
}

fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "the fake platform stands outside the process under test"
    )]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::default().plus(since)
}

fn usable(fake: &Fake, credential: Option<&str>, ends: Timestamp) -> Value {
    let mut headers = json!({ "X-MCP-Agent-ID": "cursor" });
    if let Some(credential) = credential {
        headers["X-MCP-Agent-Session"] = json!(credential);
    }
    json!({
        "name": "adapter-1", "namespace": "acme", "serverName": "payments", "endpoint": format!("{}/payments/mcp", fake.url),
        "headers": headers, "expiresAt": ends, "credential": credential,
    })
}

fn revoked() -> Response {
    let body = json!({ "error": "session_revoked", "message": "the session of this person and agent was revoked", "hint": "ask an owner" });
    (StatusCode::FORBIDDEN, Json(body)).into_response()
}

async fn issue(State(fake): State<Fake>) -> Response {
    let mut memory = fake.memory.lock().unwrap();
    if memory.is_revoked {
        return revoked();
    }
    memory.issued += 1;
    let (credential, ends) = (format!("mcpa_{}", memory.issued), now().plus(fake.life));
    memory.sessions.insert(credential.clone(), ends);
    (StatusCode::CREATED, Json(usable(&fake, Some(&credential), ends))).into_response()
}

async fn refresh(State(fake): State<Fake>, Path(_named): Path<(String, String)>) -> Response {
    let mut memory = fake.memory.lock().unwrap();
    if memory.is_revoked {
        return revoked();
    }
    memory.refreshed += 1;
    let ends = now().plus(fake.life);
    memory.sessions.values_mut().for_each(|end| *end = ends);
    Json(usable(&fake, None, ends)).into_response()
}

async fn call(State(fake): State<Fake>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let mut memory = fake.memory.lock().unwrap();
    let credential = head.headers.get("x-mcp-agent-session").map(|value| value.to_str().unwrap());
    let ends = credential.and_then(|credential| memory.sessions.get(credential));
    let reason = match ends {
        None => Some("session_not_found"),
        Some(_) if memory.is_revoked => Some("session_revoked"),
        Some(end) if *end <= now() => Some("session_expired"),
        Some(_) => None,
    };
    let answer = if let Some(reason) = reason {
        json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": 403, "message": "no", "data": { "reason": reason } } })
    } else {
        memory.calls += 1;
        let said = head.headers.get("x-mcp-agent-id").map(|value| value.to_str().unwrap());
        json!({ "jsonrpc": "2.0", "id": message["id"], "result": { "agent": said } })
    };
    Json(answer).into_response()
}
