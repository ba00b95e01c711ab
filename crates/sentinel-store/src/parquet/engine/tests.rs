//! The engine on tables in memory: what it answers, apart from how rows are kept.

use std::time::Duration;

use bytes::Bytes;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::lit;
use datafusion::prelude::ident;
use domain::EventBatch;
use domain::analytics::{EventsPage, SeriesReport, Served, StorageReport, StoredEvent, ToolsReport, UsageReport, ValueCount};
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use tokio::sync::watch;

use super::*;
use crate::contract;
use crate::memory::MemoryStore;
use crate::parquet::convert::{Row, to_batch, to_events};
use crate::parquet::rollup::roll;
use crate::parquet::{ParquetConfig, ParquetReader, ParquetStore};
use crate::query::{
    EventQuery, ExportFormat, ExportQuery, Filter, Order, SeriesQuery, SqlAnswer, SqlQuery, ToolsQuery, UsageQuery,
    ValuesQuery, Watermark,
};
use crate::{ByteStream, EventReader, EventWriter, InsertError, Inserted, UsageReader};

/// A store whose rows are the reference's and whose answers are the engine's.
#[derive(Debug)]
struct Bench {
    rows: MemoryStore,
    engine: Engine,
    /// Made anew when the reference has changed.
    shelf: std::sync::Mutex<Option<(Watermark, Arc<Shelf>)>>,
}

#[derive(Debug)]
struct Shelf {
    span: Option<(Timestamp, Timestamp)>,
    through: Timestamp,
    tables: Vec<(Table, Arc<MemTable>)>,
}

impl Bench {
    fn new() -> Self {
        let threads = NonZeroUsize::new(2).unwrap();
        let engine = Engine::start(EngineSettings {
            threads,
            memory_bytes_max: 256 << 20,
            spill_folder: None,
        })
        .unwrap();
        Self {
            rows: MemoryStore::new(),
            engine,
            shelf: std::sync::Mutex::default(),
        }
    }

    async fn with_events() -> Self {
        let bench = Self::new();
        for batch in contract::batches(3, 100) {
            bench.rows.insert(batch.into()).await.unwrap();
        }
        bench
    }

    fn tables(&self) -> Arc<dyn Tables> {
        let watermark = *self.rows.horizon().borrow();
        let mut kept = self.shelf.lock().unwrap();
        if kept.as_ref().is_none_or(|(of, _)| *of != watermark) {
            let all = EventQuery {
                filter: Filter::all(Scope::All),
                order: Order::Arrival(None),
                limit: u32::MAX,
            };
            let events = self.rows.events(all).now_or_never().unwrap().unwrap().events;
            *kept = Some((watermark, Arc::new(Shelf::of(&events, watermark.complete_through))));
        }
        let (_, current) = kept.as_ref().unwrap();
        Arc::<Shelf>::clone(current)
    }
}

impl Shelf {
    fn of(events: &[StoredEvent], through: Timestamp) -> Self {
        let rows: Vec<_> = events
            .iter()
            .map(|stored| Row {
                partition: stored.partition,
                offset: stored.offset,
                event: &stored.event,
            })
            .collect();
        // Several batches, so that partitions and dictionaries differ.
        let batches: Vec<_> = rows.chunks(241).map(|rows| to_batch(rows).unwrap()).collect();
        let rolled = |table| {
            batches
                .iter()
                .map(|batch| roll(batch, 0..batch.num_rows(), table).unwrap())
                .collect()
        };
        let tables = Table::ALL.map(|table| {
            let batches = if table == Table::Events {
                batches.clone()
            } else {
                rolled(table)
            };
            (
                table,
                Arc::new(MemTable::try_new(Arc::clone(table.schema()), vec![batches]).unwrap()),
            )
        });
        let times = || events.iter().map(|stored| stored.event.timestamp);
        Self {
            span: times().min().zip(times().max()),
            through,
            tables: tables.into(),
        }
    }
}

impl Tables for Shelf {
    fn table(&self, table: Table, scope: &Scope) -> Arc<dyn TableProvider> {
        let (_, all) = self.tables.iter().find(|(known, _)| *known == table).unwrap();
        let Scope::Only { namespaces, teams } = scope else {
            return Arc::<MemTable>::clone(all);
        };
        let rows = SessionContext::new().read_table(Arc::<MemTable>::clone(all)).unwrap();
        let among = |name: &str, of: &[String]| {
            ident(name).in_list(
                of.iter()
                    .filter(|text| !text.is_empty())
                    .map(|text| lit(text.as_str()))
                    .collect(),
                false,
            )
        };
        rows.filter(among("namespace", namespaces).or(among("team_id", teams)))
            .unwrap()
            .into_view()
    }

    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.span
    }

    fn complete_through(&self) -> Timestamp {
        self.through
    }
}

impl EventWriter for Bench {
    async fn insert(&self, batch: Arc<EventBatch>) -> Result<Inserted, InsertError> {
        self.rows.insert(batch).await
    }
    fn durable_end(&self, partition: u32) -> u64 {
        self.rows.durable_end(partition)
    }
    async fn flush(&self) -> Result<(), InsertError> {
        self.rows.flush().await
    }
    fn advance(&self, through: Timestamp) {
        self.rows.advance(through);
    }
}

impl EventReader for Bench {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>> {
        self.engine.events(self.tables(), query).boxed()
    }
    fn horizon(&self) -> watch::Receiver<Watermark> {
        self.rows.horizon()
    }
    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>> {
        self.engine.export(self.tables(), query).boxed()
    }
    fn sql(&self, query: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>> {
        self.engine.sql(self.tables(), query).boxed()
    }
}

impl UsageReader for Bench {
    fn usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<UsageReport, QueryError>> {
        self.engine.usage(self.tables(), query).boxed()
    }
    fn series(&self, query: SeriesQuery) -> BoxFuture<'_, Result<SeriesReport, QueryError>> {
        self.engine.series(self.tables(), query).boxed()
    }
    fn tools(&self, query: ToolsQuery) -> BoxFuture<'_, Result<ToolsReport, QueryError>> {
        self.engine.tools(self.tables(), query).boxed()
    }
    fn values(&self, query: ValuesQuery) -> BoxFuture<'_, Result<Vec<ValueCount>, QueryError>> {
        self.engine.values(self.tables(), query).boxed()
    }
    fn storage(&self) -> BoxFuture<'_, Result<StorageReport, QueryError>> {
        self.rows.storage()
    }
}

/// The store in a folder, with both its sides.
#[derive(Debug)]
struct Folder {
    writer: ParquetStore,
    reader: ParquetReader,
    _held: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Not before what is inserted, and long after it: days are closed, so that files are merged while they are asked.
        let clock: crate::parquet::Clock = Arc::new(|| Timestamp::parse("2026-11-20T00:00:00Z").unwrap());
        let writer = ParquetStore::open(ParquetConfig::new(folder.path()), clock).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let settings = EngineSettings {
            threads,
            memory_bytes_max: 256 << 20,
            spill_folder: None,
        };
        Self {
            reader: ParquetReader::start(writer.clone(), settings).unwrap(),
            writer,
            _held: folder,
        }
    }
}

impl EventWriter for Folder {
    async fn insert(&self, batch: Arc<EventBatch>) -> Result<Inserted, InsertError> {
        self.writer.insert(batch).await
    }
    fn durable_end(&self, partition: u32) -> u64 {
        self.writer.durable_end(partition)
    }
    async fn flush(&self) -> Result<(), InsertError> {
        self.writer.flush().await
    }
    fn advance(&self, through: Timestamp) {
        self.writer.advance(through);
    }
}

impl EventReader for Folder {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>> {
        self.reader.events(query)
    }
    fn horizon(&self) -> watch::Receiver<Watermark> {
        self.reader.horizon()
    }
    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>> {
        self.reader.export(query)
    }
    fn sql(&self, query: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>> {
        self.reader.sql(query)
    }
}

impl UsageReader for Folder {
    fn usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<UsageReport, QueryError>> {
        self.reader.usage(query)
    }
    fn series(&self, query: SeriesQuery) -> BoxFuture<'_, Result<SeriesReport, QueryError>> {
        self.reader.series(query)
    }
    fn tools(&self, query: ToolsQuery) -> BoxFuture<'_, Result<ToolsReport, QueryError>> {
        self.reader.tools(query)
    }
    fn values(&self, query: ValuesQuery) -> BoxFuture<'_, Result<Vec<ValueCount>, QueryError>> {
        self.reader.values(query)
    }
    fn storage(&self) -> BoxFuture<'_, Result<StorageReport, QueryError>> {
        self.reader.storage()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_a_folder_keeps_the_contract() {
    contract::every_case(|| async { Folder::new() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_over_files_and_hot_rows_sees_the_scope_alone() {
    let folder = Folder::new();
    let mut batches = contract::batches(3, 100).into_iter();
    for batch in batches.by_ref().take(6) {
        folder.insert(batch.into()).await.unwrap();
    }
    folder.flush().await.unwrap();
    for batch in batches {
        folder.insert(batch.into()).await.unwrap();
    }
    for table in ["events", "calls_hourly", "calls_daily"] {
        let sql = format!("SELECT DISTINCT namespace FROM {table} WHERE server <> 'x' OR server IS NULL OR true");
        let answer = folder
            .sql(SqlQuery {
                scope: globex(),
                ..ask(&sql)
            })
            .await
            .unwrap();
        assert_eq!(answer.rows, [["globex"]], "{table}");
    }
}

fn ask(sql: &str) -> SqlQuery {
    SqlQuery {
        scope: Scope::All,
        sql: sql.to_owned(),
        time_max: Duration::from_secs(20),
        rows_max: 1_000,
        memory_bytes_max: 64 << 20,
    }
}

fn globex() -> Scope {
    Scope::Only {
        namespaces: vec!["globex".to_owned()],
        teams: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_keeps_the_contract() {
    contract::every_case(|| async { Bench::new() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_whether_it_came_from_rollups() {
    let bench = Bench::with_events().await;
    let time = |text: &str| Some(Timestamp::parse(text).unwrap());
    let served = async |since: &str, until: &str, equals: &str| {
        let mut filter = Filter {
            since: time(since),
            until: time(until),
            ..Filter::all(Scope::All)
        };
        if !equals.is_empty() {
            filter.equals.push((equals.to_owned(), vec!["x".to_owned()]));
        }
        bench.tools(ToolsQuery { filter, limit: 1 }).await.unwrap().served_from
    };
    assert_eq!(
        served("2026-11-01T05:30:00Z", "2026-11-03T07:10:00Z", "").await,
        Served::Daily
    );
    assert_eq!(
        served("2026-11-01T05:30:00Z", "2026-11-02T07:10:00Z", "server").await,
        Served::Hourly
    );
    assert_eq!(served("2026-11-01T05:30:00Z", "2026-11-01T06:10:00Z", "").await, Served::Raw);
    assert_eq!(
        served("2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z", "human_id").await,
        Served::Raw,
        "no rollup keeps people"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_sees_the_scope_alone_whatever_it_says() {
    let bench = Bench::with_events().await;
    for sql in [
        "SELECT DISTINCT namespace FROM events",
        "SELECT DISTINCT namespace FROM calls_hourly",
        "SELECT DISTINCT namespace FROM calls_daily WHERE namespace <> 'globex' OR true",
        "SELECT a.namespace FROM events a, events b WHERE a.id = b.id GROUP BY 1",
        "WITH e AS (SELECT * FROM events) SELECT namespace FROM e UNION SELECT namespace FROM calls_daily",
        "SELECT DISTINCT (SELECT max(namespace) FROM events) AS n FROM events",
        "SELECT DISTINCT \"namespace\" FROM mcp.public.events",
    ] {
        let answer = bench
            .sql(SqlQuery {
                scope: globex(),
                ..ask(sql)
            })
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(answer.rows, [["globex"]], "{sql}");
    }
    let nothing = Scope::Only {
        namespaces: Vec::new(),
        teams: Vec::new(),
    };
    let answer = bench
        .sql(SqlQuery {
            scope: nothing,
            ..ask("SELECT count(*) FROM events")
        })
        .await
        .unwrap();
    assert_eq!(answer.rows, [[0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_or_wrong_sql_is_refused_with_a_sentence() {
    let bench = Bench::with_events().await;
    let mut said = Vec::new();
    let deep = format!("SELECT {}1{}", "(".repeat(3_000), ")".repeat(3_000));
    let long = format!("SELECT 1{}", "+1".repeat(10_000));
    for sql in [
        "INSERT INTO events SELECT * FROM events",
        "DELETE FROM events",
        "UPDATE events SET server = 'x'",
        "DROP TABLE events",
        "CREATE TABLE t AS SELECT * FROM events",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "CREATE VIEW v AS SELECT 1",
        "COPY events TO '/tmp/stolen.parquet'",
        "COPY (SELECT 1) TO 'x.csv'",
        "SET datafusion.execution.target_partitions = 1000",
        "SHOW TABLES",
        "EXPLAIN ANALYZE SELECT * FROM events",
        "DESCRIBE events",
        "PREPARE p AS SELECT 1",
        "SELECT * INTO t FROM events",
        "SELECT 1; DROP TABLE events",
        "",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'https://example.com/x.parquet'",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT repeat('x', 2000000000)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT tol_name FROM events",
        "SELECT sever FROM calls_hourly",
        "SELECT * FROM event",
        "SELECT cuont(*) FROM events",
        "SELEC 1",
        "SELECT server FROM events WHERE",
        "SELECT CAST('x' AS INT)",
        "SELECT server, count(*) FROM events",
        "SELECT server + 1 FROM events",
        &deep,
        &long,
    ] {
        let shown: String = sql.chars().take(72).collect();
        let error = match bench.sql(ask(sql)).await {
            Err(QueryError::Failed(error)) => panic!("{sql}: {error}"),
            Err(error) => error.to_string(),
            Ok(answer) => panic!("{sql} was answered: {:?}", answer.rows),
        };
        said.push(format!("{shown}\n    {error}"));
    }
    insta::assert_snapshot!("refusals", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_that_nests_as_deep_as_its_length_allows_does_not_take_the_process_along() {
    let bench = Bench::with_events().await;
    for sql in [
        format!("SELECT 1{}", "+1".repeat(8_000)),
        format!("SELECT 1 WHERE {}true", "NOT ".repeat(4_000)),
        format!("SELECT 1 WHERE true{}", " OR true".repeat(2_000)),
        format!("SELECT {}1", "-".to_string() + &"- ".repeat(7_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(800)),
        format!("SELECT 'a'{}", "||'a'".repeat(3_000)),
    ] {
        // Answered or refused: either is right.
        drop(bench.sql(ask(&sql)).await);
    }
    assert_eq!(bench.sql(ask("SELECT 1 AS one")).await.unwrap().rows, [[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_ends_at_its_limits_and_says_which() {
    let bench = Bench::with_events().await;
    let answer = bench
        .sql(SqlQuery {
            rows_max: 5,
            ..ask("SELECT id FROM events")
        })
        .await
        .unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (5, true));
    let answer = bench
        .sql(SqlQuery {
            rows_max: 5,
            ..ask("SELECT id FROM events LIMIT 5")
        })
        .await
        .unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (5, false));

    let endless = "SELECT count(*) FROM events a, events b, events c, events d WHERE a.latency_us + b.latency_us + c.latency_us > d.latency_us";
    let error = bench
        .sql(SqlQuery {
            time_max: Duration::from_millis(300),
            ..ask(endless)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::OverLimit(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the query took longer than 0.3 s; narrow the time range, or ask calls_hourly or calls_daily instead of events"
    );

    let greedy = "SELECT length(string_agg(a.source, ',')) FROM events a, events b";
    let error = bench
        .sql(SqlQuery {
            memory_bytes_max: 4 << 20,
            ..ask(greedy)
        })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the query needs more than 4 MiB of memory; narrow the time range, select fewer columns or group by fewer values"
    );
    assert_eq!(
        bench.sql(ask("SELECT 1 AS one")).await.unwrap().rows,
        [[1]],
        "later queries are answered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_answers_in_json_with_types_in_words_and_reads_sketches() {
    let bench = Bench::with_events().await;
    let all = bench.usage(UsageQuery {
        filter: Filter {
            since: Some(Timestamp::MIN),
            until: Some(Timestamp::MIN.plus(Duration::from_secs(9))),
            ..Filter::all(Scope::All)
        },
        limit: 1,
        step: Duration::from_hours(1),
    });
    assert_eq!(
        all.await.unwrap().totals.calls.events,
        0,
        "the earliest times that can be told are no fault"
    );
    let answer = bench
        .sql(ask("SELECT id, trace_id, timestamp, server, status, latency_us / 2.0 AS half, status = 200 AS fine FROM events ORDER BY id LIMIT 1"))
        .await
        .unwrap();
    let types: Vec<_> = answer.columns.iter().map(|(name, of)| format!("{name} {of}")).collect();
    assert_eq!(
        types,
        [
            "id text",
            "trace_id text",
            "timestamp time",
            "server text",
            "status integer",
            "half number",
            "fine boolean"
        ]
    );
    let first = &answer.rows[0];
    assert_eq!(first[0].as_str().unwrap().len(), 36);
    assert!(first[2].as_str().unwrap().starts_with("2026-11-01T"), "{first:?}");

    let of = |table: &str, latency: &str, humans: &str| {
        format!(
            "SELECT latency_at({latency}, 0.95) AS p95, distinct_count({humans}) AS humans FROM {table} WHERE server = 'mail'"
        )
    };
    let raw = bench
        .sql(ask(&of("events", "latency_sketch(latency_us)", "distinct_sketch(human_id)")))
        .await
        .unwrap();
    let daily = bench
        .sql(ask(&of("calls_daily", "sketch_merge(latency)", "distinct_merge(humans)")))
        .await
        .unwrap();
    assert_eq!(raw.rows, daily.rows);
    assert!(
        raw.rows[0][0].as_u64().unwrap() > 0 && raw.rows[0][1].as_u64().unwrap() > 0,
        "{:?}",
        raw.rows
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_every_event_of_the_scope_once_in_order_of_arrival_in_every_format() {
    let bench = Bench::with_events().await;
    let filter = Filter::all(globex());
    let page = bench
        .rows
        .events(EventQuery {
            filter: filter.clone(),
            order: Order::Arrival(None),
            limit: u32::MAX,
        })
        .await
        .unwrap();
    assert!(page.events.len() > 100);
    let whole = async |format| {
        let pieces: Vec<Bytes> = bench
            .export(ExportQuery {
                filter: filter.clone(),
                format,
            })
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        pieces.concat()
    };
    let expected: Vec<_> = page.events.iter().map(|stored| stored.event.clone()).collect();
    let lines = whole(ExportFormat::Ndjson).await;
    let read: Vec<domain::Event> = lines
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(read, expected);

    let arrow = whole(ExportFormat::Arrow).await;
    let batches = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    let read: Vec<_> = batches.flat_map(|batch| to_events(&batch.unwrap()).unwrap()).collect();
    assert_eq!(read, page.events);

    let file = Bytes::from(whole(ExportFormat::Parquet).await);
    let batches = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let read: Vec<_> = batches.flat_map(|batch| to_events(&batch.unwrap()).unwrap()).collect();
    assert_eq!(read, page.events);

    let csv = String::from_utf8(whole(ExportFormat::Csv).await).unwrap();
    assert!(csv.starts_with("id,timestamp,received_at,"), "{csv:.80}");
    for stored in &page.events {
        assert!(csv.contains(&stored.event.id.to_string()));
    }
}
