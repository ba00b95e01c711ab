//! Requests to the gateway: with the session, without what others claim, sent again only where that is safe.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use serde_json::Value;
use service_kit::{Backoff, BackoffPolicy, Shutdown};
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::reply::Refusal;
use crate::session::{Session, Sessions};

/// Answers up to this size are looked into for what they say about the session.
const LOOK_BYTES_MAX: u64 = 16 << 10;
/// Tries of a read that the server did not answer properly.
const READ_TRIES_MAX: u32 = 3;
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest time that giving a session back may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// A server that asks for a longer pause is not waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// What clients may not say about themselves; the session says it. Of cookies nobody here knows whose they are.
const FOREIGN: [HeaderName; 7] = [
    HeaderName::from_static("x-mcp-human-id"),
    HeaderName::from_static("x-mcp-agent-id"),
    HeaderName::from_static("x-mcp-team-id"),
    HeaderName::from_static("x-mcp-agent-session"),
    // Written by meshes that checked a certificate.
    HeaderName::from_static("x-mcp-verified-spiffe-id"),
    header::AUTHORIZATION,
    header::COOKIE,
];
/// What a gateway says of a session that does not work any more.
const DEAD: [&str; 5] = [
    "session_not_found",
    "session_revoked",
    "session_expired",
    "session_idle",
    "missing_session",
];

/// Who is told to the server.
#[derive(Debug, Clone)]
enum Identity {
    Session(Sessions),
    /// Nobody: the endpoint alone.
    Anonymous(Box<reqwest::Url>),
}

/// The server, as reached through its gateway.
#[derive(Debug)]
pub struct Upstream {
    http: reqwest::Client,
    identity: Identity,
    config: Config,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

/// Whether a request may be sent again after nobody knows whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Asking twice is asking once.
    Always,
    /// Only when nothing of it was sent.
    Unsent,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) repeat: Repeat,
}

/// An answer, of which nothing or everything is read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Body,
    idle_max: Option<Duration>,
}

#[derive(Debug)]
enum Body {
    Whole(Bytes),
    Stream(reqwest::Response),
}

/// Why a program cannot reach its server at all.
#[derive(Debug, thiserror::Error)]
#[error("preparing the HTTP client")]
pub struct ClientError(#[source] reqwest::Error);

impl Upstream {
    /// A server that is told who calls.
    pub fn new(sessions: Sessions, config: Config, tasks: &service_kit::Tasks) -> Result<Self, ClientError> {
        let stage = service_kit::Stage::Pipeline;
        tasks.spawn(stage, "adapter session", sessions.clone().keep(tasks.shutdown(stage)));
        Self::of(Identity::Session(sessions), config, tasks)
    }

    /// A server that is told nothing about the caller.
    pub fn anonymous(endpoint: reqwest::Url, config: Config, tasks: &service_kit::Tasks) -> Result<Self, ClientError> {
        Self::of(Identity::Anonymous(Box::new(endpoint)), config, tasks)
    }

    fn of(identity: Identity, config: Config, tasks: &service_kit::Tasks) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT_MAX)
            // A credential goes where the session says and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("mcp-runtime-adapter/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError)?;
        Ok(Self {
            http,
            identity,
            config,
            metrics: Metrics::shared(tasks.metrics()),
            shutdown: tasks.shutdown(service_kit::Stage::Pipeline),
        })
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether a request could be sent now, as far as this side knows.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.identity {
            Identity::Session(sessions) => sessions.is_there(),
            Identity::Anonymous(_) => true,
        }
    }

    /// Asks for the session before anybody needs it.
    pub async fn warm(&self) {
        if let Identity::Session(sessions) = &self.identity {
            // Why it failed is logged there, and told to the first request.
            let _ready = sessions.current().await;
        }
    }

    /// Gives the session back, within a second or not at all.
    pub(crate) async fn farewell(&self) {
        if let Identity::Session(sessions) = &self.identity {
            let _late = timeout(FAREWELL_MAX, sessions.end()).await;
        }
    }

    /// Sends a request until it is answered, or until sending it again would not be right.
    pub(crate) async fn send(&self, request: &Outgoing) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + self.config.reconnect_max;
        let mut pauses = Backoff::new(BackoffPolicy {
            pause_max: Duration::from_secs(2),
            ..BackoffPolicy::default()
        });
        let (mut tries, mut is_replaced) = (0_u32, false);
        loop {
            let session = match &self.identity {
                Identity::Session(sessions) => Some(sessions.current().await?),
                Identity::Anonymous(_) => None,
            };
            tries += 1;
            let pause = match self.once(request, session.as_deref()).await {
                Ok(answer) => {
                    match self.session_verdict(&answer, session.as_ref(), &mut is_replaced).await? {
                        Some(Verdict::Again(pause)) => {
                            self.pause(pause.or_else(|| pauses.next())).await?;
                            continue;
                        }
                        Some(Verdict::Stands) => return Ok(answer),
                        None => {}
                    }
                    match answer.verdict(request.repeat, tries) {
                        Verdict::Stands => return Ok(answer),
                        Verdict::Again(pause) => pause.or_else(|| pauses.next()),
                    }
                }
                Err(error) if may_repeat(&error, request.repeat, tries, deadline) => pauses.next(),
                Err(error) => return Err(unreachable(&error, session.as_deref())),
            };
            self.pause(pause).await?;
        }
    }

    async fn pause(&self, pause: Option<Duration>) -> Result<(), Refusal> {
        self.metrics.retries.inc();
        let slept = self.shutdown.or(tokio::time::sleep(pause.unwrap_or_default())).await;
        slept.ok_or_else(|| Refusal::new(503, "stopping", "the adapter is stopping"))
    }

    /// What is made of an answer that refuses the session; `None` when it does not. Nothing was done, so sending again is safe.
    async fn session_verdict(
        &self,
        answer: &Answer,
        session: Option<&Arc<Session>>,
        is_replaced: &mut bool,
    ) -> Result<Option<Verdict>, Refusal> {
        let (Some(session), Identity::Session(sessions)) = (session, &self.identity) else {
            return Ok(None);
        };
        if !answer.says_session_is_dead() {
            return Ok(None);
        }
        if sessions.is_young() && answer.says("session_not_found") {
            return Ok(Some(Verdict::Again(None)));
        }
        if *is_replaced || !sessions.may_replace() {
            return Ok(Some(Verdict::Stands));
        }
        *is_replaced = true;
        sessions.replace(Some(session)).await?;
        Ok(Some(Verdict::Again(Some(Duration::ZERO))))
    }

    async fn once(&self, request: &Outgoing, session: Option<&Session>) -> Result<Answer, SendError> {
        let endpoint = match (&self.identity, session) {
            (_, Some(session)) => session.endpoint.clone(),
            (Identity::Anonymous(endpoint), None) => (**endpoint).clone(),
            (Identity::Session(_), None) => return Err(SendError::Silent(Duration::ZERO)),
        };
        let mut headers = request.headers.clone();
        self.identify(&mut headers, session);
        let sending = self.http.request(request.method.clone(), endpoint).headers(headers);
        let sending = match request.method {
            Method::POST => sending.body(request.body.clone()),
            _ => sending,
        };
        let idle = self.config.answer_idle_max;
        let response = timeout(idle, sending.send()).await.map_err(|_| SendError::Silent(idle))?;
        let mut response = response.map_err(SendError::Http)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let is_small = response.content_length().is_some_and(|length| length <= LOOK_BYTES_MAX);
        let body = if is_small && !is_stream(&headers) {
            let whole = timeout(idle, response.bytes()).await.map_err(|_| SendError::Silent(idle))?;
            Body::Whole(whole.map_err(SendError::Http)?)
        } else {
            Body::Stream(response)
        };
        Ok(Answer {
            status,
            headers,
            body,
            idle_max: (request.method == Method::POST).then_some(idle),
        })
    }

    /// Puts who calls in place of whatever the client says about it.
    fn identify(&self, headers: &mut HeaderMap, session: Option<&Session>) {
        for name in FOREIGN {
            headers.remove(name);
        }
        if let Some(host) = &self.config.host_header {
            headers.insert(header::HOST, host.clone());
        }
        let Some(session) = session else { return };
        for (name, value) in &session.headers {
            headers.insert(name, value.clone());
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("sending the request")]
    Http(#[source] reqwest::Error),
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

fn may_repeat(error: &SendError, repeat: Repeat, tries: u32, deadline: Instant) -> bool {
    match error {
        // Nothing was sent, so nothing can happen twice.
        SendError::Http(error) if error.is_connect() => Instant::now() < deadline,
        SendError::Http(error) => !error.is_builder() && repeat == Repeat::Always && tries < READ_TRIES_MAX,
        SendError::Silent(_) => false,
    }
}

fn unreachable(error: &SendError, session: Option<&Session>) -> Refusal {
    let endpoint = session.map_or_else(|| "the server".to_owned(), |session| session.endpoint.to_string());
    tracing::warn!(endpoint, error = %service_kit::error::Chain(error), "request failed");
    match error {
        SendError::Silent(wait) => Refusal::new(
            504,
            "silent",
            format!("{endpoint} did not answer within {} s", wait.as_secs()),
        )
        .hint("the call may have happened; wait longer with --request-timeout"),
        SendError::Http(error) if error.is_connect() => {
            Refusal::new(502, "unreachable", format!("nothing answers at {endpoint}"))
                .hint("is the platform running? mcp-runtime status")
        }
        SendError::Http(_) => Refusal::new(502, "broken", format!("the connection to {endpoint} broke"))
            .hint("the call may have happened; look before you repeat it"),
    }
}

pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    media_type(headers).eq_ignore_ascii_case("text/event-stream")
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

impl Answer {
    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        match &mut self.body {
            Body::Whole(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Body::Stream(response) => {
                let next = response.chunk();
                let next = match self.idle_max {
                    None => next.await,
                    Some(idle) => timeout(idle, next).await.map_err(|_| {
                        Refusal::new(504, "silent", format!("the answer paused for more than {} s", idle.as_secs()))
                    })?,
                };
                next.map_err(|error| {
                    tracing::debug!(error = %service_kit::error::Chain(&error), "answer broke off");
                    Refusal::new(502, "broken", "the connection broke before the answer was complete")
                        .hint("the call may have happened; look before you repeat it")
                })
            }
        }
    }

    /// The whole body, up to a bound.
    pub(crate) async fn whole(mut self, bytes_max: usize) -> Result<Bytes, Refusal> {
        if let Body::Whole(bytes) = self.body {
            return Ok(bytes);
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            if whole.len() + piece.len() > bytes_max {
                return Err(Refusal::new(
                    502,
                    "too_large",
                    format!("the answer is longer than {bytes_max} bytes"),
                ));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    fn says(&self, code: &str) -> bool {
        matches!(&self.body, Body::Whole(bytes) if reason(bytes).is_some_and(|reason| reason == code))
    }

    /// Whether the gateway refused because of the session, so that nothing was done and another one may help.
    fn says_session_is_dead(&self) -> bool {
        let Body::Whole(bytes) = &self.body else {
            return self.status == StatusCode::UNAUTHORIZED;
        };
        reason(bytes).map_or(self.status == StatusCode::UNAUTHORIZED, |reason| {
            DEAD.contains(&reason.as_str())
        })
    }

    fn verdict(&self, repeat: Repeat, tries: u32) -> Verdict {
        let is_passing = matches!(
            self.status,
            StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        );
        if !is_passing || repeat != Repeat::Always || tries >= READ_TRIES_MAX {
            return Verdict::Stands;
        }
        let named = self
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match named.map(Duration::from_secs) {
            Some(pause) if pause > RETRY_AFTER_MAX => Verdict::Stands,
            named => Verdict::Again(named),
        }
    }
}

/// What is made of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stands,
    /// The request is sent again, after the server's own pause when it names one.
    Again(Option<Duration>),
}

/// The reason code in a refusal of the gateway, in whichever form it is told.
fn reason(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    let reason = error.get("data").and_then(|data| data.get("reason")).unwrap_or(error);
    reason.as_str().map(str::to_owned)
}
