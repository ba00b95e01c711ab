//! The store of events and the questions it answers.
//!
//! Writers put batches in, each event becoming visible once; readers ask typed questions. Neither knows which store it is, and no
//! query text of a backend leaves this crate. Counts from rollups and from single events are the same.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use domain::analytics::{EventsPage, SeriesReport, StorageReport, ToolsReport, UsageReport, ValueCount};
use domain::{EventBatch, Timestamp};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::watch;

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
#[cfg(any(test, feature = "test-support"))]
pub mod contract;
pub mod error;
pub mod memory;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod query;
pub mod sketch;

pub use error::{InsertError, QueryError, Remedy};
pub use query::{
    ArrowAnswer, EventQuery, ExportQuery, Filter, SeriesQuery, SqlAnswer, SqlQuery, ToolsQuery, UsageQuery, ValuesQuery,
};

/// Stores events. Readers see an event id once, however often it is inserted.
pub trait EventWriter: Send + Sync + 'static {
    /// Makes the events of a batch visible to every query that begins after it returns.
    ///
    /// Batches of one partition come in order of their spans. A batch (or a part of one) whose span was inserted before is
    /// recognised and skipped, also after a crash; an event whose id is stored already is skipped and counted. `Err`: nothing is
    /// known, and the same batch may be inserted again, which costs no copy. Waits while the store cannot take more; dropping the
    /// future is like `Err`.
    fn insert(&self, batch: Arc<EventBatch>) -> impl Future<Output = Result<Inserted, InsertError>> + Send;

    /// One past the last offset of `partition` that survives the loss of this process, with everything before it. 0 before the
    /// first. The queue may forget what is before it, and must hand out the rest again after a crash.
    fn durable_end(&self, partition: u32) -> u64;

    /// Makes everything inserted before the call survive the loss of this process.
    fn flush(&self) -> impl Future<Output = Result<(), InsertError>> + Send;

    /// Tells that every event received before `through` is inserted, when no batch can tell because none comes.
    fn advance(&self, through: Timestamp);
}

/// What an insert did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inserted {
    /// Events now visible that were not before.
    pub stored: u64,
    /// Events whose id was stored already, or whose span was.
    pub duplicates: u64,
}

/// Looks at single events.
pub trait EventReader: Debug + Send + Sync + 'static {
    /// A page of events.
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>>;

    /// How far the store is, changing with each insert. A reader that follows new events waits on it.
    fn horizon(&self) -> watch::Receiver<query::Watermark>;

    /// Every matching event in order of arrival, encoded and streamed; a fault after the first bytes ends the stream with an error.
    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>>;

    /// Runs a person's read-only SQL over the views `events`, `calls_hourly` and `calls_daily`, confined to the query's scope, time,
    /// memory and rows by the engine.
    fn sql(&self, query: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>>;

    /// The same, answered with columns. A store without it says so.
    fn sql_arrow(&self, query: SqlQuery) -> BoxFuture<'_, Result<ArrowAnswer, QueryError>> {
        drop(query);
        let text = "this store answers SQL as JSON and CSV only; ask for one of them";
        Box::pin(std::future::ready(Err(QueryError::Invalid(text.to_owned()))))
    }
}

/// Encoded rows, in pieces.
pub type ByteStream = BoxStream<'static, Result<Bytes, QueryError>>;

/// Counts calls.
pub trait UsageReader: Debug + Send + Sync + 'static {
    /// Totals, servers, actors, tools and series of a window.
    fn usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<UsageReport, QueryError>>;

    /// One metric over time, split by one dimension.
    fn series(&self, query: SeriesQuery) -> BoxFuture<'_, Result<SeriesReport, QueryError>>;

    /// Every tool, compared with the window before.
    fn tools(&self, query: ToolsQuery) -> BoxFuture<'_, Result<ToolsReport, QueryError>>;

    /// The values of one column with their counts, most frequent first.
    fn values(&self, query: ValuesQuery) -> BoxFuture<'_, Result<Vec<ValueCount>, QueryError>>;

    /// What is stored, and how much.
    fn storage(&self) -> BoxFuture<'_, Result<StorageReport, QueryError>>;
}

/// Everything a service that answers questions needs.
pub trait Reader: EventReader + UsageReader {}
impl<T: EventReader + UsageReader> Reader for T {}
