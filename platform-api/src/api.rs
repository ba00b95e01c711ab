//! What every handler shares: the store, the system, who may call, and the bounds under which questions are answered.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use domain::Timestamp;
use domain::analytics::Horizon;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sentinel_store::{QueryError, Reader};
use serde::Serialize;
use service_kit::{Clock, Metrics, Problem, Shutdown, Stage, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::{Access, StaticAccess};
use crate::alerts::{Alerts, AlertsConfig};
use crate::control::{Control, ControlAccess};
use crate::operations::{OperationError, Operations};
use crate::settings::Config;

/// How long a question waits for its turn before it is refused.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);
/// When to come again after a refusal for want of a turn.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(2);
/// When to come again after a refusal for want of a place for a stream: they last.
const STREAMS_RETRY_AFTER: Duration = Duration::from_secs(15);

/// The shared state of all handlers. Clones are the same.
#[derive(Clone, Debug)]
pub struct Api(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) operations: Arc<dyn Operations>,
    pub(crate) access: Arc<dyn Access>,
    control: Option<Control>,
    pub(crate) alerts: Alerts,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Arc<ApiMetrics>,
    queries: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// What the API counts of itself, beyond what the listener counts of each request.
#[derive(Debug, Default)]
pub(crate) struct ApiMetrics {
    busy: Counter,
    timed_out: Counter,
    streams_refused: Counter,
    streams_open: Gauge,
    pub(crate) denied: Counter,
}

impl ApiMetrics {
    fn shared(metrics: &Metrics) -> Arc<Self> {
        metrics.register("platform_api", |registry| {
            let made = Self::default();
            registry.register(
                "queries_refused",
                "Questions refused because too many were being answered",
                made.busy.clone(),
            );
            registry.register(
                "queries_timed_out",
                "Questions given up after the longest time",
                made.timed_out.clone(),
            );
            registry.register(
                "streams_refused",
                "Streams refused because too many were open",
                made.streams_refused.clone(),
            );
            registry.register("streams_open", "Open streams of events and logs", made.streams_open.clone());
            registry.register(
                "requests_denied",
                "Requests of callers who may not make them",
                made.denied.clone(),
            );
            made
        })
    }
}

/// A place for a stream, given back when dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Api {
    /// With service keys and callers of this machine, as the settings say.
    pub fn new(config: Config, reader: Arc<dyn Reader>, operations: Arc<dyn Operations>, tasks: &Tasks) -> Self {
        let access = fixed_access(&config);
        Self::build(config, reader, operations, (Arc::new(access), None), tasks)
    }

    /// With accounts, objects and everything that changes them.
    pub fn with_control(
        config: Config,
        reader: Arc<dyn Reader>,
        operations: Arc<dyn Operations>,
        control: Control,
        tasks: &Tasks,
    ) -> Self {
        let access = ControlAccess {
            fixed: fixed_access(&config),
            control: control.clone(),
        };
        Self::build(config, reader, operations, (Arc::new(access), Some(control)), tasks)
    }

    fn build(
        config: Config,
        reader: Arc<dyn Reader>,
        operations: Arc<dyn Operations>,
        (access, control): (Arc<dyn Access>, Option<Control>),
        tasks: &Tasks,
    ) -> Self {
        let alerts = config.alerts_file.clone().map(|file| {
            let alerts = AlertsConfig {
                file,
                interval: config.alerts_interval,
                query_time_max: config.query_time_max,
            };
            Alerts::watch(alerts, Arc::clone(&reader), Arc::clone(&operations), tasks)
        });
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared {
            reader,
            operations,
            access,
            control,
            alerts: alerts.unwrap_or_default(),
            queries: places(config.queries_max),
            // Exports last long, so they have places of their own and leave those of short questions free.
            exports: places(config.queries_max.div_ceil(2)),
            streams: places(config.streams_max),
            config,
            clock: tasks.clock().clone(),
            shutdown: tasks.shutdown(Stage::Query),
            metrics: ApiMetrics::shared(tasks.metrics()),
        }))
    }

    /// Accounts and objects, where this service has them.
    pub(crate) fn control(&self) -> Result<&Control, Problem> {
        self.0.control.as_ref().ok_or_else(|| {
            Problem::new(
                http::StatusCode::NOT_IMPLEMENTED,
                "no_database",
                "this service answers questions only: it runs without a database of accounts and objects",
            )
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.clock.unix_ns())
    }

    /// How current an answer is that was asked for after this call.
    pub(crate) fn horizon(&self) -> Horizon {
        let complete_through = self.0.reader.horizon().borrow().complete_through;
        Horizon {
            as_of: self.now(),
            complete_through,
        }
    }

    /// Answers a question under the bounds of number and time.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Result<T, QueryError>>) -> Result<T, Problem> {
        let _turn = self.turn(&self.0.queries).await?;
        match tokio::time::timeout(self.0.config.query_time_max, question).await {
            Ok(answer) => answer.map_err(query_problem),
            Err(_late) => {
                self.0.metrics.timed_out.inc();
                let seconds = self.0.config.query_time_max.as_secs();
                Err(Problem::gateway_timeout(format!("the question took longer than {seconds} s"))
                    .with_code("query_timeout")
                    .with_hint("ask about a shorter time range or fewer values"))
            }
        }
    }

    /// Has the system do something, within the longest time of a question.
    pub(crate) async fn operate<T>(&self, operation: impl Future<Output = Result<T, OperationError>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.0.config.query_time_max, operation).await {
            Ok(done) => done.map_err(operation_problem),
            Err(_late) => {
                self.0.metrics.timed_out.inc();
                let seconds = self.0.config.query_time_max.as_secs();
                Err(Problem::gateway_timeout(format!(
                    "the system did not answer within {seconds} s; whether it was done is not known"
                ))
                .with_code("operation_timeout")
                .with_hint("look at its state before trying again"))
            }
        }
    }

    /// A turn for an export, to be held until its last byte.
    pub(crate) async fn export_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.turn(&self.0.exports).await
    }

    /// A place for a stream that lasts.
    pub(crate) fn stream_place(&self) -> Result<StreamPlace, Problem> {
        match Arc::clone(&self.0.streams).try_acquire_owned() {
            Ok(permit) => {
                self.0.metrics.streams_open.inc();
                Ok(StreamPlace {
                    open: self.0.metrics.streams_open.clone(),
                    _permit: permit,
                })
            }
            Err(_full) => {
                self.0.metrics.streams_refused.inc();
                let max = self.0.config.streams_max;
                Err(
                    Problem::unavailable(format!("{max} streams are open, which is the most"), STREAMS_RETRY_AFTER)
                        .with_code("too_many_streams")
                        .with_hint("close one, or ask for pages instead"),
                )
            }
        }
    }

    async fn turn(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = tokio::time::timeout(TURN_WAIT_MAX, Arc::clone(places).acquire_owned()).await;
        if let Ok(Ok(turn)) = turn {
            return Ok(turn);
        }
        self.0.metrics.busy.inc();
        Err(
            Problem::unavailable("too many questions are being answered right now", BUSY_RETRY_AFTER)
                .with_code("busy")
                .with_hint("try again in a moment"),
        )
    }
}

fn fixed_access(config: &Config) -> StaticAccess {
    StaticAccess::new(
        config.service_keys.clone(),
        config.open_loopback,
        config.origins_allowed.clone(),
    )
}

/// A JSON answer.
pub(crate) fn json(body: impl Serialize) -> Response {
    Json(body).into_response()
}

pub(crate) fn query_problem(error: QueryError) -> Problem {
    match error {
        QueryError::Invalid(text) => Problem::bad_request(text).with_code("invalid_query"),
        QueryError::OverLimit(text) => Problem::unprocessable(text)
            .with_code("over_limit")
            .with_hint("ask about a shorter time range or fewer rows"),
        failed @ QueryError::Failed(_) => Problem {
            code: "query_failed",
            ..Problem::internal(failed)
        },
    }
}

pub(crate) fn operation_problem(error: OperationError) -> Problem {
    match error {
        OperationError::NotFound(text) => Problem::not_found(text),
        OperationError::Invalid(text) => Problem::unprocessable(text).with_code("invalid"),
        OperationError::Conflict(text) => Problem::conflict(text),
        OperationError::Unavailable(text) => Problem::unavailable(text, BUSY_RETRY_AFTER),
        failed @ OperationError::Failed(_) => Problem::internal(failed),
    }
}
