//! Events over HTTP, authenticated per namespace, into the queue.
//!
//! ```text
//! POST /events ─ key ─ form ─ rate ─► body ─ unpack, split, check ─► queue ─► 202
//!                  401   415    429     413        400 403 422         503
//! ```
//!
//! [`serve`] runs ingest on a listener of its own; [`router`] gives the routes to merge into another one. Whoever starts it opens
//! the [`KeyRing`] and brings the queue. Each event is judged alone: what is wrong with one is said, and its neighbours are taken.

mod answer;
mod args;
mod auth;
mod body;
mod budget;
mod decode;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod intake;
pub mod keys;
#[cfg(feature = "cluster")]
pub mod keys_command;
mod metrics;
mod oidc;
mod otlp;
mod queue_state;
#[cfg(feature = "cluster")]
pub mod service;
mod status;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;

use axum::Router;
use axum::routing::{MethodRouter, post};
use sentinel_queue::EventAppender;
use service_kit::http::{self, HttpLimits};
use service_kit::{Problem, Stage, Tasks, problem};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use args::{Args, Config, ConfigError};
pub use keys::{KeyRing, KeyStore, NewKeyRequest, Senders};
pub use oidc::{Oidc, OidcArgs, OidcError};
pub use status::{IngestSnapshot, IngestStatus, LastError};

use budget::Budget;
use intake::{Intake, post_events};
use metrics::IngestMetrics;
use otlp::{post_records, post_spans};
use queue_state::QueueState;
use watch::Watch;

/// Serves ingest until the intake stage is asked to stop, and gives the bound address.
///
/// Starts a task that looks after the key file, and adds the conditions `ingest keys` and `ingest queue` to `/ready`.
pub fn serve<A: EventAppender>(
    config: Config,
    listener: TcpListener,
    appender: A,
    senders: impl Into<Senders>,
    tasks: &Tasks,
) -> io::Result<(SocketAddr, IngestStatus)> {
    let (events, status) = router(config, appender, senders, tasks);
    let app = problem::with_fallbacks(events.merge(health::routes(tasks)));
    let address = http::serve("ingest", listener, app, HttpLimits::default(), tasks, Stage::Intake)?;
    Ok((address, status))
}

/// `/events` (also as `/ingest/events`), `/v1/traces` and `/v1/logs`, with everything [`serve`] starts but the listener and the health routes.
pub fn router<A: EventAppender>(
    config: Config,
    appender: A,
    senders: impl Into<Senders>,
    tasks: &Tasks,
) -> (Router, IngestStatus) {
    let senders = senders.into();
    let metrics = IngestMetrics::shared(tasks.metrics());
    let queue = Arc::new(QueueState::default());
    let status = IngestStatus::default();
    Watch::start(senders.clone(), Arc::clone(&queue), Arc::clone(&metrics), tasks);
    let intake = Arc::new(Intake {
        config,
        appender,
        senders,
        clock: tasks.clock().clone(),
        budget: Budget::new(config.memory_bytes_max, metrics.in_flight_bytes.clone()),
        metrics,
        status: status.clone(),
        queue,
        decoders: Semaphore::new(available_parallelism().map_or(1, usize::from)),
    });
    let only_post =
        |route: MethodRouter<Arc<Intake<A>>>| route.fallback(async || Problem::method_not_allowed(&[::http::Method::POST]));
    let router = Router::new()
        .route("/events", only_post(post(post_events::<A>)))
        .route("/ingest/events", only_post(post(post_events::<A>)))
        .route("/v1/traces", only_post(post(post_spans::<A>)))
        .route("/v1/logs", only_post(post(post_records::<A>)));
    (router.with_state(intake), status)
}
