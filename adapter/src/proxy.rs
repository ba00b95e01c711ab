//! The adapter as a listener on this machine: every path leads to the one server, with the session added.
//!
//! Bodies pass as they come. What browsers could misuse is refused: requests of other origins, and names that are not this machine's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use service_kit::http::HttpLimits;
use service_kit::{Problem, Stage, Tasks};
use tokio::net::TcpListener;

use crate::message::Message;
use crate::reply::Refusal;
use crate::upstream::{Answer, Outgoing, Repeat, Upstream};

/// How the listener behaves.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Longest request body, in bytes.
    pub body_bytes_max: usize,
    /// Origins besides this machine's that browsers may call from.
    pub origins: Vec<String>,
    /// Names besides this machine's under which it may be called.
    pub hosts: Vec<String>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            origins: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Proxy {
    upstream: Upstream,
    config: ProxyConfig,
    tasks: Tasks,
}

/// Headers that belong to one connection.
const OF_A_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Serves clients on `listener`, and gives the bound address.
pub fn serve(upstream: Upstream, config: ProxyConfig, listener: TcpListener, tasks: &Tasks) -> io::Result<SocketAddr> {
    let limits = HttpLimits {
        body_bytes_max: config.body_bytes_max,
        ..HttpLimits::default()
    };
    let proxy = Arc::new(Proxy {
        upstream,
        config,
        tasks: tasks.clone(),
    });
    let own = Router::new()
        .route("/livez", get(async || StatusCode::NO_CONTENT))
        .route("/healthz", get(async || StatusCode::NO_CONTENT))
        .route("/readyz", get(ready))
        .route("/.well-known/{*rest}", get(no_discovery))
        .fallback(forward)
        .with_state(Arc::clone(&proxy))
        .merge(service_kit::health::routes(tasks));
    let leaving = Arc::clone(&proxy);
    let shutdown = tasks.shutdown(Stage::Query);
    tasks.spawn(Stage::Query, "adapter farewell", async move {
        shutdown.requested().await;
        leaving.upstream.farewell().await;
        Ok(())
    });
    let app = own.layer(axum::middleware::from_fn_with_state(proxy, guard));
    service_kit::http::serve("adapter", listener, app, limits, tasks, Stage::Intake)
}

/// Keeps out what a page in a browser could send on behalf of its visitor.
async fn guard(State(proxy): State<Arc<Proxy>>, request: Request, next: axum::middleware::Next) -> Response {
    match proxy.admit(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            proxy.upstream.metrics().refused.inc();
            problem.into_response()
        }
    }
}

async fn ready(State(proxy): State<Arc<Proxy>>) -> StatusCode {
    if proxy.upstream.is_ready() {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Clients look for somebody to log in at; here the adapter is logged in for them.
async fn no_discovery() -> Problem {
    Problem::not_found("no login is needed here: the adapter is logged in for its clients")
}

async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    match proxy.forward(request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

impl Proxy {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name: HeaderName| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase())
        };
        if let Some(origin) = text(header::ORIGIN) {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            if !is_this_machine(host) && !self.config.origins.iter().any(|known| known.eq_ignore_ascii_case(&origin)) {
                return Err(
                    Problem::forbidden("requests of this origin are not taken").with_hint("allow it with --allow-origin")
                );
            }
        }
        let host = text(header::HOST).unwrap_or_default();
        if !is_this_machine(&host)
            && !self
                .config
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(without_port(&host)))
        {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                "this adapter is not called by that name",
            )
            .with_hint("call it by 127.0.0.1, or allow the name with --allow-host"));
        }
        Ok(())
    }

    async fn forward(&self, request: Request) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        if !matches!(head.method, Method::POST | Method::GET | Method::DELETE) {
            return Err(Problem::method_not_allowed(&[Method::POST, Method::GET, Method::DELETE]));
        }
        let bytes_max = self.config.body_bytes_max;
        let body = axum::body::to_bytes(body, bytes_max).await.map_err(|_| {
            Problem::payload_too_large(format!("the body is longer than {bytes_max} bytes, or broke off"))
                .with_hint("allow more with --max-inbound-bytes")
        })?;
        let message = Message::parse(body.clone()).ok().filter(|_| head.method == Method::POST);
        self.upstream.metrics().requests.inc();
        let is_read = head.method == Method::GET || message.as_ref().is_some_and(Message::is_read);
        let outgoing = Outgoing {
            method: head.method,
            headers: passing(&head.headers),
            body,
            repeat: if is_read { Repeat::Always } else { Repeat::Unsent },
        };
        Ok(match self.upstream.send(&outgoing).await {
            Ok(answer) => self.answer(answer),
            Err(refusal) => {
                self.upstream.metrics().refused.inc();
                refused(&refusal, message.as_ref())
            }
        })
    }

    /// The answer, passed on piece by piece; a stream without end stops when the adapter does.
    fn answer(&self, answer: Answer) -> Response {
        let status = answer.status;
        let headers = passing(&answer.headers);
        let shutdown = self.tasks.shutdown(Stage::Intake);
        let pieces = futures::stream::try_unfold((answer, shutdown), async |(mut answer, shutdown)| {
            let next = shutdown.or(answer.chunk()).await.unwrap_or(Ok(None));
            let next: Option<Bytes> = next.map_err(|refusal| io::Error::other(refusal.message))?;
            Ok::<_, io::Error>(next.map(|piece| (piece, (answer, shutdown))))
        });
        let mut response = Response::new(Body::from_stream(pieces));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Headers that may pass an intermediary.
fn passing(headers: &HeaderMap) -> HeaderMap {
    let mut passing = headers.clone();
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in OF_A_CONNECTION.iter().chain(&listed) {
        passing.remove(name);
    }
    for name in [header::HOST, header::CONTENT_LENGTH, header::ORIGIN, header::REFERER] {
        passing.remove(name);
    }
    passing
}

/// A refusal of the adapter: as JSON-RPC where a request waits for an answer, else as a problem.
fn refused(refusal: &Refusal, message: Option<&Message>) -> Response {
    let status = u16::try_from(refusal.code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
    let Some(id) = message.and_then(|message| message.waiting().into_iter().next()) else {
        let problem = Problem::new(status, refusal.reason, refusal.message.clone());
        return match &refusal.hint {
            Some(hint) => problem.with_hint(hint.clone()),
            None => problem,
        }
        .into_response();
    };
    let mut response = Response::new(Body::from(refusal.answer(&id)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn without_port(host: &str) -> &str {
    if host.ends_with(']') {
        return host;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether a host, with or without port, is a name of this machine that no page elsewhere can have.
fn is_this_machine(host: &str) -> bool {
    matches!(without_port(host), "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests;
