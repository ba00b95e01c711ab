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
mod health;
mod intake;
pub mod keys;
mod metrics;
mod queue_state;
mod status;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;

use axum::Router;
use axum::routing::post;
use sentinel_queue::EventAppender;
use service_kit::http::{self, HttpLimits};
use service_kit::{Problem, Stage, Tasks, problem};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use args::{Args, Config, ConfigError};
pub use keys::{KeyRing, KeyStore, NewKeyRequest};
pub use status::{IngestSnapshot, IngestStatus, LastError};

use budget::Budget;
use intake::{Intake, post_events};
use metrics::IngestMetrics;
use queue_state::QueueState;
use watch::Watch;

/// Serves ingest until the intake stage is asked to stop, and gives the bound address.
///
/// Starts a task that looks after the key file, and adds the conditions `ingest keys` and `ingest queue` to `/ready`.
pub fn serve<A: EventAppender>(
    config: Config,
    listener: TcpListener,
    appender: A,
    keys: KeyRing,
    tasks: &Tasks,
) -> io::Result<(SocketAddr, IngestStatus)> {
    let (events, status) = router(config, appender, keys, tasks);
    let app = problem::with_fallbacks(events.merge(health::routes(tasks)));
    let address = http::serve("ingest", listener, app, HttpLimits::default(), tasks, Stage::Intake)?;
    Ok((address, status))
}

/// `/events` and `/ingest/events`, with everything [`serve`] starts but the listener and the health routes.
pub fn router<A: EventAppender>(config: Config, appender: A, keys: KeyRing, tasks: &Tasks) -> (Router, IngestStatus) {
    let metrics = IngestMetrics::shared(tasks.metrics());
    let queue = Arc::new(QueueState::default());
    let status = IngestStatus::default();
    Watch::start(keys.clone(), Arc::clone(&queue), Arc::clone(&metrics), tasks);
    let intake = Arc::new(Intake {
        config,
        appender,
        keys,
        clock: tasks.clock().clone(),
        budget: Budget::new(config.memory_bytes_max, metrics.in_flight_bytes.clone()),
        metrics,
        status: status.clone(),
        queue,
        decoders: Semaphore::new(available_parallelism().map_or(1, usize::from)),
    });
    let events = || post(post_events::<A>).fallback(async || Problem::method_not_allowed(&[::http::Method::POST]));
    let router = Router::new().route("/events", events()).route("/ingest/events", events());
    (router.with_state(intake), status)
}
