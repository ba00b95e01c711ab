//! What is counted about listeners and requests.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::metrics::Metrics;

/// Upper bounds in seconds: a local answer takes a fraction of a millisecond, a large query seconds.
const LATENCY_BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The metrics of all listeners of the process.
#[derive(Debug)]
pub(super) struct HttpMetrics {
    open: Family<Listener, Gauge>,
    accepted: Family<Listener, Counter>,
    refused: Family<Listener, Counter>,
    accept_errors: Family<Listener, Counter>,
    broken: Family<Broken, Counter>,
    requests: Family<Answered, Counter>,
    latency: Family<Listener, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Broken {
    listener: &'static str,
    /// From [`broken_cause`], or `deadline`.
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    listener: &'static str,
    /// From [`method_label`].
    method: &'static str,
    /// From [`status_class`].
    status: &'static str,
}

/// The metrics of one listener, looked up once.
#[derive(Clone, Debug)]
pub(super) struct ListenerMetrics {
    name: &'static str,
    all: Arc<HttpMetrics>,
    pub(super) open: Gauge,
    pub(super) accepted: Counter,
    pub(super) refused: Counter,
    pub(super) accept_errors: Counter,
    latency: Histogram,
}

impl HttpMetrics {
    pub(super) fn shared(metrics: &Metrics) -> Arc<Self> {
        metrics.register("service_kit", Self::register)
    }

    fn register(registry: &mut Registry) -> Self {
        let all = Self {
            open: Family::default(),
            accepted: Family::default(),
            refused: Family::default(),
            accept_errors: Family::default(),
            broken: Family::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BOUNDS)),
        };
        registry.register("http_connections_open", "Connections open now", all.open.clone());
        registry.register("http_connections_accepted", "Connections accepted", all.accepted.clone());
        registry.register(
            "http_connections_refused",
            "Connections refused at the bound",
            all.refused.clone(),
        );
        registry.register(
            "http_accept_errors",
            "Failures of the system to accept",
            all.accept_errors.clone(),
        );
        registry.register("http_connections_broken", "Connections ended by a fault", all.broken.clone());
        registry.register("http_requests", "Requests answered", all.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from headers to answer",
            all.latency.clone(),
        );
        all
    }

    pub(super) fn of_listener(self: &Arc<Self>, listener: &'static str) -> ListenerMetrics {
        let label = Listener { listener };
        ListenerMetrics {
            name: listener,
            all: Arc::clone(self),
            open: self.open.get_or_create_owned(&label),
            accepted: self.accepted.get_or_create_owned(&label),
            refused: self.refused.get_or_create_owned(&label),
            accept_errors: self.accept_errors.get_or_create_owned(&label),
            latency: self.latency.get_or_create_owned(&label),
        }
    }
}

impl ListenerMetrics {
    pub(super) fn broken(&self, error: &hyper::Error) {
        self.count_broken(broken_cause(error));
    }

    /// The client and we could not agree on TLS.
    #[cfg(feature = "tls")]
    pub(super) fn handshake_failed(&self) {
        self.count_broken("tls_handshake");
    }

    /// A request was still in flight when the time for draining was over.
    pub(super) fn cut_off_at_deadline(&self) {
        self.count_broken("deadline");
    }

    fn count_broken(&self, cause: &'static str) {
        self.all
            .broken
            .get_or_create(&Broken {
                listener: self.name,
                cause,
            })
            .inc();
    }

    pub(super) fn answered(&self, method: &Method, status: StatusCode, latency: Duration) {
        let (method, status) = (method_label(method), status_class(status));
        self.all
            .requests
            .get_or_create(&Answered {
                listener: self.name,
                method,
                status,
            })
            .inc();
        self.latency.observe(latency.as_secs_f64());
    }
}

/// Why a connection ended other than by being closed.
fn broken_cause(error: &hyper::Error) -> &'static str {
    if error.is_timeout() {
        "header_timeout"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_incomplete_message() || error.is_body_write_aborted() || error.is_closed() {
        "client_left"
    } else {
        "other"
    }
}

/// Clients may invent methods, and a label set must stay closed.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}
