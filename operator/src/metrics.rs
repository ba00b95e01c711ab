//! What the operator counts. Labels come from closed sets: verbs, kinds and outcomes, never names.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use service_kit::Metrics;

/// Upper bounds in seconds of one pass: without writes well under a millisecond, with some tens of writes up to seconds.
const PASS_BOUNDS: [f64; 10] = [0.000_1, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug)]
pub struct OperatorMetrics {
    requests: Family<Request, Counter>,
    passes: Family<Pass, Counter>,
    policy_requests: Family<PolicyRequest, Counter>,
    pub pass_seconds: Histogram,
    pub waiting: Gauge,
    pub running: Gauge,
    pub is_leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pass {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyRequest {
    answer: &'static str,
}

impl OperatorMetrics {
    pub fn shared(metrics: &Metrics) -> Arc<Self> {
        metrics.register("mcp_operator", Self::register)
    }

    fn register(registry: &mut Registry) -> Self {
        let this = Self {
            requests: Family::default(),
            passes: Family::default(),
            policy_requests: Family::default(),
            pass_seconds: Histogram::new(PASS_BOUNDS),
            waiting: Gauge::default(),
            running: Gauge::default(),
            is_leader: Gauge::default(),
        };
        registry.register("api_requests", "Requests to the API server", this.requests.clone());
        registry.register("passes", "Passes over one server", this.passes.clone());
        registry.register(
            "policy_requests",
            "Requests of gateways for their policy, by answer",
            this.policy_requests.clone(),
        );
        registry.register("pass_seconds", "Time of one pass over one server", this.pass_seconds.clone());
        registry.register("waiting", "Servers waiting for a pass", this.waiting.clone());
        registry.register("running", "Passes going on", this.running.clone());
        registry.register(
            "leader",
            "Whether this operator is the one that works",
            this.is_leader.clone(),
        );
        this
    }

    pub fn count_request(&self, verb: &'static str, resource: &'static str) {
        self.requests.get_or_create(&Request { verb, resource }).inc();
    }

    pub fn count_pass(&self, outcome: &'static str) {
        self.passes.get_or_create(&Pass { outcome }).inc();
    }

    pub fn count_policy_request(&self, answer: &'static str) {
        self.policy_requests.get_or_create(&PolicyRequest { answer }).inc();
    }

    /// Requests that were counted, by verb and resource.
    pub fn requests(&self, verb: &'static str, resource: &'static str) -> u64 {
        self.requests.get_or_create(&Request { verb, resource }).get()
    }
}
