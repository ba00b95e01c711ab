//! What the platform API asks of the standalone stack: how it is, what it logs, its keys, its dead letters.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use domain::operations::{ComponentState, ComponentStatus, DeadLetter, KeyView, LogLine, NewKey, PipelineStatus, SystemStatus};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use platform_api::{DeadLetterPage, DeadLetters, KeySpec, Keys, LogRun, Logs, OperationError, Status};
use sentinel_ingest::keys::KeyStoreError;
use sentinel_ingest::{IngestStatus, KeyRing, KeyStore, NewKeyRequest};
use sentinel_processor::ProcessorStatus;
use sentinel_queue::dead_letters::{DeadLetters as _, FileDeadLetters, replay};
use sentinel_queue::log::LogAppender;
use sentinel_store::query::{Filter, Scope};
use sentinel_store::{Reader, UsageQuery};
use service_kit::{LogFilter, LogRecord, LogStore, PreviousLog, Tasks};

use crate::reconcile::{Servers, log};

/// Each component: the key people type, its name, and the crate whose log records are its own.
const COMPONENTS: &[(&str, &str, &str)] = &[
    ("gateway", "Gateway", "gateway"),
    ("ingest", "Ingest", "sentinel_ingest"),
    ("queue", "Queue", "sentinel_queue"),
    ("processor", "Processor", "sentinel_processor"),
    ("store", "Store", "sentinel_store"),
    ("platform-api", "Platform API", "platform_api"),
    ("standalone", "Standalone", "sentinel"),
];

/// What is asked for to see what MCP servers write.
const SERVER: &str = "server";

/// Keys that end within this time are shown.
const EXPIRING_WITHIN: Duration = Duration::from_hours(7 * 24);
/// Rates of errors and denials are taken over this time.
const RATES_OVER: Duration = Duration::from_hours(1);
/// A queue whose oldest event waits longer than this is late.
const LAG_LATE: Duration = Duration::from_secs(30);

/// The parts of the running stack that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct StackOperations {
    pub(crate) tasks: Tasks,
    pub(crate) url: String,
    pub(crate) servers: Servers,
    pub(crate) delivery: gateway::Delivery,
    pub(crate) ingest: IngestStatus,
    pub(crate) processor: ProcessorStatus,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) keys: KeyStore,
    pub(crate) ring: KeyRing,
    pub(crate) queue: LogAppender,
    pub(crate) dead_letters: Arc<FileDeadLetters>,
    pub(crate) previous_log: PreviousLog,
}

impl StackOperations {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.tasks.clock().unix_ns())
    }

    async fn status(&self) -> Result<SystemStatus, OperationError> {
        let now = self.now();
        let storage = self.reader.storage().await.map_err(failed)?;
        let pipeline = self.pipeline(now).await?;
        let keys = self.keys.list().map_err(key_fault)?;
        let ends_soon = |key: &KeyView| {
            key.revoked_at.is_none() && key.expires_at.is_some_and(|end| end > now && end < now.plus(EXPIRING_WITHIN))
        };
        Ok(SystemStatus {
            as_of: now,
            size: "standalone".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            components: self.components(&pipeline),
            pipeline,
            queue: None,
            storage: Some(storage),
            servers: self.servers.shown(),
            keys_expiring: keys.into_iter().filter(ends_soon).collect(),
        })
    }

    async fn pipeline(&self, now: Timestamp) -> Result<PipelineStatus, OperationError> {
        let ingest = self.ingest.snapshot();
        let processor = self.processor.snapshot();
        let delivery = self.delivery.status();
        let mut filter = Filter::all(Scope::All);
        (filter.since, filter.until) = (Some(now.minus(RATES_OVER)), Some(now));
        let hour = self
            .reader
            .usage(UsageQuery {
                filter,
                limit: 0,
                step: RATES_OVER,
            })
            .await
            .map_err(failed)?
            .totals
            .calls;
        Ok(PipelineStatus {
            accepted: ingest.accepted,
            rejected: ingest.rejected.values().sum(),
            stored: processor.stored,
            duplicates: processor.duplicates,
            missing: processor.missing,
            dead_letters: processor.dead_letters,
            dropped: delivery.dropped_calls + delivery.dropped_kept + delivery.refused,
            lag_events: processor.lag.events,
            lag_seconds: processor.lag.age.as_secs_f64(),
            freshness_p50_ms: processor.freshness_p50_ms,
            freshness_p99_ms: processor.freshness_p99_ms,
            insert_p50_ms: None,
            insert_p99_ms: None,
            events_per_second: processor.events_per_second,
            error_rate: hour.error_rate(),
            deny_rate: hour.deny_rate(),
        })
    }

    /// A component is not ready when one of its conditions is not; what its condition says is the detail.
    fn components(&self, pipeline: &PipelineStatus) -> Vec<ComponentStatus> {
        let report = self.tasks.ready_report();
        let mut reasons: BTreeMap<&str, String> = BTreeMap::new();
        for condition in report.conditions.iter().filter(|condition| !condition.ready) {
            let why = condition.reason.as_deref().unwrap_or("not ready yet");
            let about = COMPONENTS
                .iter()
                .find(|(key, ..)| condition.name.contains(key))
                .map_or("standalone", |(key, ..)| key);
            reasons
                .entry(about)
                .and_modify(|all| all.extend(["; ", why]))
                .or_insert_with(|| why.to_owned());
        }
        let status = |(key, display, _): &(&str, &str, &str)| {
            let reason = reasons.get(key).cloned();
            let state = if reason.is_some() {
                ComponentState::NotReady
            } else {
                self.state(key, pipeline)
            };
            let detail = reason.unwrap_or_else(|| self.detail(key, pipeline));
            let address = matches!(*key, "gateway" | "ingest" | "platform-api").then(|| self.url.clone());
            ComponentStatus {
                key: (*key).to_owned(),
                display: (*display).to_owned(),
                state,
                detail,
                address,
            }
        };
        COMPONENTS
            .iter()
            .filter(|(key, ..)| *key != "standalone" || reasons.contains_key(key))
            .map(status)
            .collect()
    }

    fn state(&self, key: &str, pipeline: &PipelineStatus) -> ComponentState {
        let late = pipeline.lag_seconds > LAG_LATE.as_secs_f64();
        let degraded = match key {
            "gateway" => pipeline.dropped > 0 || self.delivery.status().last_error.is_some(),
            "queue" | "processor" => late,
            _ => false,
        };
        if degraded {
            ComponentState::Degraded
        } else {
            ComponentState::Ready
        }
    }

    fn detail(&self, key: &str, pipeline: &PipelineStatus) -> String {
        match key {
            "gateway" => {
                let delivery = self.delivery.status();
                let waiting = delivery.queued + delivery.spooled;
                let error = delivery
                    .last_error
                    .map(|error| format!("; last fault: {error}"))
                    .unwrap_or_default();
                let failing = match self.servers.failing().as_slice() {
                    [] => String::new(),
                    failing => format!(" ({} not answering)", failing.join(", ")),
                };
                format!(
                    "{} server(s){failing}, {} events recorded, {waiting} waiting{error}",
                    self.servers.shown().len(),
                    delivery.delivered
                )
            }
            "ingest" => format!("{} events accepted, {} rejected", pipeline.accepted, pipeline.rejected),
            "queue" => format!(
                "{} events wait, the oldest for {:.1} s",
                pipeline.lag_events, pipeline.lag_seconds
            ),
            "processor" => {
                let hours = self.processor.completeness();
                let of_day = &hours[hours.len().saturating_sub(24)..];
                let missing: u64 = of_day.iter().map(|hour| hour.missing).sum();
                let duplicated: u64 = of_day.iter().map(|hour| hour.duplicated).sum();
                format!(
                    "{} events stored, {} repeats recognised; of the last day's numbered events {missing} are missing and {duplicated} came twice",
                    pipeline.stored, pipeline.duplicates
                )
            }
            "store" => "answering".to_owned(),
            _ => format!("version {}", env!("CARGO_PKG_VERSION")),
        }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> OperationError {
    OperationError::Failed(Box::new(error))
}

impl Status for StackOperations {
    fn system_status(&self) -> BoxFuture<'_, Result<SystemStatus, OperationError>> {
        self.status().boxed()
    }
}

/// The filter with the component's crate put in; `all` means every one.
fn of_component(component: &str, mut filter: LogFilter) -> Result<LogFilter, OperationError> {
    if component == "all" {
        return Ok(filter);
    }
    let found = COMPONENTS.iter().find(|(key, ..)| *key == component);
    let (.., source) = found.ok_or_else(|| {
        let known: Vec<&str> = COMPONENTS.iter().map(|(key, ..)| *key).collect();
        OperationError::NotFound(format!(
            "there is no component {component:?}; there are {}, or all",
            known.join(", ")
        ))
    })?;
    filter.component = Some((*source).to_owned());
    Ok(filter)
}

fn line_of(record: &LogRecord) -> LogLine {
    let component = COMPONENTS
        .iter()
        .find(|(.., source)| *source == record.component)
        .map_or(record.component.as_str(), |(key, ..)| key);
    let mut fields: serde_json::Map<_, _> = record
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(trace) = &record.trace_id {
        fields.insert("trace_id".to_owned(), trace.as_str().into());
    }
    LogLine {
        timestamp: Timestamp::from_nanos(record.timestamp_unix_ns),
        level: record.level.as_str().to_owned(),
        component: component.to_owned(),
        message: record.message.clone(),
        fields,
    }
}

impl Logs for StackOperations {
    fn log_lines(
        &self,
        component: &str,
        run: LogRun,
        filter: LogFilter,
    ) -> BoxFuture<'_, Result<Vec<LogLine>, OperationError>> {
        if component == SERVER {
            return std::future::ready(self.server_lines(filter)).boxed();
        }
        let filter = of_component(component, filter);
        async move {
            let filter = filter?;
            let records = match run {
                LogRun::This => self.tasks.logs().read(&filter),
                LogRun::Previous => self.previous_log.read(&filter).await.map_err(failed)?,
            };
            Ok(records.iter().map(|record| line_of(record)).collect())
        }
        .boxed()
    }

    fn follow_log_lines(&self, component: &str, filter: LogFilter) -> Result<BoxStream<'static, LogLine>, OperationError> {
        if component == SERVER {
            let (logs, filter) = self.server_logs(filter)?;
            let lines = logs
                .into_iter()
                .map(|log| log.follow(filter.clone()).map(|record| log::line_of(&record)).boxed());
            return Ok(futures::stream::select_all(lines).boxed());
        }
        let filter = of_component(component, filter)?;
        Ok(self.tasks.logs().follow(filter).map(|record| line_of(&record)).boxed())
    }
}

impl StackOperations {
    /// The logs of the server that a filter names, as `payments` or `acme/payments`, and the rest of the filter.
    fn server_logs(&self, mut filter: LogFilter) -> Result<(Vec<LogStore>, LogFilter), OperationError> {
        let (_, named) = filter.field.take().ok_or_else(|| {
            OperationError::Invalid("which server? name it: mcp-runtime sentinel logs server NAME".to_owned())
        })?;
        let (namespace, name) = match named.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, named.as_str()),
        };
        let logs = self.servers.logs(namespace, name);
        if logs.is_empty() {
            return Err(OperationError::NotFound(format!(
                "there is no server {named:?} here; `mcp-runtime server list` shows those there are"
            )));
        }
        Ok((logs, filter))
    }

    fn server_lines(&self, filter: LogFilter) -> Result<Vec<LogLine>, OperationError> {
        let (logs, filter) = self.server_logs(filter)?;
        let mut records: Vec<_> = logs.iter().flat_map(|log| log.read(&filter)).collect();
        records.sort_by_key(|record| record.timestamp_unix_ns);
        if let Some(tail) = filter.tail {
            records.drain(..records.len().saturating_sub(tail));
        }
        Ok(records.iter().map(|record| log::line_of(record)).collect())
    }
}

fn key_fault(error: KeyStoreError) -> OperationError {
    match error {
        KeyStoreError::NotFound(_) => OperationError::NotFound(error.to_string()),
        KeyStoreError::Request(_) => OperationError::Invalid(error.to_string()),
        KeyStoreError::Ended(_) | KeyStoreError::Full => OperationError::Conflict(error.to_string()),
        other => failed(other),
    }
}

impl StackOperations {
    /// Key files are small, but their changes are synced to disk, which must not hold up a worker thread. The ring of ingest takes
    /// the change in before the answer, so that a new key works and a revoked one does not from then on.
    fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KeyStore) -> Result<T, KeyStoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, OperationError>> {
        let (keys, ring) = (self.keys.clone(), self.ring.clone());
        let change = move || {
            let done = work(&keys);
            ring.refresh();
            done
        };
        async move { tokio::task::spawn_blocking(change).await.map_err(failed)?.map_err(key_fault) }.boxed()
    }
}

impl Keys for StackOperations {
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyView>, OperationError>> {
        self.with_keys(|keys| {
            let mut keys = keys.list()?;
            keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
            Ok(keys)
        })
    }

    fn create_key(&self, spec: KeySpec) -> BoxFuture<'_, Result<NewKey, OperationError>> {
        self.with_keys(move |keys| {
            keys.create(NewKeyRequest {
                namespace: spec.namespace,
                server: spec.server,
                expires_at: spec.expires_at,
                events_per_second_max: spec.events_per_second_max.and_then(NonZeroU32::new),
                note: spec.note,
            })
        })
    }

    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyView, OperationError>> {
        let id = id.to_owned();
        self.with_keys(move |keys| keys.revoke(&id))
    }

    fn rotate_key(&self, id: &str, old_ends_at: Timestamp) -> BoxFuture<'_, Result<NewKey, OperationError>> {
        let (id, overlap) = (id.to_owned(), old_ends_at.since(self.now()));
        self.with_keys(move |keys| keys.rotate(&id, overlap))
    }
}

impl DeadLetters for StackOperations {
    fn dead_letters(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<DeadLetterPage, OperationError>> {
        async move {
            let limit = limit as usize;
            let mut letters = self.dead_letters.list(after, limit + 1).await.map_err(failed)?;
            let has_more = letters.len() > limit;
            letters.truncate(limit);
            Ok(DeadLetterPage {
                dead_letters: letters,
                has_more,
            })
        }
        .boxed()
    }

    fn dead_letter(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, OperationError>> {
        async move {
            let letter = self.dead_letters.show(id).await.map_err(failed)?;
            letter.ok_or_else(|| no_letter(id))
        }
        .boxed()
    }

    fn replay_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>> {
        async move {
            let done = replay(&[id], &*self.dead_letters, &self.queue).await.map_err(failed)?;
            if let Some((_, reason)) = done.unreadable.first() {
                return Err(OperationError::Conflict(format!(
                    "dead letter {id} is still no event: {reason}; discard it, or send it corrected"
                )));
            }
            if done.unknown.is_empty() { Ok(()) } else { Err(no_letter(id)) }
        }
        .boxed()
    }

    fn discard_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>> {
        async move {
            let gone = self.dead_letters.discard(vec![id]).await.map_err(failed)?;
            if gone == 0 { Err(no_letter(id)) } else { Ok(()) }
        }
        .boxed()
    }
}

fn no_letter(id: u64) -> OperationError {
    OperationError::NotFound(format!(
        "there is no dead letter {id}; `mcp-runtime sentinel dlq list` shows those there are"
    ))
}
