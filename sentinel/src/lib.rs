//! The whole stack in one process: gateway, ingest, embedded log, processor, Parquet store and platform API.
//!
//! ```text
//!            ┌─ /payments/mcp ─► gateway ─► the MCP server ◄─ runs it ─┐
//! listener ──┼─ /events ───────► ingest ─► log ─► processor ─► store    │
//!            └─ /api/v1 ───────► platform API ──────────────────┘       │
//!                                     └─► servers, grants, sessions ─► reconciler
//! ```
//!
//! The parts meet as they do on a cluster: the gateway posts its events to ingest over HTTP with a key, and only the two seams
//! are between ingest, processor and API. Stopping goes front to back: the listener first, then the gateway's delivery and the
//! processor, then what answers them.

mod args;
mod control;
mod folder;
mod listener;
mod operations;
mod reconcile;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use domain::Timestamp;
use domain::operations::ServerStatus;
use gateway::{ApiKey, CallerRules, DeliveryConfig, Gateway, GatewayLimits, Recorder, RecorderLimits, SpoolConfig};
use platform_api::{Api, Control, OpenLoopback};
use sentinel_ingest::KeyRing;
use sentinel_queue::dead_letters::FileDeadLetters;
use sentinel_queue::log::{self, LogAppender, LogConfig, LogTail};
use sentinel_store::parquet::{EngineSettings, ParquetConfig, ParquetReader, ParquetStore};
use sentinel_store::{EventWriter as _, Reader};
use service_kit::http::{HttpLimits, routed};
use service_kit::{Clock, PreviousLog, Stage, Tasks, health, problem};

pub use args::{Args, Config, ConfigError, ServerArg};
pub use folder::FolderError;

use folder::{Folder, NamespaceKeys};
use operations::StackOperations;

/// MCP clients keep their connections while people think.
const IDLE_CONNECTION_MAX: Duration = Duration::from_mins(2);
/// Disk for events of the gateway that ingest has not taken yet.
const SPOOL_BYTES_MAX: u64 = 256 << 20;
/// Disk for records that could not be stored. When it is used up, the processor waits for a person.
const DEAD_LETTER_BYTES_MAX: u64 = 64 << 20;
/// Disk for the log of a run; the run before takes as much.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// A running stack.
#[derive(Debug)]
pub struct Standalone {
    /// Where everything is reached, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// The folder everything is kept in.
    pub data_dir: PathBuf,
    /// File that holds the first ingest key.
    pub ingest_key_file: PathBuf,
    /// File that holds the key of whoever owns the data folder.
    pub owner_key_file: PathBuf,
    /// The MCP servers behind the gateway at start.
    pub servers: Vec<ServerStatus>,
}

/// Starts everything, and returns when it is ready. It runs until the process is asked to stop.
pub async fn start(config: Config, tasks: &Tasks) -> anyhow::Result<Standalone> {
    let folder = Folder::take(&config.data_dir)?;
    let previous_log = PreviousLog::keep(&folder.path("logs"), LOG_BYTES_MAX, tasks.logs(), tasks)
        .await
        .context("opening the folder of logs")?;
    let socket = service_kit::http::bind(config.listen)?;
    let address = socket.local_addr().context("reading the address of the listener")?;
    let url = format!("http://{}", reachable(address));
    let (keys, gateway_key) = folder::first_keys(&folder, &config.namespace, tasks.clock())?;
    let pipeline = Pipeline::open(&config, &folder, tasks).await?;

    let ingest_config = sentinel_ingest::Config {
        event_age_max: config.retention,
        ..sentinel_ingest::Config::default()
    };
    let ring = KeyRing::open(folder.path("keys.json"));
    let (ingest_routes, ingest) = sentinel_ingest::router(ingest_config, pipeline.appender.clone(), ring.clone(), tasks);
    let recorder = start_gateway_delivery(&folder, &ingest_routes, gateway_key, tasks).await?;
    let (control, objects) = control::open(&folder, &url, &pipeline.appender, tasks).await?;
    let namespace_keys = NamespaceKeys::new(&folder, keys.clone(), ring.clone(), format!("{url}/events"));
    let servers = reconcile::start(wishes_of(&config, &folder, &url, namespace_keys), objects, tasks).await?;
    let gateway = Gateway::new(servers.routes(), recorder.clone(), gateway_limits(address), tasks);

    let reader: Arc<dyn Reader> = Arc::new(pipeline.reader(&config, &folder)?);
    let operations = StackOperations {
        tasks: tasks.clone(),
        url: url.clone(),
        servers: servers.clone(),
        delivery: recorder.delivery(),
        ingest,
        processor: pipeline.status.clone(),
        reader: Arc::clone(&reader),
        keys,
        ring,
        queue: pipeline.appender.clone(),
        dead_letters: Arc::clone(&pipeline.dead_letters),
        previous_log,
    };
    let api = open_api(&config, address, reader, (operations, control), tasks);
    let app = problem::with_fallbacks(platform_api::router(api).merge(ingest_routes).merge(health::routes(tasks)));
    let limits = HttpLimits {
        header_read_timeout: IDLE_CONNECTION_MAX,
        ..HttpLimits::default()
    };
    listener::serve(socket, routed(listener::NAME, app, limits, tasks), gateway, limits, tasks).context("serving")?;

    folder.note_running(&url)?;
    let standalone = Standalone {
        url,
        data_dir: config.data_dir,
        ingest_key_file: folder.path("ingest.key"),
        owner_key_file: folder.path(control::OWNER_KEY),
        servers: servers.shown(),
    };
    keep_until_stopped(folder, tasks);
    Ok(standalone)
}

fn wishes_of(config: &Config, folder: &Folder, url: &str, keys: NamespaceKeys) -> reconcile::Settings {
    reconcile::Settings {
        given: config.servers.clone(),
        namespace: config.namespace.clone(),
        manifests: config.manifests.clone(),
        base: url.to_owned(),
        logs: folder.path("servers"),
        secrets: folder.path("secrets"),
        keys,
    }
}

/// The address for clients on this machine: an unspecified one is not an address to call.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::new([127, 0, 0, 1].into(), v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::new([127, 0, 0, 1].into(), v6.port()),
        other => other,
    }
}

/// Queue, processor and store, joined.
struct Pipeline {
    appender: LogAppender,
    store: ParquetStore,
    dead_letters: Arc<FileDeadLetters>,
    status: sentinel_processor::ProcessorStatus,
}

impl Pipeline {
    async fn open(config: &Config, folder: &Folder, tasks: &Tasks) -> anyhow::Result<Self> {
        let clock = clock_of(tasks.clock());
        let memory = usize::try_from(config.memory_bytes_max).unwrap_or(usize::MAX);
        let store_config = ParquetConfig {
            flush_age: config.flush_age,
            retention: Some(config.retention),
            // The rest is for queries (a quarter), for what is on its way, and for the program itself.
            ..ParquetConfig::within(folder.path("store"), memory / 8 * 3)
        };
        let store_clock = Arc::clone(&clock);
        let store = blocking(move || ParquetStore::open(store_config, store_clock))
            .await?
            .context("opening the store")?;
        let log_config = LogConfig {
            bytes_max: config.queue_bytes_max,
            offset_min: store.durable_end(0),
            ..LogConfig::new(folder.path("queue"))
        };
        let (appender, tail): (LogAppender, LogTail) = blocking(move || log::open(log_config, move || clock()))
            .await?
            .context("opening the queue")?;
        let letters = folder.path("dead-letters.log");
        let dead_letters = Arc::new(
            blocking(move || FileDeadLetters::open(letters, DEAD_LETTER_BYTES_MAX))
                .await?
                .context("opening the dead letters")?,
        );
        let mut processor: sentinel_processor::Config = sentinel_processor::Args::default()
            .try_into()
            .context("settling the processor")?;
        processor.ledger_file = Some(folder.path("completeness.json"));
        let status = sentinel_processor::serve(processor, tail, store.clone(), Arc::clone(&dead_letters), tasks);
        Ok(Self {
            appender,
            store,
            dead_letters,
            status,
        })
    }

    fn reader(&self, config: &Config, folder: &Folder) -> anyhow::Result<ParquetReader> {
        let settings = EngineSettings {
            // And as much again for people's SQL.
            memory_bytes_max: config.memory_bytes_max / 8,
            spill_folder: Some(folder.path("spill")),
            ..EngineSettings::default()
        };
        ParquetReader::start(self.store.clone(), settings).context("starting the threads that answer questions")
    }
}

/// Opening reads and syncs files, which must not hold up a worker thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("waiting for a folder to be opened")
}

fn clock_of(clock: &Clock) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let clock = clock.clone();
    Arc::new(move || Timestamp::from_nanos(clock.unix_ns()))
}

/// Delivers the gateway's events through a listener of their own, which outlives the public one: what the last calls left behind
/// is still taken in while the process drains.
async fn start_gateway_delivery(folder: &Folder, ingest: &Router, key: String, tasks: &Tasks) -> anyhow::Result<Recorder> {
    let socket = service_kit::http::bind(([127, 0, 0, 1], 0).into())?;
    let app = problem::with_fallbacks(ingest.clone());
    let address = service_kit::http::serve(
        "ingest for the gateway",
        socket,
        app,
        HttpLimits::default(),
        tasks,
        Stage::Query,
    )
    .context("serving ingest to the gateway")?;
    let ingest = format!("http://{address}/events")
        .parse()
        .context("writing the address of ingest")?;
    let recorder = Recorder::new(RecorderLimits::default());
    let mut delivery = DeliveryConfig::new(ingest, ApiKey::Value(key));
    delivery.spool = Some(SpoolConfig {
        folder: folder.path("spool"),
        bytes_max: SPOOL_BYTES_MAX,
    });
    gateway::deliver(recorder.clone(), delivery, tasks)
        .await
        .context("starting the delivery of the gateway's events")?;
    Ok(recorder)
}

fn gateway_limits(address: SocketAddr) -> GatewayLimits {
    GatewayLimits {
        callers: CallerRules::of_listener(address),
        ..GatewayLimits::default()
    }
}

/// On loopback whoever is on this machine may look; changes need a credential, and beyond loopback everything does.
fn open_api(
    settings: &Config,
    address: SocketAddr,
    reader: Arc<dyn Reader>,
    (operations, control): (StackOperations, Control),
    tasks: &Tasks,
) -> Api {
    let open_loopback = if address.ip().is_loopback() {
        OpenLoopback::Reading
    } else {
        OpenLoopback::No
    };
    let config = platform_api::Config {
        open_loopback,
        query_time_max: settings.query_time_max,
        alerts_file: Some(settings.alerts_file.clone()),
        ..platform_api::Config::default()
    };
    Api::with_control(config, reader, Arc::new(operations), control, tasks)
}

/// Holds the folder for as long as anything may still write to it.
fn keep_until_stopped(folder: Folder, tasks: &Tasks) {
    let stop = tasks.shutdown(Stage::Admin);
    tasks.spawn(Stage::Admin, "data folder", async move {
        stop.requested().await;
        drop(folder);
        Ok(())
    });
}
