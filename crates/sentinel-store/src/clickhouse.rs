//! The store on `ClickHouse`: typed tables, rollups that the engine keeps, inserts that happen once.
//!
//! - `schema`: numbered migrations, for one server or a replicated cluster ([`plan`], [`apply`]).
//! - `blocks` and `writer`: how an insert happens once, whoever does it and however often.
//! - `count` and `pages`: typed questions as SQL; `answers` puts them together as every store does.
//! - `sql`: what people ask, confined by the server.
//!
//! Rollups and events are counted by the same sketches, so an answer does not depend on which of them it came from, nor on which
//! store gave it.

mod answers;
mod args;
mod blocks;
mod config;
mod count;
mod link;
mod native;
mod pages;
mod repair;
mod rows;
mod schema;
mod sql;
mod terms;
mod writer;

use std::sync::Arc;

use domain::analytics::{EventsPage, SeriesReport, StorageReport, ToolsReport, UsageReport, ValueCount};
use domain::{EventBatch, Timestamp};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

pub use args::{PasswordError, SqlAccountArgs, StoreArgs};
pub use config::{Account, Config, CountsFrom, Password, Placement};
pub use schema::{MIGRATIONS, Migration, MigrationError, Planned, apply, plan, render};

use crate::query::{EventQuery, ExportQuery, SeriesQuery, SqlAnswer, SqlQuery, ToolsQuery, UsageQuery, ValuesQuery, Watermark};
use crate::{ByteStream, EventReader, EventWriter, InsertError, Inserted, QueryError, UsageReader};
use link::{Fault, Link, column, quoted};
use writer::Writer;

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server was not reached, or refused.
    #[error("connecting to ClickHouse")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Migrations are missing.
    #[error("the database has migration {applied} of {wanted}; run: mcp-runtime sentinel migrate --apply")]
    Outdated {
        /// Of the database.
        applied: u32,
        /// Of this program.
        wanted: u32,
    },
}

impl OpenError {
    /// Whether waiting may mend it: servers come back, migrations are applied.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Outdated { .. })
    }
}

/// A store on `ClickHouse`. Clones are the same store.
#[derive(Debug, Clone)]
pub struct ClickHouseStore {
    link: Arc<Link>,
    writer: Arc<Writer>,
    watermark: watch::Sender<Watermark>,
}

impl ClickHouseStore {
    /// Connects, and learns how far each partition of the queue is. The migrations must be applied.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let mut link = Link::new(config);
        let unreachable = |fault: Fault| OpenError::Unreachable(fault.into());
        let (applied, wanted) = (schema::applied(&link).await.map_err(unreachable)?, schema::wanted());
        if applied < wanted {
            return Err(OpenError::Outdated { applied, wanted });
        }
        link.learn().await.map_err(unreachable)?;
        let writer = Writer::open(&link).await.map_err(unreachable)?;
        let store = Self {
            link: Arc::new(link),
            writer: Arc::new(writer),
            watermark: watch::Sender::new(Watermark::default()),
        };
        store.refresh().await.map_err(unreachable)?;
        Ok(store)
    }

    /// Looks how far the writers of other processes are. A service that only reads calls it now and then.
    pub async fn look_around(&self) -> Result<(), QueryError> {
        Ok(self.refresh().await?)
    }

    /// Tells readers in other processes how far this writer is. A service that writes calls it now and then.
    pub async fn tell(&self, writer: &str) -> Result<(), InsertError> {
        let through = self.watermark.borrow().complete_through;
        let (table, stream) = (self.link.names.local("watermarks"), quoted(&self.link.config.stream));
        let sql = format!(
            "INSERT INTO {table} (stream, writer, complete_through) SETTINGS async_insert = 0, insert_deduplicate = 0 \
             VALUES ({stream}, {}, fromUnixTimestamp64Nano({}, 'UTC'))",
            quoted(writer),
            through.nanos().max(0)
        );
        Ok(self.link.run(0, &sql).await?)
    }

    async fn refresh(&self) -> Result<(), Fault> {
        let (marks, blocks) = (self.link.names.local("watermarks"), self.link.names.local("blocks"));
        let stream = quoted(&self.link.config.stream);
        // The slowest of the writers that are there; without any, what the blocks say.
        let sql = format!(
            "SELECT toInt64(ifNull(if(count() > 0, toUnixTimestamp64Nano(min(through)), \
               (SELECT toUnixTimestamp64Nano(max(complete_through)) FROM {blocks} WHERE stream = {stream})), 0)) AS through, \
             toUInt64(ifNull((SELECT count() FROM {blocks} WHERE stream = {stream}), 0)) AS version \
             FROM (SELECT writer, argMax(complete_through, written_at) AS through, max(written_at) AS told FROM {marks} \
               WHERE stream = {stream} GROUP BY writer HAVING told > now64(3) - INTERVAL 30 SECOND)"
        );
        for block in self.link.ask(&sql).await? {
            let (through, version) = (column::<i64>(&block, "through")?, column::<u64>(&block, "version")?);
            for (through, version) in through.into_iter().zip(version) {
                let through = Timestamp::from_nanos(through);
                self.watermark.send_if_modified(|watermark| {
                    let changed = version > watermark.version || through > watermark.complete_through;
                    watermark.version = watermark.version.max(version);
                    watermark.complete_through = watermark.complete_through.max(through);
                    changed
                });
            }
        }
        Ok(())
    }

    fn rise(&self, through: Timestamp) {
        self.watermark.send_modify(|watermark| {
            watermark.version += 1;
            watermark.complete_through = watermark.complete_through.max(through);
        });
    }

    async fn storage_report(&self) -> Result<StorageReport, QueryError> {
        let tables: Vec<String> = sql::ASKED.iter().map(|table| self.link.names.local(table)).collect();
        let named = |table: &String| table.rsplit('.').next().map(|name| quoted(name.trim_matches('`')));
        let tables: Vec<String> = tables.iter().filter_map(named).collect();
        let sql = format!(
            "SELECT toUInt64(sum(bytes_on_disk)) AS bytes, count() AS files FROM system.parts \
             WHERE active AND database = {} AND table IN ({}, 'event_ids')",
            quoted(&self.link.config.database),
            tables.join(", ")
        );
        let count = format!("SELECT count() AS events FROM {}", self.link.names.read("events"));
        let parts = self.link.ask(&sql).await?;
        let times = pages::bounds(&self.link).await?;
        Ok(StorageReport {
            events: schema::number(&self.link.ask(&count).await?, "events")?,
            bytes: schema::number(&parts, "bytes")?,
            files: schema::number(&parts, "files")?,
            events_in_memory: 0,
            oldest: times.map(|(oldest, _)| oldest),
            newest: times.map(|(_, newest)| newest),
            retention_seconds: self.link.config.retention.map(|retention| retention.as_secs()),
        })
    }
}

impl EventWriter for ClickHouseStore {
    async fn insert(&self, batch: Arc<EventBatch>) -> Result<Inserted, InsertError> {
        let inserted = self.writer.insert(&self.link, &batch).await?;
        self.rise(batch.complete_through);
        Ok(inserted)
    }

    fn durable_end(&self, partition: u32) -> u64 {
        self.writer.durable_end(partition)
    }

    async fn flush(&self) -> Result<(), InsertError> {
        // What is inserted is on the server already. What is held back waits for the rest of its block, and the queue has it.
        if self.writer.holds().await {
            tracing::debug!("events wait for the rest of their block");
        }
        Ok(())
    }

    fn advance(&self, through: Timestamp) {
        self.rise(through);
    }
}

impl EventReader for ClickHouseStore {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>> {
        self.events_page(query).boxed()
    }

    fn horizon(&self) -> watch::Receiver<Watermark> {
        self.watermark.subscribe()
    }

    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>> {
        let stream =
            crate::memory::terms::Terms::check(&query.filter).and_then(|terms| pages::export(&self.link, &terms, query.format));
        std::future::ready(stream).boxed()
    }

    fn sql(&self, query: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>> {
        self.answer_sql(query).boxed()
    }
}

impl UsageReader for ClickHouseStore {
    fn usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<UsageReport, QueryError>> {
        self.usage_report(query).boxed()
    }

    fn series(&self, query: SeriesQuery) -> BoxFuture<'_, Result<SeriesReport, QueryError>> {
        self.series_report(query).boxed()
    }

    fn tools(&self, query: ToolsQuery) -> BoxFuture<'_, Result<ToolsReport, QueryError>> {
        self.tools_report(query).boxed()
    }

    fn values(&self, query: ValuesQuery) -> BoxFuture<'_, Result<Vec<ValueCount>, QueryError>> {
        self.value_counts(query).boxed()
    }

    fn storage(&self) -> BoxFuture<'_, Result<StorageReport, QueryError>> {
        self.storage_report().boxed()
    }
}
