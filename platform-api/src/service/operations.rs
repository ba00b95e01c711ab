//! What operators see of a cluster: each part as it tells of itself, the brokers, the store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use domain::analytics::StorageReport;
use domain::operations::{
    ComponentState, ComponentStatus, KeyView, LogLine, NewKey, PipelineStatus, QueueReport, SystemStatus,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use sentinel_queue::dead_letters::DeadLetters as _;
use sentinel_queue::kafka::{KafkaAppender, KafkaDeadLetters, KafkaView};
use sentinel_store::query::{Filter, Scope};
use sentinel_store::{QueryError, Reader, UsageQuery};
use service_kit::error::Chain;
use service_kit::{LogFilter, LogRecord, Tasks};

use super::parts::{Parts, Said};
use crate::{KeySpec, Keys, LogRun, Logs, OperationError, Status};

/// Rates of errors and denials are taken over this time.
const RATES_OVER: Duration = Duration::from_hours(1);
/// Events per second are taken over this time.
const SPEED_OVER: Duration = Duration::from_mins(1);
/// Events that wait longer than this are late.
const LAG_LATE_SECONDS: f64 = 60.0;
const KEYS_ARE_ELSEWHERE: &str = "the ingest keys of this installation are in the file that sentinel-ingest reads; make and end them with `sentinel-keys` there";

/// The parts of the cluster that can be asked.
#[derive(Clone, Debug)]
pub(super) struct ClusterOperations {
    pub(super) tasks: Tasks,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) view: KafkaView,
    pub(super) parts: Parts,
    pub(super) letters: KafkaDeadLetters,
    pub(super) appender: KafkaAppender,
}

pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> OperationError {
    OperationError::Failed(Box::new(error))
}

impl ClusterOperations {
    async fn status(&self) -> Result<SystemStatus, OperationError> {
        let now = Timestamp::from_nanos(self.tasks.clock().unix_ns());
        let (parts, queue, storage, hour, minute) = tokio::join!(
            self.parts.ask(),
            self.view.look(),
            self.reader.storage(),
            self.totals(now, RATES_OVER),
            self.totals(now, SPEED_OVER)
        );
        let parts: BTreeMap<String, Said> = parts.into_iter().collect();
        let nobody = Said::default();
        let (ingest, processor) = (
            parts.get("ingest").unwrap_or(&nobody),
            parts.get("processor").unwrap_or(&nobody),
        );
        let mut pipeline = PipelineStatus {
            accepted: ingest.metrics.count("sentinel_ingest_events_accepted_total"),
            rejected: ingest.metrics.count("sentinel_ingest_events_rejected_total"),
            stored: processor.metrics.count("sentinel_processor_events_stored_total"),
            duplicates: processor.metrics.count("sentinel_processor_events_duplicate_total"),
            missing: processor.metrics.count("sentinel_processor_events_missing"),
            dead_letters: self.letters.count(),
            dropped: parts
                .values()
                .map(|said| said.metrics.count("mcp_gateway_events_dropped_total"))
                .sum(),
            lag_events: processor.metrics.count("sentinel_processor_lag_events"),
            lag_seconds: processor.lag_seconds_max,
            freshness_p50_ms: millis(processor.metrics.quantile("sentinel_processor_freshness_seconds", 0.5)),
            freshness_p99_ms: millis(processor.metrics.quantile("sentinel_processor_freshness_seconds", 0.99)),
            insert_p50_ms: millis(processor.metrics.quantile("sentinel_processor_insert_seconds", 0.5)),
            insert_p99_ms: millis(processor.metrics.quantile("sentinel_processor_insert_seconds", 0.99)),
            ..PipelineStatus::default()
        };
        if let Ok(queue) = &queue {
            self.lag_of_brokers(queue, now, &mut pipeline);
        }
        if let (Ok(hour), Ok(minute)) = (&hour, &minute) {
            pipeline.error_rate = hour.error_rate();
            pipeline.deny_rate = hour.deny_rate();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let per_second = minute.events as f64 / SPEED_OVER.as_secs_f64();
            pipeline.events_per_second = per_second;
        }
        let mut components: Vec<ComponentStatus> = parts.into_values().filter_map(|said| said.status).collect();
        components.push(queue_status(&queue, &pipeline));
        components.push(store_status(&storage));
        components.push(self.own_status());
        Ok(SystemStatus {
            as_of: now,
            size: "cluster".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            components,
            pipeline,
            queue: queue.ok(),
            storage: storage.ok(),
            servers: Vec::new(),
            keys_expiring: Vec::new(),
        })
    }

    /// What waits while no processor is there to tell: the brokers count records, each of at least one event.
    fn lag_of_brokers(&self, queue: &QueueReport, now: Timestamp, pipeline: &mut PipelineStatus) {
        let records = queue.records_waiting();
        pipeline.lag_events = pipeline.lag_events.max(records);
        let through = self.reader.horizon().borrow().complete_through;
        if records > 0 && pipeline.lag_seconds <= 0.0 && through > Timestamp::MIN {
            pipeline.lag_seconds = now.since(through).as_secs_f64();
        }
    }

    async fn totals(&self, now: Timestamp, over: Duration) -> Result<domain::analytics::CallCounts, QueryError> {
        let mut filter = Filter::all(Scope::All);
        (filter.since, filter.until) = (Some(now.minus(over)), Some(now));
        let query = UsageQuery {
            filter,
            limit: 0,
            step: over,
        };
        Ok(self.reader.usage(query).await?.totals.calls)
    }

    fn own_status(&self) -> ComponentStatus {
        let report = self.tasks.ready_report();
        let waits: Vec<String> = report
            .conditions
            .iter()
            .filter(|condition| !condition.ready)
            .map(|condition| format!("{}: {}", condition.name, condition.reason.as_deref().unwrap_or_default()))
            .collect();
        let (state, detail) = if waits.is_empty() {
            (ComponentState::Ready, format!("version {}", env!("CARGO_PKG_VERSION")))
        } else {
            (ComponentState::NotReady, waits.join("; "))
        };
        component("platform-api", "Platform API", state, detail)
    }
}

fn millis(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|seconds| seconds * 1_000.0)
}

fn component(key: &str, display: &str, state: ComponentState, detail: String) -> ComponentStatus {
    ComponentStatus {
        key: key.to_owned(),
        display: display.to_owned(),
        state,
        detail,
        address: None,
    }
}

fn queue_status<E: std::error::Error + 'static>(queue: &Result<QueueReport, E>, pipeline: &PipelineStatus) -> ComponentStatus {
    let (state, detail) = match queue {
        Err(error) => (ComponentState::NotReady, Chain(error).to_string()),
        Ok(queue) => {
            let behind = queue.partitions_behind();
            let leaderless = queue.partitions.iter().any(|partition| partition.leader.is_none());
            let state = match (leaderless, behind > 0 || pipeline.lag_seconds > LAG_LATE_SECONDS) {
                (true, _) => ComponentState::NotReady,
                (false, true) => ComponentState::Degraded,
                (false, false) => ComponentState::Ready,
            };
            let mut detail = format!(
                "{} broker(s), {} partition(s) of {}, {} record(s) wait",
                queue.brokers.len(),
                queue.partitions.len(),
                queue.topic,
                queue.records_waiting()
            );
            if behind > 0 {
                // Writing to a string cannot fail.
                let _infallible = write!(detail, "; {behind} partition(s) miss a replica or a leader");
            }
            (state, detail)
        }
    };
    component("queue", "Queue", state, detail)
}

fn store_status(storage: &Result<StorageReport, QueryError>) -> ComponentStatus {
    match storage {
        Ok(_) => component("store", "Store", ComponentState::Ready, "answering".to_owned()),
        Err(error) => component("store", "Store", ComponentState::NotReady, Chain(error).to_string()),
    }
}

impl Status for ClusterOperations {
    fn system_status(&self) -> BoxFuture<'_, Result<SystemStatus, OperationError>> {
        self.status().boxed()
    }
}

/// Only our own: the other parts are processes elsewhere.
fn ours(component: &str) -> Result<(), OperationError> {
    match component {
        "platform-api" | "all" => Ok(()),
        other => Err(OperationError::NotFound(format!(
            "the log of {other:?} is where it runs: look with `kubectl logs` or `docker compose logs`; this API has the log of \
             platform-api"
        ))),
    }
}

fn line_of(record: &LogRecord) -> LogLine {
    LogLine {
        timestamp: Timestamp::from_nanos(record.timestamp_unix_ns),
        level: record.level.as_str().to_owned(),
        component: "platform-api".to_owned(),
        message: record.message.clone(),
        fields: record
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

impl Logs for ClusterOperations {
    fn log_lines(
        &self,
        component: &str,
        run: LogRun,
        filter: LogFilter,
    ) -> BoxFuture<'_, Result<Vec<LogLine>, OperationError>> {
        let lines = ours(component).and_then(|()| match run {
            LogRun::This => Ok(self.tasks.logs().read(&filter).iter().map(|record| line_of(record)).collect()),
            LogRun::Previous => Err(OperationError::NotFound(
                "the log of the run before is not kept here; look with `kubectl logs --previous`".to_owned(),
            )),
        });
        std::future::ready(lines).boxed()
    }

    fn follow_log_lines(&self, component: &str, filter: LogFilter) -> Result<BoxStream<'static, LogLine>, OperationError> {
        ours(component)?;
        Ok(self.tasks.logs().follow(filter).map(|record| line_of(&record)).boxed())
    }
}

fn elsewhere<T>() -> BoxFuture<'static, Result<T, OperationError>>
where
    T: Send + 'static,
{
    std::future::ready(Err(OperationError::Unavailable(KEYS_ARE_ELSEWHERE.to_owned()))).boxed()
}

impl Keys for ClusterOperations {
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyView>, OperationError>> {
        elsewhere()
    }

    fn create_key(&self, spec: KeySpec) -> BoxFuture<'_, Result<NewKey, OperationError>> {
        drop(spec);
        elsewhere()
    }

    fn revoke_key(&self, _id: &str) -> BoxFuture<'_, Result<KeyView, OperationError>> {
        elsewhere()
    }

    fn rotate_key(&self, _id: &str, _old_ends_at: Timestamp) -> BoxFuture<'_, Result<NewKey, OperationError>> {
        elsewhere()
    }
}
