//! Lists of events and exports.
//!
//! The newest hundred of a hundred million: the newest hour is looked at first, then eight times as much, and so on, until the page
//! is full. Each look is one statement whose time range lets the server skip partitions and granules.

use std::time::Duration;

use clickhouse::native::Block;
use domain::Timestamp;
use domain::analytics::StoredEvent;
use futures::{StreamExt as _, stream};

use super::link::{Fault, Link, column};
use super::rows;
use super::terms::{Part, conditions, time, times};
use crate::memory::terms::{Field, Terms};
use crate::query::{ExportFormat, Order};
use crate::{ByteStream, QueryError};

/// The first look back.
const LOOK: Duration = Duration::from_hours(1);
/// How much further each next one goes.
const GROWTH: u32 = 8;

/// At most `most` events in the given order.
pub(super) async fn page(link: &Link, terms: &Terms, order: Order, most: u64) -> Result<Vec<StoredEvent>, QueryError> {
    let by_id = |field| matches!(field, Field::Id | Field::TraceId);
    match order {
        Order::Newest(before) if !terms.conditions.iter().any(|condition| by_id(condition.field)) => {
            newest(link, terms, before.map(|(at, _)| at), order, most).await
        }
        Order::Newest(_) | Order::Arrival(_) => look(link, terms, (terms.since, terms.until), order, most).await,
    }
}

async fn newest(
    link: &Link,
    terms: &Terms,
    before: Option<Timestamp>,
    order: Order,
    most: u64,
) -> Result<Vec<StoredEvent>, QueryError> {
    let Some((oldest, newest)) = bounds(link).await? else {
        return Ok(Vec::new());
    };
    let floor = terms.since.map_or(oldest, |since| since.max(oldest));
    // One past what can match: the cursor's own time is still asked for, since events of one time are told apart by place.
    let past = |at: Timestamp| at.plus(Duration::from_nanos(1));
    let mut until = past(before.map_or(newest, |before| before.min(newest)));
    until = terms.until.map_or(until, |end| end.min(until));
    let (mut events, mut span) = (Vec::new(), LOOK);
    while until > floor && (events.len() as u64) < most {
        let since = until.minus(span).max(floor);
        let missing = most - events.len() as u64;
        events.extend(look(link, terms, (Some(since), Some(until)), order, missing).await?);
        until = since;
        span = span.saturating_mul(GROWTH);
    }
    Ok(events)
}

/// Times of the oldest and the newest event.
pub(super) async fn bounds(link: &Link) -> Result<Option<(Timestamp, Timestamp)>, Fault> {
    let sql = format!(
        "SELECT count() AS events, toUnixTimestamp64Nano(min(timestamp)) AS oldest, toUnixTimestamp64Nano(max(timestamp)) AS newest \
         FROM {}",
        link.names.read("events")
    );
    for block in link.ask(&sql).await? {
        let (oldest, newest) = (column::<i64>(&block, "oldest")?, column::<i64>(&block, "newest")?);
        if let Some(0) = column::<u64>(&block, "events")?.first() {
            return Ok(None);
        }
        if let Some((oldest, newest)) = oldest.into_iter().zip(newest).next() {
            return Ok(Some((Timestamp::from_nanos(oldest), Timestamp::from_nanos(newest))));
        }
    }
    Ok(None)
}

async fn look(link: &Link, terms: &Terms, part: Part, order: Order, most: u64) -> Result<Vec<StoredEvent>, QueryError> {
    let sql = format!(
        "SELECT {} FROM {} AS t WHERE {} AND {} AND {} ORDER BY {} LIMIT {most}",
        rows::selection(),
        link.names.read("events"),
        times("t.timestamp", &[part], time),
        conditions(terms),
        beyond(order),
        sorting(order)
    );
    let mut events = Vec::new();
    for block in link.ask(&sql).await? {
        events.extend(rows::decode(&block)?);
    }
    Ok(events)
}

fn beyond(order: Order) -> String {
    match order {
        Order::Newest(None) | Order::Arrival(None) => "TRUE".to_owned(),
        Order::Newest(Some((at, place))) => format!(
            "(t.timestamp < {0} OR (t.timestamp = {0} AND (t.partition, t.offset) < ({1}, {2})))",
            time(at),
            place.partition,
            place.offset
        ),
        Order::Arrival(Some(place)) => format!("(t.partition, t.offset) > ({}, {})", place.partition, place.offset),
    }
}

fn sorting(order: Order) -> &'static str {
    match order {
        Order::Newest(_) => "t.timestamp DESC, t.partition DESC, t.offset DESC",
        Order::Arrival(_) => "t.partition, t.offset",
    }
}

/// Memory for sorting before the server goes on by disk.
const SORT_BYTES: &str = "268435456";

/// Every matching event in order of arrival, as the server hands it out.
pub(super) fn export(link: &Link, terms: &Terms, format: ExportFormat) -> Result<ByteStream, QueryError> {
    let selection = match format {
        ExportFormat::Ndjson => rows::selection(),
        ExportFormat::Csv | ExportFormat::Arrow | ExportFormat::Parquet => rows::export_selection(),
    };
    let sql = format!(
        "SELECT {selection} FROM {} AS t WHERE {} AND {} ORDER BY t.partition, t.offset",
        link.names.read("events"),
        times("t.timestamp", &[(terms.since, terms.until)], time),
        conditions(terms)
    );
    let query = link
        .shard(0)
        .query_raw(&sql)
        .with_setting("max_bytes_before_external_sort", SORT_BYTES)
        .with_setting("max_memory_usage", link.config.query_memory_bytes_max.to_string());
    let named = match format {
        ExportFormat::Ndjson => {
            let cursor = query.fetch_native().map_err(Fault::from)?;
            let pieces = stream::try_unfold(cursor, |mut cursor| async move {
                match cursor.next().await.map_err(Fault::from)? {
                    Some(block) => Ok(Some((lines(&block)?, cursor))),
                    None => Ok(None),
                }
            });
            return Ok(pieces.boxed());
        }
        ExportFormat::Csv => "CSVWithNames",
        ExportFormat::Arrow => "ArrowStream",
        ExportFormat::Parquet => "Parquet",
    };
    let cursor = query
        .with_setting("date_time_output_format", "iso")
        .with_setting("output_format_arrow_string_as_string", "1")
        .fetch_bytes(named)
        .map_err(Fault::from)?;
    let pieces = stream::try_unfold(cursor, |mut cursor| async move {
        let piece = cursor.next().await.map_err(Fault::from)?;
        Ok::<_, QueryError>(piece.map(|piece| (piece, cursor)))
    });
    Ok(pieces.boxed())
}

/// The wire form of events, one a line.
fn lines(block: &Block) -> Result<bytes::Bytes, QueryError> {
    let mut lines = Vec::new();
    for stored in rows::decode(block)? {
        serde_json::to_writer(&mut lines, &stored.event).map_err(|error| QueryError::Failed(error.into()))?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}
