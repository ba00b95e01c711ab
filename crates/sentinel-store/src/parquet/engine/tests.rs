//! The engine on tables in memory: what it answers, apart from how rows are kept.

mod export;
mod sql;

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
async fn the_busiest_of_too_many_groups_are_found_exactly_or_not_at_all() {
    let mut bench = Bench::with_events().await;
    bench.engine.groups_max = 4;
    let query = |limit| UsageQuery {
        filter: Filter {
            since: Some(Timestamp::parse("2026-11-01T00:00:00Z").unwrap()),
            until: Some(Timestamp::parse("2026-11-09T00:00:00Z").unwrap()),
            ..Filter::all(Scope::All)
        },
        limit,
        step: Duration::from_hours(24),
    };
    let (mut found, mut refused) = (0, 0);
    for limit in 1..20 {
        let theirs = bench.rows.usage(query(limit)).await.unwrap();
        match bench.usage(query(limit)).await {
            Ok(ours) => {
                assert_eq!((&ours.actors, &ours.tools), (&theirs.actors, &theirs.tools), "{limit}");
                assert_eq!((&ours.servers, &ours.totals), (&theirs.servers, &theirs.totals), "{limit}");
                found += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("groups of like size"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(found > 0, "{found} found, {refused} refused");
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
