//! What is counted about tasks: readiness, running tasks by stage, faults.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Shared, Stage};
use crate::metrics::Metrics;

/// Reads a process at each scrape, as long as it exists.
#[derive(Debug)]
struct TasksCollector(Weak<Shared>);

/// Marks that a registry has the metrics of tasks.
#[derive(Debug)]
struct TaskMetrics;

pub(super) fn register(metrics: &Metrics, shared: Weak<Shared>) {
    metrics.register("service_kit", |registry| {
        registry.register_collector(Box::new(TasksCollector(shared)));
        TaskMetrics
    });
}

impl Collector for TasksCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.0.upgrade() else {
            return Ok(());
        };
        let ready = ConstGauge::new(i64::from(shared.readiness.report().ready));
        ready.encode(encoder.encode_descriptor(
            "ready",
            "Whether every condition of readiness holds",
            None,
            MetricType::Gauge,
        )?)?;
        let mut running = encoder.encode_descriptor("tasks_running", "Tasks running now", None, MetricType::Gauge)?;
        for (stage, tasks) in Stage::ALL.into_iter().zip(&shared.stages) {
            let count = ConstGauge::new(i64::try_from(tasks.len()).unwrap_or(i64::MAX));
            count.encode(running.encode_family(&[("stage", stage.as_str())])?)?;
        }
        let faults = ConstCounter::new(shared.faults_total.get());
        faults.encode(encoder.encode_descriptor("task_faults", "Tasks that failed", None, MetricType::Counter)?)
    }
}
