//! What the processor counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use domain::{EventBatch, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use sentinel_queue::Lag;
use sentinel_store::Inserted;
use service_kit::Metrics;

use crate::ledger::Counts;

/// Upper bounds in seconds: an insert takes milliseconds, a store that is away up to its timeout.
const INSERT_BOUNDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 30.0];
/// Upper bounds in seconds: 50 ms is promised, hours are an outage worked off.
const FRESHNESS_BOUNDS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0, 600.0, 3_600.0];

#[derive(Debug)]
pub(crate) struct ProcessorMetrics {
    stored: Counter,
    duplicates: Counter,
    batches: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) retries: Counter,
    pub(crate) dead_letters: Counter,
    dead_letters_kept: Gauge,
    pub(crate) insert_seconds: Histogram,
    freshness_seconds: Histogram,
    lag_events: Gauge,
    lag_seconds: Gauge<f64, AtomicU64>,
    queue_bytes: Gauge,
    missing: Gauge,
    repeated: Gauge,
}

impl ProcessorMetrics {
    pub(crate) fn shared(metrics: &Metrics) -> Arc<Self> {
        metrics.register("sentinel_processor", Self::register)
    }

    fn register(registry: &mut Registry) -> Self {
        let mut put = Put(registry);
        Self {
            stored: put.one("events_stored", "Events stored, repeats not counted", Counter::default()),
            duplicates: put.one("events_duplicate", "Events that the store had already", Counter::default()),
            batches: put.one("batches_stored", "Inserts that succeeded", Counter::default()),
            redelivered: put.one(
                "events_redelivered",
                "Events handed out again that the store held for good",
                Counter::default(),
            ),
            retries: put.one(
                "retries",
                "Inserts and dead letters that failed and were repeated",
                Counter::default(),
            ),
            dead_letters: put.one("dead_letters", "Records set aside", Counter::default()),
            dead_letters_kept: put.one("dead_letters_kept", "Records that are set aside now", Gauge::default()),
            insert_seconds: put.one(
                "insert_seconds",
                "Time of an insert, failed ones included",
                Histogram::new(INSERT_BOUNDS),
            ),
            freshness_seconds: put.one(
                "freshness_seconds",
                "From receipt to visible",
                Histogram::new(FRESHNESS_BOUNDS),
            ),
            lag_events: put.one("lag_events", "Events that wait in the queue", Gauge::default()),
            lag_seconds: put.one("lag_seconds", "Age of the oldest event that waits", Gauge::default()),
            queue_bytes: put.one("queue_bytes", "Bytes the queue takes", Gauge::default()),
            missing: put.one(
                "events_missing",
                "Events that producers numbered but that did not come",
                Gauge::default(),
            ),
            repeated: put.one("events_repeated", "Numbers of producers that came again", Gauge::default()),
        }
    }

    pub(crate) fn stored(&self, batch: &EventBatch, inserted: Inserted, now: Timestamp) {
        self.batches.inc();
        self.stored.inc_by(inserted.stored);
        self.duplicates.inc_by(inserted.duplicates);
        for (_, event) in &batch.events {
            self.freshness_seconds.observe(now.since(event.received_at).as_secs_f64());
        }
    }

    pub(crate) fn producers(&self, counts: Counts) {
        self.missing.set(whole(counts.missing));
        self.repeated.set(whole(counts.repeated));
    }

    pub(crate) fn lag(&self, lag: Lag, dead_letters: u64) {
        self.lag_events.set(whole(lag.events));
        self.lag_seconds.set(lag.age.as_secs_f64());
        self.queue_bytes.set(whole(lag.bytes));
        self.dead_letters_kept.set(whole(dead_letters));
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

struct Put<'a>(&'a mut Registry);

impl Put<'_> {
    fn one<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}
