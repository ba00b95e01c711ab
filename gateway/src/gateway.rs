//! The pipeline: limit, identify, inspect, authorize, forward, record. Each step continues or answers; recording happens when the
//! exchange is dropped, so it cannot be left out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::Decision;
use futures::FutureExt as _;
use http::{Method, Request, Response, header, request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use service_kit::http::{BodyIdle, IdleTimeout};
use service_kit::tasks::Shutdown;
use service_kit::{Clock, Problem, Tasks};
use tokio::time::timeout;

use crate::answer::AnswerBody;
use crate::classify::Ending;
use crate::exchange::Exchange;
use crate::forward::{self, CallerRules, ForwardRules, Hop, HttpClient};
use crate::metrics::GatewayMetrics;
use crate::record::Recorder;
use crate::refusal::Refusal;
use crate::route::RouteTable;
use crate::sessions::Sessions;

/// Room for a body before its length is believed.
const BODY_START_BYTES_MAX: usize = 64 << 10;

const METHODS: [Method; 4] = [Method::POST, Method::GET, Method::DELETE, Method::OPTIONS];

/// What the gateway puts up with, and what it passes on.
#[derive(Debug, Clone)]
pub struct GatewayLimits {
    /// Bytes of a request's body; more gets 413.
    pub body_bytes_max: usize,
    /// Longest pause within a request's body.
    pub body_idle_timeout: Duration,
    /// Longest time for a connection to a server to come about.
    pub connect_timeout: Duration,
    /// Longest time without a byte from the server, while it owes an answer. Streams may be silent for ever.
    pub upstream_idle_timeout: Duration,
    /// Legacy sessions whose client is remembered.
    pub sessions_max: usize,
    /// How long an unused session is remembered at least.
    pub session_idle_timeout: Duration,
    pub callers: CallerRules,
    pub forward: ForwardRules,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            body_idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            upstream_idle_timeout: Duration::from_mins(15),
            sessions_max: 16_384,
            session_idle_timeout: Duration::from_hours(1),
            callers: CallerRules::default(),
            forward: ForwardRules::default(),
        }
    }
}

/// A gateway for the servers of a route table. Clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) routes: RouteTable,
    pub(crate) recorder: Recorder,
    pub(crate) limits: GatewayLimits,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) sessions: Sessions,
    pub(crate) in_flight: AtomicU64,
    client: HttpClient,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Gateway {
    /// Needs a tokio runtime around it.
    pub fn new(routes: RouteTable, recorder: Recorder, limits: GatewayLimits, tasks: &Tasks) -> Self {
        let shared = Shared {
            metrics: GatewayMetrics::shared(tasks.metrics(), &recorder),
            sessions: Sessions::new(limits.sessions_max, limits.session_idle_timeout),
            client: forward::client(limits.connect_timeout),
            clock: tasks.clock().clone(),
            shutdown: tasks.shutdown(service_kit::Stage::Intake),
            tasks: tasks.clone(),
            in_flight: AtomicU64::new(0),
            routes,
            recorder,
            limits,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The routes, to be replaced while requests pass.
    pub fn routes(&self) -> &RouteTable {
        &self.shared.routes
    }

    /// Requests that have not ended.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Answers one request.
    pub async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<AnswerBody> {
        if let Some(response) = self.health(&request) {
            return response;
        }
        let Some(site) = self.shared.routes.find(request.uri().path()) else {
            self.shared.metrics.unrouted();
            return unrouted();
        };
        let (head, body) = request.into_parts();
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut exchange = Exchange::begin(Arc::clone(&self.shared), site, &head);
        match self.pass(&mut exchange, peer, head, body).await {
            Ok(response) => self.stream(exchange, response),
            Err(refusal) => refuse(exchange, &refusal),
        }
    }

    async fn pass(
        &self,
        exchange: &mut Exchange,
        peer: SocketAddr,
        head: request::Parts,
        body: Incoming,
    ) -> Result<Response<Incoming>, Box<Refusal>> {
        self.limit(&head)?;
        exchange.identify(&head.headers);
        let body = self.read(body).await?;
        exchange.inspect(&head.headers, &body);
        authorize(exchange)?;
        self.forward(exchange, peer, head, body).await
    }

    /// Who may call at all, and how.
    fn limit(&self, head: &request::Parts) -> Result<(), Box<Refusal>> {
        if !METHODS.contains(&head.method) {
            return Err(Refusal::denied("method_not_allowed", Problem::method_not_allowed(&METHODS)));
        }
        match self.shared.limits.callers.refusal(&head.headers, &head.uri) {
            None => Ok(()),
            Some(reason) => {
                let problem = Problem::forbidden("this gateway is not called by that host or from that origin")
                    .with_hint("call it by a name it knows, or add the name to its allowed hosts or origins");
                Err(Refusal::denied(reason, problem))
            }
        }
    }

    /// The whole body: a decision needs all of it.
    async fn read(&self, body: Incoming) -> Result<Bytes, Box<Refusal>> {
        let bytes_max = self.shared.limits.body_bytes_max;
        let too_large = || {
            let problem = Problem::payload_too_large(format!("the body has more than {bytes_max} bytes"));
            Refusal::denied("body_too_large", problem)
        };
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let told = body.size_hint().lower();
        if told > bytes_max as u64 {
            return Err(too_large());
        }
        let mut body = IdleTimeout::new(body, self.shared.limits.body_idle_timeout);
        let mut whole = Bytes::new();
        let mut pieces = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unread(&error))?;
            let Ok(piece) = frame.into_data() else { continue };
            if whole.len() + pieces.len() + piece.len() > bytes_max {
                return Err(too_large());
            }
            // Nearly every body comes in one piece, which is then taken as it is.
            if whole.is_empty() && pieces.is_empty() {
                whole = piece;
                continue;
            }
            if pieces.is_empty() {
                pieces.reserve(
                    usize::try_from(told)
                        .unwrap_or(0)
                        .min(BODY_START_BYTES_MAX)
                        .max(whole.len() + piece.len()),
                );
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&piece);
        }
        Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
    }

    async fn forward(
        &self,
        exchange: &mut Exchange,
        peer: SocketAddr,
        head: request::Parts,
        body: Bytes,
    ) -> Result<Response<Incoming>, Box<Refusal>> {
        let hop = Hop {
            peer,
            trace: exchange.trace,
        };
        let Some(request) = forward::request(&exchange.site, &self.shared.limits.forward, head, body, &hop) else {
            return Err(Refusal::denied(
                "bad_path",
                Problem::bad_request("the path cannot be passed on"),
            ));
        };
        exchange.forwards();
        let limit = self.shared.limits.upstream_idle_timeout;
        match timeout(limit, self.shared.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(exchange, &error)),
            Err(_elapsed) => {
                let problem = Problem::gateway_timeout(format!("the server sent nothing for {limit:?}"));
                Err(Refusal::unanswered("timeout", problem))
            }
        }
    }

    fn stream(&self, mut exchange: Exchange, response: Response<Incoming>) -> Response<AnswerBody> {
        let (mut head, body) = response.into_parts();
        forward::remove_hop_by_hop(&mut head.headers);
        exchange.answered(head.status, &head.headers, body.is_end_stream());
        let endless = exchange.is_stream();
        let idle_max = (!endless).then_some(self.shared.limits.upstream_idle_timeout);
        let stop = endless.then(|| self.shared.shutdown.clone().requested_owned().boxed());
        Response::from_parts(head, AnswerBody::theirs(body, exchange, idle_max, stop))
    }

    /// Health of the process, where no server's path is hidden by it.
    fn health(&self, request: &Request<Incoming>) -> Option<Response<AnswerBody>> {
        if request.method() != Method::GET {
            return None;
        }
        let (status, text) = match request.uri().path() {
            "/live" => (http::StatusCode::OK, "{\"live\":true}".to_owned()),
            "/ready" | "/health" => {
                let report = self.shared.tasks.ready_report();
                let status = if report.ready {
                    http::StatusCode::OK
                } else {
                    http::StatusCode::SERVICE_UNAVAILABLE
                };
                (status, serde_json::to_string(&report).unwrap_or_default())
            }
            _ => return None,
        };
        let mut response = Response::new(AnswerBody::ours(text.into()));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        Some(response)
    }
}

fn authorize(exchange: &mut Exchange) -> Result<(), Box<Refusal>> {
    let verdict = exchange.authorize();
    match verdict.decision {
        Decision::Allow => Ok(()),
        Decision::Deny => Err(Refusal::denied(
            verdict.reason,
            Problem::forbidden("the policy of this server refuses the request"),
        )),
    }
}

fn refuse(mut exchange: Exchange, refusal: &Refusal) -> Response<AnswerBody> {
    exchange.answers(refusal.status(), refusal.ending);
    let response = refusal.response(exchange.request_id(), exchange.trace);
    exchange.passes(response.body());
    response.map(AnswerBody::ours)
}

fn unrouted() -> Response<AnswerBody> {
    let problem = Problem::not_found("no MCP server has this path").with_hint("servers are at `/<server>/mcp`");
    problem.to_response(None).map(AnswerBody::ours)
}

fn unread(error: &BodyIdle) -> Box<Refusal> {
    match error {
        BodyIdle::Paused(_) => Refusal::denied("body_too_slow", Problem::request_timeout("the body took too long to arrive")),
        BodyIdle::Broken(_) => Box::new(Refusal {
            problem: Problem::bad_request("the body broke off"),
            ending: Ending::ClientGone,
        }),
    }
}

fn unreachable(exchange: &Exchange, error: &hyper_util::client::legacy::Error) -> Box<Refusal> {
    let (reason, message) = if error.is_connect() {
        ("upstream_unreachable", "the server cannot be reached")
    } else {
        ("upstream_broken", "the server ended the connection without an answer")
    };
    tracing::debug!(
        server = exchange.site.route.server,
        error = %service_kit::error::Chain(error),
        "asking the server failed"
    );
    Refusal::unanswered(reason, Problem::bad_gateway(message))
}
