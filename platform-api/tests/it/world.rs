//! What the tests share: a store, a system, the API over both, and its callers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::Bytes;
use domain::analytics::{EventsPage, Horizon, SeriesReport, StorageReport, ToolsReport, UsageReport, ValueCount};
use domain::operations::{
    ComponentState, ComponentStatus, DeadLetter, KeyView, LogLine, NewKey, PipelineStatus, QueueReport, ServerStatus,
    SystemStatus,
};
use domain::{Decision, Event, EventBatch, EventId, Outcome, Payload, Span, Timestamp};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::Request;
use http_body_util::BodyExt as _;
use platform_api::{Api, Config, DeadLetterPage, DeadLetters, KeySpec, Keys, LogRun, Logs, OperationError, ServiceKey, Status};
use sentinel_store::memory::MemoryStore;
use sentinel_store::query::{Scope, Watermark};
use sentinel_store::{
    ByteStream, EventQuery, EventReader, EventWriter as _, ExportQuery, QueryError, SeriesQuery, SqlAnswer, SqlQuery,
    ToolsQuery, UsageQuery, UsageReader, ValuesQuery,
};
use serde_json::{Value, json};
use service_kit::{LogFilter, Running, Tasks};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

pub(crate) const ADMIN: &str = "admin-secret";
pub(crate) const ACME: &str = "acme-secret";
pub(crate) const GLOBEX: &str = "globex-secret";

/// Longest wait for anything; a test that gets here has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: still waiting after {DEADLINE:?}"))
}

pub(crate) struct World {
    pub(crate) app: Router,
    pub(crate) store: Arc<Store>,
    pub(crate) running: Running,
}

pub(crate) fn config() -> Config {
    let only = |namespace: &str| Scope::Only {
        namespaces: vec![namespace.to_owned()],
        teams: vec![],
    };
    Config {
        service_keys: vec![
            ServiceKey::of_secret("admin", ADMIN, Scope::All, true),
            ServiceKey::of_secret("acme", ACME, only("acme"), false),
            ServiceKey::of_secret("globex", GLOBEX, only("globex"), false),
        ],
        ..Config::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let running = Tasks::for_test();
        let store = Arc::new(Store::default());
        let reader: Arc<dyn sentinel_store::Reader> = Arc::<Store>::clone(&store);
        let api = Api::new(config, reader, system(), &running.tasks());
        Self {
            app: platform_api::router(api),
            store,
            running,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        let mut request = request;
        request
            .extensions_mut()
            .insert(ConnectInfo::<SocketAddr>("127.0.0.1:50000".parse().unwrap()));
        soon("an answer", self.app.clone().oneshot(request)).await.unwrap()
    }

    pub(crate) async fn call(&self, method: &str, uri: &str, key: Option<&str>, body: &str) -> Response {
        let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// An administrator's GET, which must work.
    pub(crate) async fn get(&self, uri: &str) -> Value {
        let response = self.call("GET", uri, Some(ADMIN), "").await;
        let status = response.status();
        let body = body(response).await;
        assert_eq!(status, 200, "{uri}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }
}

pub(crate) async fn body(response: Response) -> Bytes {
    soon("a body", response.into_body().collect()).await.unwrap().to_bytes()
}

pub(crate) async fn json_body(response: Response) -> Value {
    serde_json::from_slice(&body(response).await).unwrap()
}

/// Event number `at`, whose time is `seconds` before now; even ones are of `acme`.
pub(crate) fn event(at: u64, seconds: u64) -> Event {
    let now = Timestamp::from_nanos(service_kit::Clock::system().unix_ns());
    let even = at.is_multiple_of(2);
    Event {
        version: domain::event::WireVersion,
        id: EventId::from_bytes(u128::from(at + 1).to_be_bytes()),
        timestamp: Timestamp::from_seconds(now.seconds()).minus(Duration::from_secs(seconds)),
        received_at: now,
        received_by: Some("k1".to_owned()),
        source: "payments-gateway".to_owned(),
        event_type: "mcp.request".to_owned(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".parse().unwrap()),
        span_id: Some("b7ad6b7169203331".parse().unwrap()),
        parent_span_id: Some("b7ad6b7169203332".parse().unwrap()),
        producer: Some("p".to_owned()),
        producer_seq: Some(at),
        payload: Box::new(Payload {
            namespace: Some(if even { "acme" } else { "globex" }.to_owned()),
            server: Some("payments".to_owned()),
            team_id: Some("t1".to_owned()),
            human_id: Some("ada".to_owned()),
            agent_id: Some("cursor".to_owned()),
            tool_name: Some("list_invoices".to_owned()),
            rpc_method: Some("tools/call".to_owned()),
            decision: Some(if even { Decision::Allow } else { Decision::Deny }),
            outcome: Some(if even { Outcome::Ok } else { Outcome::Denied }),
            status: Some(if even { 200 } else { 403 }),
            latency_us: Some(1_000 + at),
            attributes: [("note".to_owned(), "x".to_owned())].into(),
            ..Payload::default()
        }),
    }
}

/// How the store answers, beyond what the memory store does.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) memory: MemoryStore,
    next: Mutex<u64>,
    /// The last SQL asked.
    pub(crate) asked: Mutex<Option<SqlQuery>>,
    /// When set, questions about values wait for a permit.
    pub(crate) gate: Mutex<Option<Arc<Semaphore>>>,
    /// When set, exports have so many pieces, made when asked for and counted here.
    pub(crate) pieces: Mutex<Option<(u64, watch::Sender<u64>)>>,
}

impl Store {
    /// Inserts an event after those before it.
    pub(crate) async fn insert(&self, event: Event) {
        let offset = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next - 1
        };
        let complete_through = event.received_at;
        let span = Span {
            partition: 0,
            first: offset,
            end: offset + 1,
        };
        self.memory
            .insert(Arc::new(EventBatch {
                span,
                events: vec![(offset, event)],
                complete_through,
            }))
            .await
            .unwrap();
    }

    pub(crate) async fn fill(&self, count: u64) {
        for at in 0..count {
            self.insert(event(at, 3_600 - at)).await;
        }
    }
}

impl EventReader for Store {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>> {
        self.memory.events(query)
    }

    fn horizon(&self) -> watch::Receiver<Watermark> {
        self.memory.horizon()
    }

    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>> {
        let Some((count, made)) = self.pieces.lock().unwrap().clone() else {
            return self.memory.export(query);
        };
        let pieces = stream::iter(0..count).map(move |_| {
            made.send_modify(|made| *made += 1);
            Ok(Bytes::from(vec![b'x'; 64 << 10]))
        });
        Box::pin(async move { Ok(pieces.boxed()) })
    }

    fn sql(&self, query: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>> {
        *self.asked.lock().unwrap() = Some(query);
        let horizon = Horizon {
            as_of: Timestamp::from_seconds(2),
            complete_through: Timestamp::from_seconds(1),
        };
        let columns = vec![("server".to_owned(), "text"), ("calls".to_owned(), "integer")];
        let rows = vec![vec![json!("a,\"b\""), json!(7)], vec![Value::Null, json!(1)]];
        Box::pin(async move {
            Ok(SqlAnswer {
                columns,
                rows,
                truncated: true,
                horizon,
            })
        })
    }
}

impl UsageReader for Store {
    fn usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<UsageReport, QueryError>> {
        self.memory.usage(query)
    }

    fn series(&self, query: SeriesQuery) -> BoxFuture<'_, Result<SeriesReport, QueryError>> {
        self.memory.series(query)
    }

    fn tools(&self, query: ToolsQuery) -> BoxFuture<'_, Result<ToolsReport, QueryError>> {
        self.memory.tools(query)
    }

    fn values(&self, query: ValuesQuery) -> BoxFuture<'_, Result<Vec<ValueCount>, QueryError>> {
        let gate = self.gate.lock().unwrap().clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            self.memory.values(query).await
        })
    }

    fn storage(&self) -> BoxFuture<'_, Result<StorageReport, QueryError>> {
        self.memory.storage()
    }
}

/// A system in which everything is well and nothing is done.
#[derive(Debug)]
struct System;

pub(crate) fn system() -> Arc<dyn platform_api::Operations> {
    Arc::new(System)
}

fn key(id: &str) -> KeyView {
    KeyView {
        id: id.to_owned(),
        namespace: "acme".to_owned(),
        server: Some("payments".to_owned()),
        created_at: Timestamp::from_seconds(1),
        expires_at: Some(Timestamp::from_seconds(2)),
        revoked_at: Some(Timestamp::from_seconds(3)),
        events_per_second_max: Some(5),
        note: "n".to_owned(),
    }
}

fn letter(id: u64) -> DeadLetter {
    DeadLetter {
        id,
        set_aside_at: Timestamp::from_seconds(1),
        partition: 0,
        offset: id,
        reason: "not JSON".to_owned(),
        record: "{".to_owned(),
    }
}

fn line(at: i64) -> LogLine {
    LogLine {
        timestamp: Timestamp::from_seconds(at),
        level: "info".to_owned(),
        component: "gateway".to_owned(),
        message: format!("line {at}"),
        fields: json!({"n": at}).as_object().cloned().unwrap_or_default(),
    }
}

fn known<T: Send + 'static>(is_known: bool, value: T) -> BoxFuture<'static, Result<T, OperationError>> {
    Box::pin(async move {
        if is_known {
            Ok(value)
        } else {
            Err(OperationError::NotFound("there is no such thing".to_owned()))
        }
    })
}

impl Status for System {
    fn system_status(&self) -> BoxFuture<'_, Result<SystemStatus, OperationError>> {
        let component = |state| ComponentStatus {
            key: "ingest".to_owned(),
            display: "Ingest".to_owned(),
            state,
            detail: "d".to_owned(),
            address: Some("a".to_owned()),
        };
        let server = |name: &str| ServerStatus {
            name: name.to_owned(),
            namespace: "acme".to_owned(),
            url: "u".to_owned(),
            upstream: "p".to_owned(),
            mode: "enforce".to_owned(),
        };
        let storage = StorageReport {
            events: 1,
            bytes: 2,
            files: 3,
            events_in_memory: 4,
            oldest: None,
            newest: Some(Timestamp::default()),
            retention_seconds: None,
        };
        known(
            true,
            SystemStatus {
                as_of: Timestamp::from_seconds(9),
                size: "standalone".to_owned(),
                version: "0".to_owned(),
                components: vec![component(ComponentState::Ready), component(ComponentState::NotReady)],
                pipeline: PipelineStatus {
                    freshness_p50_ms: Some(1.5),
                    ..PipelineStatus::default()
                },
                queue: Some(QueueReport {
                    topic: "mcp.events".to_owned(),
                    ..QueueReport::default()
                }),
                storage: Some(storage),
                servers: vec![server("payments")],
                keys_expiring: vec![key("k1")],
            },
        )
    }

    fn restart(&self, component: &str) -> BoxFuture<'_, Result<(), OperationError>> {
        known(component == "ingest", ())
    }
}

impl Logs for System {
    fn log_lines(
        &self,
        component: &str,
        _run: LogRun,
        filter: LogFilter,
    ) -> BoxFuture<'_, Result<Vec<LogLine>, OperationError>> {
        let lines = (0..10)
            .map(line)
            .skip(10_usize.saturating_sub(filter.tail.unwrap_or(10)))
            .collect();
        known(component == "gateway", lines)
    }

    fn follow_log_lines(&self, component: &str, _: LogFilter) -> Result<BoxStream<'static, LogLine>, OperationError> {
        if component != "gateway" {
            return Err(OperationError::NotFound("there is no such component".to_owned()));
        }
        Ok(stream::iter(0..3).map(line).chain(stream::pending()).boxed())
    }
}

impl Keys for System {
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyView>, OperationError>> {
        known(true, vec![key("k1")])
    }

    fn create_key(&self, spec: KeySpec) -> BoxFuture<'_, Result<NewKey, OperationError>> {
        let view = KeyView {
            namespace: spec.namespace,
            server: spec.server,
            expires_at: spec.expires_at,
            ..key("k2")
        };
        known(
            true,
            NewKey {
                view,
                key: "mcpi_k2_secret".to_owned(),
            },
        )
    }

    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyView, OperationError>> {
        known(id == "k1", key(id))
    }

    fn rotate_key(&self, id: &str, _: Timestamp) -> BoxFuture<'_, Result<NewKey, OperationError>> {
        known(
            id == "k1",
            NewKey {
                view: key("k2"),
                key: "mcpi_k2_secret".to_owned(),
            },
        )
    }
}

impl DeadLetters for System {
    fn dead_letters(&self, after: u64, limit: u32) -> BoxFuture<'_, Result<DeadLetterPage, OperationError>> {
        let all: Vec<_> = (after + 1..=5).map(letter).collect();
        let limit = usize::try_from(limit).unwrap();
        known(
            true,
            DeadLetterPage {
                has_more: all.len() > limit,
                dead_letters: all.into_iter().take(limit).collect(),
            },
        )
    }

    fn dead_letter(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, OperationError>> {
        known(id <= 5, letter(id))
    }

    fn replay_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>> {
        known(id <= 5, ())
    }

    fn discard_dead_letter(&self, id: u64) -> BoxFuture<'_, Result<(), OperationError>> {
        known(id <= 5, ())
    }
}
