//! What an adapter counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: Counter,
    pub(crate) notifications: Counter,
    pub(crate) responses: Counter,
    pub(crate) server_messages: Counter,
    pub(crate) refused: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) retries: Counter,
    pub(crate) resumed: Counter,
    pub(crate) sessions_issued: Counter,
    pub(crate) session_failures: Counter,
    pub(crate) revived: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) session_expires_seconds: Gauge,
}

impl Metrics {
    pub(crate) fn shared(metrics: &service_kit::Metrics) -> std::sync::Arc<Self> {
        metrics.register("adapter", |registry| {
            let own = Self::default();
            own.register(registry);
            own
        })
    }

    fn register(&self, registry: &mut Registry) {
        let counters = [
            ("requests", "Requests of the client", &self.requests),
            ("notifications", "Notifications of the client", &self.notifications),
            ("responses", "Answers of the client to the server", &self.responses),
            (
                "server_messages",
                "Messages of the server handed to the client",
                &self.server_messages,
            ),
            (
                "refused",
                "Requests that the adapter answered itself with an error",
                &self.refused,
            ),
            ("unreadable", "Messages that were no JSON-RPC", &self.unreadable),
            ("retries", "Requests that were sent again", &self.retries),
            ("resumed", "Streams taken up after they broke", &self.resumed),
            ("sessions_issued", "Sessions had from the platform", &self.sessions_issued),
            (
                "session_failures",
                "Times that no session was to be had",
                &self.session_failures,
            ),
            (
                "revived",
                "Protocol sessions made again after the server forgot them",
                &self.revived,
            ),
            ("cache_hits", "Lists of tools answered from memory", &self.cache_hits),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "requests_in_flight",
            "Requests that wait for their answer",
            self.in_flight.clone(),
        );
        registry.register(
            "session_expires_seconds",
            "When the session ends, in seconds since 1970; 0 when it does not",
            self.session_expires_seconds.clone(),
        );
    }
}
