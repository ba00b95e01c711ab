//! Events and stores for tests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::prelude::SessionContext;
use domain::event::WireVersion;
use domain::{Event, EventBatch, EventId, Outcome, Payload, Span, Timestamp};

use crate::parquet::schema::Table;
use crate::parquet::{Clock, Compaction, FlushError, ParquetConfig, ParquetStore, Snapshot, compact};
use crate::query::Scope;

/// 2026-11-22T12:00:00Z.
pub(super) const NOON: i64 = 1_795_348_800;

/// A clock that a test sets, in seconds.
#[derive(Clone)]
pub(super) struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(super) fn at(seconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(seconds)))
    }
    pub(super) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
    pub(super) fn clock(&self) -> Clock {
        let hand = Arc::clone(&self.0);
        Arc::new(move || Timestamp::from_seconds(hand.load(Ordering::SeqCst)))
    }
}

/// Never flushes or merges by itself.
pub(super) fn still(dir: &Path) -> ParquetConfig {
    ParquetConfig {
        flush_age: std::time::Duration::from_secs(1 << 40),
        compaction: Compaction::Off,
        ..ParquetConfig::new(dir)
    }
}

pub(super) fn open(dir: &Path) -> ParquetStore {
    ParquetStore::open(still(dir), Hand::at(NOON).clock()).unwrap()
}

/// The id of version 7 with this number, made at noon plus so many milliseconds.
pub(super) fn id(number: u64) -> EventId {
    let millis = u128::try_from(NOON * 1_000).unwrap() + u128::from(number);
    EventId::from_bytes((millis << 80 | 0x7 << 76 | 0x8 << 60 | u128::from(number)).to_be_bytes())
}

/// The `number`th event: of one of three namespaces, one a second, from noon on.
pub(super) fn event(number: u64) -> Event {
    let seconds = i64::try_from(number).unwrap();
    let payload = Payload {
        namespace: Some(format!("team-{}", number % 3)),
        server: Some(format!("server-{}", number % 5)),
        tool_name: (!number.is_multiple_of(4)).then(|| format!("tool-{}", number % 7)),
        team_id: Some(format!("owner-{}", number % 2)),
        human_id: Some(format!("human-{}", number % 11)),
        session_id: Some(format!("session-{}", number % 13)),
        outcome: Some(Outcome::ALL[usize::try_from(number).unwrap() % Outcome::ALL.len()]),
        latency_us: Some(number * 10),
        bytes_in: Some(100),
        attributes: (number.is_multiple_of(9))
            .then(|| ("extra".to_owned(), "\"quoted\"".to_owned()))
            .into_iter()
            .collect(),
        ..Payload::default()
    };
    Event {
        version: WireVersion,
        id: id(number),
        timestamp: Timestamp::from_seconds(NOON + seconds),
        received_at: Timestamp::from_seconds(NOON + seconds),
        received_by: None,
        source: "gateway".to_owned(),
        event_type: "mcp.request".to_owned(),
        trace_id: domain::TraceId::from_bytes(u128::from(number + 1).to_be_bytes()),
        span_id: domain::SpanId::from_bytes((number + 1).to_be_bytes()),
        parent_span_id: None,
        producer: Some("gateway-0".to_owned()),
        producer_seq: Some(number),
        payload: Box::new(payload),
    }
}

/// Events `first..end` at the offsets of their numbers.
pub(super) fn batch(first: u64, end: u64) -> EventBatch {
    EventBatch {
        span: Span {
            partition: 0,
            first,
            end,
        },
        events: (first..end).map(|number| (number, event(number))).collect(),
        complete_through: Timestamp::from_seconds(NOON + i64::try_from(end).unwrap()),
    }
}

pub(super) async fn sql(snapshot: &Snapshot, scope: &Scope, text: &str) -> datafusion::common::Result<Vec<RecordBatch>> {
    let session = SessionContext::new();
    for table in Table::ALL {
        session.register_table(table.name(), snapshot.table(table, scope)).unwrap();
    }
    session.sql(text).await?.collect().await
}

/// One number.
pub(super) async fn number(snapshot: &Snapshot, text: &str) -> u64 {
    let rows = sql(snapshot, &Scope::All, text).await.unwrap();
    cast(rows[0].column(0), &DataType::UInt64)
        .unwrap()
        .as_primitive::<UInt64Type>()
        .value(0)
}

/// Events in the raw table and in every rollup: always the same.
pub(super) async fn counted(store: &ParquetStore) -> u64 {
    let snapshot = store.snapshot();
    let raw = number(&snapshot, "select count(*) from events").await;
    let distinct = number(&snapshot, "select count(distinct id) from events").await;
    assert_eq!(raw, distinct, "distinct ids");
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Events) {
        let question = format!("select coalesce(sum(events), 0) from {}", table.name());
        assert_eq!(raw, number(&snapshot, &question).await, "{table:?}");
    }
    raw
}

/// Merges all there is to merge, on a thread where that may block.
pub(super) async fn merge(store: &ParquetStore) -> Result<(), FlushError> {
    let shared = Arc::clone(&store.shared);
    tokio::task::spawn_blocking(move || compact::run(&shared)).await.unwrap()
}
