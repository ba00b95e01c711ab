//! The store's reading side.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use domain::Timestamp;
use domain::analytics::{EventsPage, SeriesReport, StorageReport, ToolsReport, UsageReport, ValueCount};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Engine, EngineSettings, Part, Piece, Tables};
use crate::parquet::schema::Table;
use crate::parquet::{ParquetStore, Snapshot};
use crate::query::{
    ArrowAnswer, EventQuery, ExportQuery, Scope, SeriesQuery, SqlAnswer, SqlQuery, ToolsQuery, UsageQuery, ValuesQuery,
    Watermark,
};
use crate::{ByteStream, EventReader, QueryError, UsageReader};

impl Tables for Snapshot {
    fn table(&self, table: Table, scope: &Scope) -> Arc<dyn TableProvider> {
        Self::table(self, table, scope)
    }

    fn pieces(&self, table: Table, scope: &Scope, parts: &[Part]) -> Vec<Piece> {
        Self::pieces(self, table, scope, parts)
    }

    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let stored = self.stored();
        stored.oldest.zip(stored.newest)
    }

    fn complete_through(&self) -> Timestamp {
        self.watermark().complete_through
    }
}

/// Answers questions about a [`ParquetStore`], on threads of its own. Clones share them.
#[derive(Debug, Clone)]
pub struct ParquetReader {
    store: ParquetStore,
    engine: Arc<Engine>,
}

impl ParquetReader {
    /// Starts the threads that answer.
    pub fn start(store: ParquetStore, settings: EngineSettings) -> std::io::Result<Self> {
        Ok(Self {
            store,
            engine: Arc::new(Engine::start(settings)?),
        })
    }

    fn tables(&self) -> Arc<dyn Tables> {
        Arc::new(self.store.snapshot())
    }
}

impl EventReader for ParquetReader {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>> {
        self.engine.events(self.tables(), query).boxed()
    }

    fn horizon(&self) -> watch::Receiver<Watermark> {
        self.store.watermark()
    }

    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>> {
        self.engine.export(self.tables(), query).boxed()
    }

    fn sql(&self, query: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>> {
        self.engine.sql(self.tables(), query).boxed()
    }

    fn sql_arrow(&self, query: SqlQuery) -> BoxFuture<'_, Result<ArrowAnswer, QueryError>> {
        self.engine.sql_arrow(self.tables(), query).boxed()
    }
}

impl UsageReader for ParquetReader {
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
        let stored = self.store.snapshot().stored();
        let report = StorageReport {
            events: stored.events,
            bytes: stored.bytes,
            files: stored.files,
            events_in_memory: stored.events_in_memory,
            oldest: stored.oldest,
            newest: stored.newest,
            retention_seconds: self.store.retention().map(|retention| retention.as_secs()),
        };
        std::future::ready(Ok(report)).boxed()
    }
}
