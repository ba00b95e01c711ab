//! What ingest counts.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::Event;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use service_kit::Metrics;

/// Namespaces with a label of their own; those seen later are counted together as [`OTHER`].
const NAMESPACES_MAX: usize = 256;
const OTHER: &str = "other";
/// Namespaces of one batch that are counted together.
const NAMESPACES_AT_ONCE: usize = 16;

/// Upper bounds in seconds: a group commit takes about a millisecond, a broker up to seconds.
const LATENCY_BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

#[derive(Debug)]
pub(crate) struct IngestMetrics {
    accepted: Family<ByNamespace, Counter>,
    duplicates: Family<ByNamespace, Counter>,
    rejected: Family<Rejected, Counter>,
    refused: Family<Refused, Counter>,
    received: Family<ByNamespace, Counter>,
    decompressed: Counter,
    durability: Histogram,
    queue: Histogram,
    in_flight: Gauge,
    pub(crate) in_flight_bytes: Gauge,
    usable_keys: Gauge,
    namespaces: RwLock<HashSet<Arc<str>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNamespace {
    namespace: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    namespace: Arc<str>,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    code: &'static str,
}

impl IngestMetrics {
    pub(crate) fn shared(metrics: &Metrics) -> Arc<Self> {
        metrics.register("sentinel_ingest", Self::register)
    }

    fn register(registry: &mut Registry) -> Self {
        let all = Self {
            accepted: Family::default(),
            duplicates: Family::default(),
            rejected: Family::default(),
            refused: Family::default(),
            received: Family::default(),
            decompressed: Counter::default(),
            durability: Histogram::new(LATENCY_BOUNDS),
            queue: Histogram::new(LATENCY_BOUNDS),
            in_flight: Gauge::default(),
            in_flight_bytes: Gauge::default(),
            usable_keys: Gauge::default(),
            namespaces: RwLock::default(),
        };
        registry.register("events_accepted", "Events made durable", all.accepted.clone());
        registry.register("events_duplicate", "Events repeated within one body", all.duplicates.clone());
        registry.register("events_rejected", "Events refused one by one", all.rejected.clone());
        registry.register("requests_refused", "Requests refused as a whole", all.refused.clone());
        registry.register("body_bytes", "Bytes of bodies as sent", all.received.clone());
        registry.register(
            "decompressed_bytes",
            "Bytes of bodies once decompressed",
            all.decompressed.clone(),
        );
        registry.register("durability_seconds", "Time from headers to durable", all.durability.clone());
        registry.register(
            "append_seconds",
            "Time the queue took to make events durable",
            all.queue.clone(),
        );
        registry.register("requests_in_flight", "Requests being worked on", all.in_flight.clone());
        registry.register(
            "in_flight_bytes",
            "Memory held by these requests",
            all.in_flight_bytes.clone(),
        );
        registry.register("keys_usable", "Keys neither revoked nor expired", all.usable_keys.clone());
        all
    }

    /// The label of a namespace, out of a set that ends growing at its bound.
    fn label(&self, namespace: &str) -> Arc<str> {
        let known = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(namespace) {
            Some(label) => return Arc::clone(label),
            None if known.len() >= NAMESPACES_MAX => return OTHER.into(),
            None => drop(known),
        }
        let mut known = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMESPACES_MAX {
            return OTHER.into();
        }
        let label: Arc<str> = namespace.into();
        known.insert(Arc::clone(&label));
        label
    }

    pub(crate) fn accepted(&self, events: &[Event]) {
        // A label costs more than an event's reading, so each namespace of a batch is looked up once. Whoever may write to more
        // than these few pays for the rest one by one.
        let mut counts: [(&str, u64); NAMESPACES_AT_ONCE] = [("", 0); NAMESPACES_AT_ONCE];
        for event in events {
            let namespace = event.namespace();
            match counts.iter_mut().find(|(known, count)| *count == 0 || *known == namespace) {
                Some(slot) => *slot = (namespace, slot.1 + 1),
                None => self.add_accepted(namespace, 1),
            }
        }
        for (namespace, count) in counts.into_iter().take_while(|(_, count)| *count > 0) {
            self.add_accepted(namespace, count);
        }
    }

    fn add_accepted(&self, namespace: &str, count: u64) {
        let namespace = self.label(namespace);
        self.accepted.get_or_create(&ByNamespace { namespace }).inc_by(count);
    }

    pub(crate) fn duplicates(&self, namespace: &str, count: usize) {
        if count > 0 {
            let namespace = self.label(namespace);
            self.duplicates.get_or_create(&ByNamespace { namespace }).inc_by(count as u64);
        }
    }

    pub(crate) fn rejected(&self, namespace: &str, code: &'static str, count: usize) {
        let namespace = self.label(namespace);
        self.rejected
            .get_or_create(&Rejected { namespace, code })
            .inc_by(count as u64);
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&Refused { code }).inc();
    }

    pub(crate) fn received(&self, namespace: &str, bytes: usize) {
        let namespace = self.label(namespace);
        self.received.get_or_create(&ByNamespace { namespace }).inc_by(bytes as u64);
    }

    pub(crate) fn decompressed(&self, bytes: usize) {
        self.decompressed.inc_by(bytes as u64);
    }

    pub(crate) fn durable(&self, since_headers: Duration, since_append: Duration) {
        self.durability.observe(since_headers.as_secs_f64());
        self.queue.observe(since_append.as_secs_f64());
    }

    pub(crate) fn usable_keys(&self, count: usize) {
        self.usable_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn start(self: &Arc<Self>) -> InFlight {
        self.in_flight.inc();
        InFlight(Arc::clone(self))
    }
}

#[derive(Debug)]
pub(crate) struct InFlight(Arc<IngestMetrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_beyond_the_bound_share_a_label() {
        let metrics = IngestMetrics::shared(&Metrics::new());
        for number in 0..NAMESPACES_MAX {
            let namespace = format!("team-{number}");
            assert_eq!(&*metrics.label(&namespace), namespace);
        }
        assert_eq!(&*metrics.label("one-too-many"), OTHER);
        assert_eq!(&*metrics.label("team-7"), "team-7");
    }

    #[test]
    fn each_event_of_a_batch_counts_for_its_namespace() {
        let metrics = IngestMetrics::shared(&Metrics::new());
        let namespaces = NAMESPACES_AT_ONCE + 5;
        let events: Vec<Event> = (0..3 * namespaces)
            .map(|number| {
                let namespace = number % namespaces;
                let json = format!(
                    r#"{{"id":"0190f1e0-0000-7abc-8def-000000000001","timestamp":"2026-11-22T15:04:05Z","received_at":"2026-11-22T15:04:05Z",
                    "source":"s","event_type":"e","payload":{{"namespace":"team-{namespace}"}}}}"#
                );
                serde_json::from_str(&json).unwrap()
            })
            .collect();
        metrics.accepted(&events);
        for namespace in 0..namespaces {
            let namespace = metrics.label(&format!("team-{namespace}"));
            assert_eq!(metrics.accepted.get_or_create(&ByNamespace { namespace }).get(), 3);
        }
    }
}
