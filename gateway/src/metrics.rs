//! What operators chart. Labels come from closed sets, but for server and namespace, of which there are as many as routes.

use std::sync::Arc;

use domain::Payload;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::record::Recorder;
use crate::route::Site;

/// Upper bounds in seconds: from a local answer to a long tool call.
const DURATION_BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Upper bounds in seconds of our own part.
const OVERHEAD_BOUNDS: [f64; 9] = [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1];

#[derive(Debug)]
pub(crate) struct GatewayMetrics {
    requests: Family<RequestLabels, Counter>,
    request_bytes: Family<SiteLabels, Counter>,
    response_bytes: Family<SiteLabels, Counter>,
    duration: Family<SiteLabels, Histogram, fn() -> Histogram>,
    overhead: Histogram,
    decisions: Family<DecisionLabels, Counter>,
    in_flight: Family<SiteLabels, Gauge>,
    unrouted: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SiteLabels {
    namespace: Arc<str>,
    server: Arc<str>,
}

/// The metrics of one server, looked up once.
#[derive(Debug)]
pub(crate) struct SiteMetrics {
    labels: SiteLabels,
    request_bytes: Counter,
    response_bytes: Counter,
    duration: Histogram,
    in_flight: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    namespace: Arc<str>,
    server: Arc<str>,
    method: &'static str,
    rpc_method: &'static str,
    decision: &'static str,
    outcome: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    namespace: Arc<str>,
    server: Arc<str>,
    decision: &'static str,
    reason: &'static str,
    rpc_method: &'static str,
}

impl GatewayMetrics {
    pub(crate) fn shared(metrics: &service_kit::Metrics, recorder: &Recorder) -> Arc<Self> {
        metrics.register("mcp_gateway", |registry| {
            recorder.register(registry);
            Self::register(registry)
        })
    }

    fn register(registry: &mut Registry) -> Self {
        let all = Self {
            requests: Family::default(),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BOUNDS)),
            overhead: Histogram::new(OVERHEAD_BOUNDS),
            decisions: Family::default(),
            in_flight: Family::default(),
            unrouted: Counter::default(),
        };
        registry.register("requests", "Requests that ended", all.requests.clone());
        registry.register("request_bytes", "Bytes of request bodies", all.request_bytes.clone());
        registry.register("response_bytes", "Bytes of answers", all.response_bytes.clone());
        registry.register(
            "request_duration_seconds",
            "From the first byte of the request to the last of the answer",
            all.duration.clone(),
        );
        registry.register(
            "overhead_seconds",
            "The part of it before the server was asked",
            all.overhead.clone(),
        );
        registry.register("policy_decisions", "Decisions of the policy", all.decisions.clone());
        registry.register("inflight_requests", "Requests that have not ended", all.in_flight.clone());
        registry.register("unrouted_requests", "Requests for a path of no server", all.unrouted.clone());
        all
    }

    fn of_site<'s>(&self, site: &'s Site) -> &'s SiteMetrics {
        site.metrics.get_or_init(|| {
            let labels = SiteLabels {
                namespace: site.route.namespace.as_str().into(),
                server: site.route.server.as_str().into(),
            };
            SiteMetrics {
                request_bytes: self.request_bytes.get_or_create_owned(&labels),
                response_bytes: self.response_bytes.get_or_create_owned(&labels),
                duration: self.duration.get_or_create_owned(&labels),
                in_flight: self.in_flight.get_or_create_owned(&labels),
                labels,
            }
        })
    }

    pub(crate) fn began(&self, site: &Site) {
        self.of_site(site).in_flight.inc();
    }

    pub(crate) fn unrouted(&self) {
        self.unrouted.inc();
    }

    pub(crate) fn ended(&self, site: &Site, payload: &Payload) {
        let known = self.of_site(site);
        known.in_flight.dec();
        known.request_bytes.inc_by(payload.bytes_in.unwrap_or(0));
        known.response_bytes.inc_by(payload.bytes_out.unwrap_or(0));
        let latency = payload.latency_us.unwrap_or(0);
        known.duration.observe(seconds(latency));
        if let Some(upstream) = payload.upstream_us {
            self.overhead.observe(seconds(latency.saturating_sub(upstream)));
        }
        let rpc_method = method_label(payload.rpc_method.as_deref());
        let decision = payload.decision.map_or("none", domain::Decision::as_str);
        if payload.decision.is_some() {
            let labels = DecisionLabels {
                namespace: Arc::clone(&known.labels.namespace),
                server: Arc::clone(&known.labels.server),
                decision,
                reason: reason_label(payload.reason.as_deref()),
                rpc_method,
            };
            self.decisions.get_or_create(&labels).inc();
        }
        let labels = RequestLabels {
            namespace: Arc::clone(&known.labels.namespace),
            server: Arc::clone(&known.labels.server),
            method: http_label(payload.method.as_deref()),
            rpc_method,
            decision,
            outcome: payload.outcome.map_or("none", domain::Outcome::as_str),
            status: status_class(payload.status),
        };
        self.requests.get_or_create(&labels).inc();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a histogram needs no more than 52 bits")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Clients may invent methods, and a label set must stay closed.
fn method_label(method: Option<&str>) -> &'static str {
    const KNOWN: [&str; 24] = [
        "initialize",
        "notifications/initialized",
        "notifications/cancelled",
        "ping",
        "server/discover",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "logging/setLevel",
        "subscriptions/listen",
        "tasks/get",
        "tasks/list",
        "tasks/update",
        "tasks/cancel",
        "tasks/result",
        "skills/list",
        "skills/get",
    ];
    match method {
        None => "none",
        Some(method) => KNOWN.into_iter().find(|known| *known == method).unwrap_or("other"),
    }
}

/// Reasons of policies, and those of the gateway's own.
fn reason_label(reason: Option<&str>) -> &'static str {
    const OWN: [&str; 14] = [
        "rpc_inspection_failed",
        "header_mismatch",
        "rate_limited",
        "too_many_in_flight",
        "body_too_large",
        "body_too_slow",
        "bodies_too_large",
        "host_not_allowed",
        "origin_not_allowed",
        "method_not_allowed",
        "bad_path",
        "identity_unsupported",
        "missing_bearer_token",
        "invalid_token",
    ];
    let Some(reason) = reason else { return "none" };
    let of_policy = domain::policy::Reason::parse(reason).map(domain::policy::Reason::as_str);
    of_policy
        .or_else(|| OWN.into_iter().find(|own| *own == reason))
        .unwrap_or("other")
}

fn http_label(method: Option<&str>) -> &'static str {
    const KNOWN: [&str; 7] = ["POST", "GET", "DELETE", "OPTIONS", "PUT", "PATCH", "HEAD"];
    KNOWN.into_iter().find(|known| method == Some(known)).unwrap_or("OTHER")
}

fn status_class(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(..200) => "1xx",
        Some(200..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(500..) => "5xx",
    }
}
