//! The state of the era with sessions: what the server gave at `initialize`, and how to get it again after the server forgot it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;

use super::{Bridge, carry};
use crate::message::Message;
use crate::reply::Refusal;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Subscriptions that are made again; further ones are the client's to notice.
const SUBSCRIPTIONS_MAX: usize = 256;

/// Which way of the protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// With `initialize` and sessions.
    Legacy,
    /// Since 2026-07-28: every request for itself.
    Modern,
}

/// What goes with every request of a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Grows with each new session.
    pub(super) generation: u64,
    session: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

#[derive(Debug, Default)]
pub(super) struct Legacy {
    state: Mutex<State>,
    /// Held while a session is made again, so that many requests make one.
    pub(super) reviving: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct State {
    standing: Standing,
    initialize: Option<Message>,
    initialized: Option<Bytes>,
    /// What the client has set up: its log level under an empty name, its subscriptions under their URIs.
    kept: Vec<(String, Message)>,
}

impl Standing {
    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn put(&self, headers: &mut HeaderMap) {
        if let Some(session) = &self.session {
            headers.insert(SESSION, session.clone());
        }
        if let Some(version) = &self.version {
            headers.insert(VERSION, version.clone());
        }
    }
}

impl Legacy {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        self.state().standing.clone()
    }

    pub(super) fn era(&self) -> Era {
        if self.state().initialize.is_some() {
            Era::Legacy
        } else {
            Era::Modern
        }
    }

    /// A session begins: `result` is what the server answered to `initialize`.
    pub(super) fn begin(&self, initialize: &Message, headers: &HeaderMap, result: &str) {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "protocolVersion")]
            version: Option<String>,
        }
        let version = serde_json::from_str::<Answer>(result).ok().and_then(|answer| answer.version);
        let mut state = self.state();
        let generation = state.standing.generation + 1;
        state.standing = Standing {
            generation,
            session: headers.get(SESSION).cloned(),
            version: version.and_then(|version| HeaderValue::try_from(version).ok()),
        };
        state.initialize = Some(initialize.clone());
    }

    pub(super) fn set_initialized(&self, notification: Bytes) {
        self.state().initialized = Some(notification);
    }

    pub(super) fn is_initialized(&self) -> bool {
        self.state().initialized.is_some()
    }

    /// Remembers what the server now keeps for this session.
    pub(super) fn keep(&self, request: &Message) {
        let mut state = self.state();
        let key = match request.method.as_deref() {
            Some("logging/setLevel") => String::new(),
            Some("resources/subscribe" | "resources/unsubscribe") => request.params.uri.clone().unwrap_or_default(),
            _ => return,
        };
        state.kept.retain(|(kept, _)| *kept != key);
        if !request.is_method("resources/unsubscribe") && state.kept.len() < SUBSCRIPTIONS_MAX {
            state.kept.push((key, request.clone()));
        }
    }
}

/// Whether an answer says that the server no longer knows the session. The protocol says 404; some servers say 400.
pub(super) fn is_lost(standing: &Standing, message: &Message, status: StatusCode, body: &[u8]) -> bool {
    if !standing.has_session() || message.is_modern() || message.is_method("initialize") {
        return false;
    }
    let text = String::from_utf8_lossy(body).to_lowercase();
    match status {
        StatusCode::NOT_FOUND => !text.contains("-32601"),
        StatusCode::BAD_REQUEST => text.contains("session"),
        _ => false,
    }
}

impl Bridge {
    /// Makes a new session in place of one that the server forgot, as the client made the first, and sets up what it had set up. The client
    /// notices nothing.
    pub(super) async fn revive(self: &Arc<Self>, generation: u64) -> Result<(), Refusal> {
        let _one = self.legacy.reviving.lock().await;
        let (initialize, initialized, kept) = {
            let state = self.legacy.state();
            if state.standing.generation != generation {
                return Ok(());
            }
            let kept: Vec<Message> = state.kept.iter().map(|(_, message)| message.clone()).collect();
            (state.initialize.clone(), state.initialized.clone(), kept)
        };
        let Some(initialize) = initialize else {
            return Err(Refusal::new(404, "session_lost", "the server does not know this session"));
        };
        tracing::warn!("the server forgot the session; making another");
        let answer = self.upstream.send(&self.post(&initialize, &Standing::default())).await?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let result = carry::one_answer(answer, self.config.answer_bytes_max).await?;
        let Some(result) = result.filter(|_| status.is_success()) else {
            return Err(
                Refusal::new(502, "session_lost", "the server forgot the session and makes no other")
                    .hint("restart the client's connection to this server"),
            );
        };
        self.legacy.begin(&initialize, &headers, &result);
        self.cache.clear();
        self.upstream.metrics().revived.inc();
        let standing = self.legacy.standing();
        let ready = initialized.and_then(|bytes| Message::parse(bytes).ok());
        for message in ready.iter().chain(&kept) {
            let answer = self.upstream.send(&self.post(message, &standing)).await?;
            if !answer.status.is_success() {
                tracing::warn!(method = message.method, status = answer.status.as_u16(), "not set up again");
            }
            drop(answer);
        }
        if self.legacy.is_initialized() {
            self.listen();
        }
        Ok(())
    }
}
