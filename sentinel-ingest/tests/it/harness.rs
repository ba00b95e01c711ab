//! One ingest on a free port, with a clock that stands still and a queue in memory.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use domain::{Event, Timestamp};
use sentinel_ingest::{Config, IngestStatus, KeyRing, KeyStore, NewKeyRequest};
use sentinel_queue::{AppendError, EventAppender};
use serde_json::{Value, json};
use service_kit::logs::LogStore;
use service_kit::tasks::RunningOptions;
use service_kit::{Clock, ManualClock, Running};
use tempfile::TempDir;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

/// What the clock says at the start of each test: 2026-11-22T15:04:05Z.
pub(crate) const NOW_SECONDS: i64 = 1_795_359_845;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// Keeps events, or fails as told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    events: Mutex<Vec<Event>>,
    fault: Mutex<Option<fn() -> AppendError>>,
    stuck: Mutex<bool>,
}

impl Queue {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.events.lock().unwrap().clone()
    }

    pub(crate) fn fail_with(&self, fault: Option<fn() -> AppendError>) {
        *self.0.fault.lock().unwrap() = fault;
    }

    pub(crate) fn get_stuck(&self) {
        *self.0.stuck.lock().unwrap() = true;
    }
}

impl EventAppender for Queue {
    async fn append(&self, events: &[Event]) -> Result<(), AppendError> {
        if *self.0.stuck.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        if let Some(fault) = *self.0.fault.lock().unwrap() {
            return Err(fault());
        }
        self.0.events.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

pub(crate) struct Harness {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    pub(crate) status: IngestStatus,
    pub(crate) queue: Queue,
    pub(crate) hand: ManualClock,
    pub(crate) keys: KeyStore,
    pub(crate) ring: KeyRing,
    pub(crate) key_file: PathBuf,
    /// A key of the namespace `acme`.
    pub(crate) key: String,
    pub(crate) client: reqwest::Client,
    _folder: TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn assert_accepted(&self, accepted: usize) {
        assert_eq!(self.status, 202, "{self:?}");
        assert_eq!(self.body["accepted"], accepted, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, error: &str) {
        assert_eq!((self.status, self.error()), (status, error), "{self:?}");
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert!(self.body["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{self:?}");
    }
}

/// What all tests log, at every level: a subscriber for one thread alone misses what other threads say.
pub(crate) fn logs() -> &'static LogStore {
    static LOGS: LazyLock<LogStore> = LazyLock::new(|| {
        let logs = LogStore::default();
        tracing::subscriber::set_global_default(
            tracing_subscriber::registry().with(logs.layer().with_filter(LevelFilter::TRACE)),
        )
        .unwrap();
        logs
    });
    &LOGS
}

impl Harness {
    #[expect(clippy::unused_async, reason = "it needs a runtime around it, and says so by being awaited")]
    pub(crate) async fn start() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        logs();
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("keys.json");
        let (clock, hand) = Clock::manual(NOW_SECONDS * 1_000_000_000);
        let keys = KeyStore::new(&key_file, clock.clone());
        let key = keys.create(of_namespace("acme")).unwrap().key;
        let running = Running::new(&RunningOptions {
            clock,
            shutdown_timeout: Duration::from_secs(5),
            ..RunningOptions::default()
        });
        running.set_started();
        let (queue, ring) = (Queue::default(), KeyRing::open(&key_file));
        let listener = service_kit::http::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (address, status) =
            sentinel_ingest::serve(config, listener, queue.clone(), ring.clone(), &running.tasks()).unwrap();
        Self {
            running,
            address,
            status,
            queue,
            hand,
            keys,
            ring,
            key_file,
            key,
            client: reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap(),
            _folder: folder,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts with the key of `acme`.
    pub(crate) async fn post(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request(content_type, body)).await
    }

    pub(crate) async fn post_json(&self, body: &Value) -> Answer {
        self.post("application/json", body.to_string()).await
    }

    pub(crate) fn request(&self, content_type: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url("/events")).header("x-api-key", &self.key);
        request.header("content-type", content_type).body(body)
    }

    /// Posts one good event with another key.
    pub(crate) async fn post_as(&self, key: &str) -> Answer {
        let request = self.client.post(self.url("/events")).header("x-api-key", key);
        self.send(
            request
                .header("content-type", "application/json")
                .body(event("a").to_string()),
        )
        .await
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }
}

pub(crate) fn of_namespace(namespace: &str) -> NewKeyRequest {
    NewKeyRequest {
        namespace: namespace.to_owned(),
        ..NewKeyRequest::default()
    }
}

pub(crate) fn with_rate(per_second: u32) -> NewKeyRequest {
    NewKeyRequest {
        events_per_second_max: NonZeroU32::new(per_second),
        ..of_namespace("acme")
    }
}

pub(crate) fn later(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(NOW_SECONDS + seconds)
}

/// A small event of the tool `name`.
pub(crate) fn event(name: &str) -> Value {
    json!({
        "source": "payments-gateway",
        "event_type": "mcp.request",
        "payload": {"rpc_method": "tools/call", "tool_name": name, "status": 200, "latency_ms": 3},
    })
}

pub(crate) fn lines(events: &[Value]) -> String {
    events.iter().flat_map(|event| [event.to_string(), "\n".to_owned()]).collect()
}

/// Waits until `check` gives something; it says what it saw when not.
pub(crate) async fn until<T: Debug>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    loop {
        match check().await {
            Ok(value) => return value,
            Err(seen) if tokio::time::Instant::now() > deadline => panic!("{what}: last saw {seen}"),
            Err(_) => turns.tick().await,
        };
    }
}
