//! The reference store, in memory: what every question means, by looking at every event.
//!
//! For tests, and as the measure that `contract` holds other stores to. Nothing is bounded and nothing outlives the process, though
//! [`EventWriter::flush`] and [`MemoryStore::crash`] let a test see what a store that has disks would keep.
//!
//! What the types of a question do not say:
//!
//! - An absent column and an empty text are the same. Distinct counts leave out absent values; groups and lists of values show
//!   them as an empty text (decisions: `unknown`).
//! - Lists are ordered by events, most first, then by their keys in the order in which they are shown.
//! - Servers of one name in two namespaces, or under two teams, are two servers.
//! - Steps are counted from the epoch; the first may begin before `since`, and then holds only what is not before `since`.
//! - A series shows the keys with most *events* in the window, whatever its metric, and sums up the rest under `other`, where a
//!   percentile is that of the rest's calls together. Split by a dimension and without events, it is empty.
//! - The window before that tools are compared with has the same length and ends where the window begins.

pub(crate) mod grouping;
pub(crate) mod tally;
pub(crate) mod terms;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use domain::analytics::{
    EventsPage, Horizon, PageMeta, SeriesReport, Served, StorageReport, StoredEvent, ToolsReport, UsageReport, ValueCount,
};
use domain::{EventBatch, EventId, Position, Timestamp};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;

use crate::query::{
    EventQuery, ExportFormat, ExportQuery, Order, SeriesQuery, SqlAnswer, SqlQuery, ToolsQuery, UsageQuery, ValuesQuery,
    Watermark,
};
use crate::{ByteStream, EventReader, EventWriter, InsertError, Inserted, QueryError, UsageReader};
use grouping::Grouping;
use tally::Tallies;
use terms::Terms;

/// Events per piece of an export.
const EXPORT_EVENTS: usize = 256;

/// A store in memory. Clones are the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    content: Arc<RwLock<Content>>,
    watermark: watch::Sender<Watermark>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    /// In order of arrival.
    events: Vec<StoredEvent>,
    ids: HashSet<EventId>,
    partitions: BTreeMap<u32, Ends>,
}

/// One past the last offset of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    /// That is visible.
    visible: u64,
    /// That a flush has covered.
    durable: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            content: Arc::default(),
            watermark: watch::Sender::new(Watermark::default()),
        }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store with what this one would have kept when its process was lost now: what a flush has covered.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut content = self.content().clone();
        let durable = |partition: u32| content.partitions.get(&partition).map_or(0, |ends| ends.durable);
        let events: Vec<_> = content
            .events
            .iter()
            .filter(|stored| stored.offset < durable(stored.partition))
            .cloned()
            .collect();
        content.ids = events.iter().map(|stored| stored.event.id).collect();
        content.events = events;
        content.partitions.values_mut().for_each(|ends| ends.visible = ends.durable);
        Self {
            content: Arc::new(RwLock::new(content)),
            watermark: watch::Sender::new(Watermark::default()),
        }
    }

    // A panic while the lock is held leaves whole events behind: each is pushed last.
    fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rise(&self, through: Timestamp) {
        self.watermark.send_modify(|watermark| {
            watermark.version += 1;
            watermark.complete_through = watermark.complete_through.max(through);
        });
    }

    fn horizon_now(&self) -> Horizon {
        Horizon {
            as_of: now(),
            complete_through: self.watermark.borrow().complete_through,
        }
    }

    fn matching(&self, terms: &Terms) -> Vec<StoredEvent> {
        self.content()
            .events
            .iter()
            .filter(|stored| terms.matches(&stored.event))
            .cloned()
            .collect()
    }

    fn tally(&self, terms: &Terms, grouping: &Grouping) -> Tallies {
        let mut tallies = Tallies::new();
        for stored in &self.content().events {
            if terms.matches(&stored.event) {
                tally::count(&mut tallies, grouping, &stored.event);
            }
        }
        tallies
    }

    fn page(&self, query: &EventQuery) -> Result<EventsPage, QueryError> {
        let terms = Terms::check(&query.filter)?;
        // Before the events are looked at, so that it never promises what the page does not have.
        let horizon = self.horizon_now();
        let mut events = self.matching(&terms);
        match query.order {
            Order::Newest(before) => {
                events.retain(|stored| before.is_none_or(|before| newest_key(stored) < before));
                events.sort_unstable_by_key(|stored| std::cmp::Reverse(newest_key(stored)));
            }
            Order::Arrival(after) => {
                events.retain(|stored| after.is_none_or(|after| position(stored) > after));
                events.sort_unstable_by_key(position);
            }
        }
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let has_more = events.len() > limit;
        events.truncate(limit);
        Ok(EventsPage {
            events,
            meta: PageMeta {
                limit: query.limit,
                has_more,
                next_cursor: None,
            },
            horizon,
        })
    }

    fn usage_report(&self, query: &UsageQuery) -> Result<UsageReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (since, until) = terms.window()?;
        let steps = tally::steps(since, until, query.step)?;
        let horizon = self.horizon_now();
        let recent = EventQuery {
            filter: query.filter.clone(),
            order: Order::Newest(None),
            limit: query.limit,
        };
        Ok(UsageReport {
            totals: tally::totals(self.tally(&terms, &Grouping::totals()?)),
            servers: tally::servers(self.tally(&terms, &Grouping::servers()?), query.limit),
            actors: tally::actors(self.tally(&terms, &Grouping::actors()?), query.limit),
            tools: tally::tool_usage(self.tally(&terms, &Grouping::tool_usage()?), query.limit),
            decisions: tally::decisions(self.tally(&terms, &Grouping::decisions()?)),
            series: tally::usage_series(self.tally(&terms, &Grouping::usage_series(query.step)?), &steps),
            recent: self.page(&recent)?.events,
            horizon,
            served_from: Served::Raw,
        })
    }

    fn series_report(&self, query: &SeriesQuery) -> Result<SeriesReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let (since, until) = terms.window()?;
        let buckets = tally::steps(since, until, query.step)?;
        let horizon = self.horizon_now();
        let top = tally::top_keys(self.tally(&terms, &Grouping::keys(query.by)?), query.top);
        let grouping = Grouping::series(query.by, query.metric, query.step, top.clone())?;
        let series = tally::series(self.tally(&terms, &grouping), top, query.by, query.metric, &buckets);
        Ok(SeriesReport {
            step_seconds: query.step.as_secs(),
            buckets,
            series,
            horizon,
            served_from: Served::Raw,
        })
    }

    fn tools_report(&self, query: &ToolsQuery) -> Result<ToolsReport, QueryError> {
        let terms = Terms::check(&query.filter)?;
        let before = terms.window_before()?;
        let horizon = self.horizon_now();
        let before = self.tally(&before, &Grouping::tool_calls()?);
        let tools = tally::tool_rows(self.tally(&terms, &Grouping::tool_rows()?), &before, query.limit);
        Ok(ToolsReport {
            tools,
            horizon,
            served_from: Served::Raw,
        })
    }

    fn value_counts(&self, query: &ValuesQuery) -> Result<Vec<ValueCount>, QueryError> {
        let terms = Terms::check(&query.filter)?;
        Ok(tally::values(
            self.tally(&terms, &Grouping::values(&query.column)?),
            query.limit,
        ))
    }

    fn storage_report(&self) -> StorageReport {
        let content = self.content();
        let times = || content.events.iter().map(|stored| stored.event.timestamp);
        let events = content.events.len() as u64;
        let (oldest, newest) = (times().min(), times().max());
        StorageReport {
            events,
            bytes: 0,
            files: 0,
            events_in_memory: events,
            oldest,
            newest,
            retention_seconds: None,
        }
    }

    fn export_stream(&self, query: &ExportQuery) -> Result<ByteStream, QueryError> {
        let terms = Terms::check(&query.filter)?;
        if query.format != ExportFormat::Ndjson {
            return Err(QueryError::Invalid(
                "this store exports ndjson only; ask for format=ndjson".to_owned(),
            ));
        }
        let mut events = self.matching(&terms);
        events.sort_unstable_by_key(position);
        Ok(stream::iter(events)
            .chunks(EXPORT_EVENTS)
            .map(|events| ndjson(&events))
            .boxed())
    }
}

/// Events as JSON, one a line.
fn ndjson(events: &[StoredEvent]) -> Result<Bytes, QueryError> {
    let mut lines = Vec::new();
    for stored in events {
        serde_json::to_writer(&mut lines, &stored.event).map_err(|error| QueryError::Failed(error.into()))?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}

fn position(stored: &StoredEvent) -> Position {
    Position {
        partition: stored.partition,
        offset: stored.offset,
    }
}

/// What the newest-first order descends by.
fn newest_key(stored: &StoredEvent) -> (Timestamp, Position) {
    (stored.event.timestamp, position(stored))
}

/// The time an answer is made at. It is told to readers and decides nothing, so no clock is passed in for it.
#[expect(
    clippy::disallowed_methods,
    reason = "stamps answers; no decision depends on it, and this crate knows no service-kit"
)]
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

impl EventWriter for MemoryStore {
    async fn insert(&self, batch: Arc<EventBatch>) -> Result<Inserted, InsertError> {
        let mut inserted = Inserted::default();
        {
            let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
            let partition = batch.span.partition;
            let visible = content.partitions.entry(partition).or_default().visible;
            for &(offset, ref event) in &batch.events {
                if offset < visible || !content.ids.insert(event.id) {
                    inserted.duplicates += 1;
                } else {
                    content.events.push(StoredEvent {
                        event: event.clone(),
                        partition,
                        offset,
                    });
                    inserted.stored += 1;
                }
            }
            content.partitions.entry(partition).or_default().visible = visible.max(batch.span.end);
        }
        self.rise(batch.complete_through);
        Ok(inserted)
    }

    fn durable_end(&self, partition: u32) -> u64 {
        self.content().partitions.get(&partition).map_or(0, |ends| ends.durable)
    }

    async fn flush(&self) -> Result<(), InsertError> {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        content.partitions.values_mut().for_each(|ends| ends.durable = ends.visible);
        Ok(())
    }

    fn advance(&self, through: Timestamp) {
        self.rise(through);
    }
}

impl EventReader for MemoryStore {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<EventsPage, QueryError>> {
        async move { self.page(&query) }.boxed()
    }

    fn horizon(&self) -> watch::Receiver<Watermark> {
        self.watermark.subscribe()
    }

    fn export(&self, query: ExportQuery) -> BoxFuture<'_, Result<ByteStream, QueryError>> {
        async move { self.export_stream(&query) }.boxed()
    }

    fn sql(&self, _: SqlQuery) -> BoxFuture<'_, Result<SqlAnswer, QueryError>> {
        async {
            Err(QueryError::Invalid(
                "this store has no SQL; use the typed questions".to_owned(),
            ))
        }
        .boxed()
    }
}

impl UsageReader for MemoryStore {
    fn usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<UsageReport, QueryError>> {
        async move { self.usage_report(&query) }.boxed()
    }

    fn series(&self, query: SeriesQuery) -> BoxFuture<'_, Result<SeriesReport, QueryError>> {
        async move { self.series_report(&query) }.boxed()
    }

    fn tools(&self, query: ToolsQuery) -> BoxFuture<'_, Result<ToolsReport, QueryError>> {
        async move { self.tools_report(&query) }.boxed()
    }

    fn values(&self, query: ValuesQuery) -> BoxFuture<'_, Result<Vec<ValueCount>, QueryError>> {
        async move { self.value_counts(&query) }.boxed()
    }

    fn storage(&self) -> BoxFuture<'_, Result<StorageReport, QueryError>> {
        async move { Ok(self.storage_report()) }.boxed()
    }
}

#[cfg(test)]
mod tests;
