//! The pipeline: limit, identify, inspect, authorize, forward, record. Each step continues or answers; recording happens when the
//! exchange is dropped, so it cannot be left out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, select};
use http::{Method, Request, Response, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use service_kit::tasks::Shutdown;
use service_kit::{Clock, Problem, Stage, Tasks};
use tokio::time::{sleep, timeout};

use crate::answer::{AnswerBody, Theirs};
use crate::authorize::authorize;
use crate::exchange::Exchange;
use crate::forward::{self, CallerRules, Connector, ForwardRules, Hop};
use crate::identify::{self, IdentityRules, Issuers, Peer};
use crate::inspect::inspect;
use crate::limit::{self, Held, Limiter};
use crate::metrics::GatewayMetrics;
use crate::rate::Rate;
use crate::record::Recorder;
use crate::refusal::{DenyStatus, Refusal};
use crate::route::RouteTable;
use crate::sessions::Sessions;
use crate::traces::{Traces, TracesConfig};
use crate::upstream::{AskFault, IDLE_MAX, Lease};

/// Lists that were shortened for one caller are not for others.
const PRIVATE: http::HeaderValue = http::HeaderValue::from_static("private");

/// What the gateway puts up with, and what it passes on.
#[derive(Debug, Clone)]
pub struct GatewayLimits {
    /// Bytes of a request's body; more gets 413.
    pub body_bytes_max: usize,
    /// Longest pause within a request's body.
    pub body_idle_timeout: Duration,
    /// Longest time for a request's body to arrive as a whole.
    pub body_timeout: Duration,
    /// Bytes of all large bodies together that are held at a time; more gets 503.
    pub bodies_bytes_max: usize,
    /// Longest time for a connection to a server to come about.
    pub connect_timeout: Duration,
    /// Longest time without a byte from the server, while it owes an answer. Streams may be silent for ever.
    pub upstream_idle_timeout: Duration,
    /// Legacy sessions whose client is remembered.
    pub sessions_max: usize,
    /// How long an unused session is remembered at least.
    pub session_idle_timeout: Duration,
    pub callers: CallerRules,
    /// What is believed of callers.
    pub identity: IdentityRules,
    pub forward: ForwardRules,
    /// Requests that are answered at a time.
    pub in_flight_max: u64,
    /// Requests of one caller that are answered at a time; `None`: as many as of all.
    pub caller_in_flight_max: Option<u32>,
    /// How often all callers together may ask.
    pub rate: Option<Rate>,
    /// How often one caller may ask.
    pub caller_rate: Option<Rate>,
    /// How clients are told that a policy refuses their call.
    pub deny_status: DenyStatus,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            body_idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_mins(2),
            bodies_bytes_max: 256 << 20,
            connect_timeout: Duration::from_secs(5),
            upstream_idle_timeout: Duration::from_mins(15),
            sessions_max: 16_384,
            session_idle_timeout: Duration::from_hours(1),
            callers: CallerRules::default(),
            identity: IdentityRules::default(),
            forward: ForwardRules::default(),
            in_flight_max: 65_536,
            caller_in_flight_max: None,
            rate: None,
            caller_rate: None,
            deny_status: DenyStatus::default(),
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
    pub(crate) limiter: Limiter,
    pub(crate) issuers: Issuers,
    pub(crate) traces: OnceLock<Traces>,
    pub(crate) in_flight: AtomicU64,
    /// Bytes of large bodies that are held now.
    pub(crate) bodies_bytes: AtomicUsize,
    connector: Connector,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Gateway {
    /// Needs a tokio runtime around it.
    pub fn new(routes: RouteTable, recorder: Recorder, limits: GatewayLimits, tasks: &Tasks) -> Self {
        let shared = Shared {
            metrics: GatewayMetrics::shared(tasks.metrics(), &recorder),
            limiter: Limiter::default(),
            issuers: Issuers::default(),
            traces: OnceLock::new(),
            sessions: Sessions::new(limits.sessions_max, limits.session_idle_timeout),
            connector: forward::connector(limits.connect_timeout),
            clock: tasks.clock().clone(),
            shutdown: tasks.shutdown(Stage::Intake),
            tasks: tasks.clone(),
            in_flight: AtomicU64::new(0),
            bodies_bytes: AtomicUsize::new(0),
            routes,
            recorder,
            limits,
        };
        let gateway = Self {
            shared: Arc::new(shared),
        };
        tasks.spawn(Stage::Intake, "idle connections", let_go(Arc::clone(&gateway.shared)));
        gateway
    }

    /// The routes, to be replaced while requests pass.
    pub fn routes(&self) -> &RouteTable {
        &self.shared.routes
    }

    /// Sends a span of each exchange to a collector, from now on. Only the first collector counts.
    pub fn trace(&self, config: TracesConfig, tasks: &Tasks) {
        self.shared.traces.get_or_init(|| Traces::start(config, tasks));
    }

    /// Requests that have not ended.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Answers one request.
    pub async fn answer(&self, peer: impl Into<Peer>, request: Request<Incoming>) -> Response<AnswerBody> {
        if let Some(response) = self.health(&request) {
            return response;
        }
        if let Some(response) = identify::metadata(&self.shared, &request) {
            return response.map(AnswerBody::ours);
        }
        let Some(site) = self.shared.routes.find(request.uri().path()) else {
            self.shared.metrics.unrouted();
            return unrouted();
        };
        let (head, body) = request.into_parts();
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut exchange = Exchange::begin(Arc::clone(&self.shared), site, &head);
        match self.pass(&mut exchange, &peer.into(), head, body).await {
            Ok((response, lease)) => self.stream(exchange, response, lease),
            Err(refusal) => refuse(exchange, &refusal),
        }
    }

    async fn pass(
        &self,
        exchange: &mut Exchange,
        peer: &Peer,
        head: request::Parts,
        body: Incoming,
    ) -> Result<(Response<Incoming>, Lease), Box<Refusal>> {
        limit::check(&self.shared.limits, &head)?;
        self.shared.limiter.admit(&self.shared)?;
        exchange.identify(&head, peer).await?;
        limit::admit_caller(exchange, peer.address)?;
        let Held {
            bytes: body,
            room: _room,
        } = limit::read(&self.shared, body).await?;
        let judged = {
            let inspected = if body.is_empty() { Ok(None) } else { inspect(&body).map(Some) };
            exchange.inspect(&head.headers, &body, &inspected);
            authorize(exchange, &head, &inspected)
        };
        judged?;
        self.forward(exchange, peer, head, body).await
    }

    async fn forward(
        &self,
        exchange: &mut Exchange,
        peer: &Peer,
        head: request::Parts,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Lease), Box<Refusal>> {
        let hop = Hop {
            peer: peer.address,
            trace: exchange.trace,
        };
        let mut head = head;
        identify::replace_headers(&exchange.policy, &exchange.caller, exchange.session_name(), &mut head.headers);
        let Some(request) = forward::request(&exchange.site, &self.shared.limits.forward, head, body, &hop) else {
            return Err(Refusal::denied(
                "bad_path",
                Problem::bad_request("the path cannot be passed on"),
            ));
        };
        exchange.forwards();
        let limit = self.shared.limits.upstream_idle_timeout;
        match timeout(limit, exchange.site.state.upstream.ask(&self.shared.connector, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fault)) => Err(unreachable(exchange, &fault)),
            Err(_elapsed) => {
                let problem = Problem::gateway_timeout(format!("the server sent nothing for {limit:?}"));
                Err(Refusal::unanswered("timeout", problem))
            }
        }
    }

    fn stream(&self, mut exchange: Exchange, response: Response<Incoming>, lease: Lease) -> Response<AnswerBody> {
        let (mut head, body) = response.into_parts();
        forward::remove_hop_by_hop(&mut head.headers);
        exchange.answered(head.status, &head.headers, body.is_end_stream());
        let endless = exchange.is_stream();
        let idle_max = (!endless).then_some(self.shared.limits.upstream_idle_timeout);
        if exchange.needs_filter() {
            head.headers.remove(header::CONTENT_LENGTH);
            head.headers.insert(header::CACHE_CONTROL, PRIVATE);
        }
        let stop = self.stop(&exchange);
        Response::from_parts(head, AnswerBody::theirs(Theirs { body, lease }, exchange, idle_max, stop))
    }

    /// What ends an answer before its end: the process that stops, and the policy that does not allow it any more.
    fn stop(&self, exchange: &Exchange) -> Option<BoxFuture<'static, Option<&'static str>>> {
        let standing = exchange.standing().filter(|_| exchange.is_sse());
        let shutdown = exchange
            .is_stream()
            .then(|| self.shared.shutdown.clone().requested_owned().map(|()| None));
        match (shutdown, standing) {
            (None, None) => None,
            (Some(shutdown), None) => Some(shutdown.boxed()),
            (None, Some(standing)) => Some(standing.falls().map(Some).boxed()),
            (Some(shutdown), Some(standing)) => {
                let falls = standing.falls().map(Some).boxed();
                Some(select(shutdown.boxed(), falls).map(|ended| ended.factor_first().0).boxed())
            }
        }
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

fn refuse(mut exchange: Exchange, refusal: &Refusal) -> Response<AnswerBody> {
    let id = exchange.request_id().cloned();
    let response = refusal.response(id.as_ref(), exchange.trace);
    exchange.answers(response.status(), refusal.ending);
    exchange.passes(response.body());
    response.map(AnswerBody::ours)
}

fn unrouted() -> Response<AnswerBody> {
    let problem = Problem::not_found("no MCP server has this path").with_hint("servers are at `/<server>/mcp`");
    problem.to_response(None).map(AnswerBody::ours)
}

fn unreachable(exchange: &Exchange, fault: &AskFault) -> Box<Refusal> {
    let (reason, message) = match fault {
        AskFault::Connect(_) => ("upstream_unreachable", "the server cannot be reached"),
        AskFault::Ask(_) => ("upstream_broken", "the server ended the connection without an answer"),
    };
    exchange.site.is_away(fault);
    Refusal::unanswered(reason, Problem::bad_gateway(message))
}

/// Closes connections to servers that nobody calls any more.
async fn let_go(shared: Arc<Shared>) -> anyhow::Result<()> {
    while shared.shutdown.or(sleep(IDLE_MAX)).await.is_some() {
        for site in shared.routes.sites() {
            site.state.upstream.let_go();
        }
    }
    Ok(())
}
