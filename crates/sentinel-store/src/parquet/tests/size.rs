//! What events take on disk, and what questions about many of them take: the first is held to a bound, both can be looked at with
//! `cargo test -p sentinel-store --features parquet,test-support figures -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use tokio::time::Instant;

use super::events::{Hand, NOON, merge, still};
use super::realistic::Traffic;
use crate::parquet::{EngineSettings, ParquetConfig, ParquetReader, ParquetStore};
use crate::query::{Dimension, Filter, Metric, Order, Scope};
use crate::{EventQuery, EventReader, EventWriter as _, SeriesQuery, ToolsQuery, UsageQuery, UsageReader};

/// One row group.
const EVENTS: u64 = 131_072;
/// What an event may take on disk, rollups and filters included: a little above what was measured, so that growth is noticed.
const BYTES_MAX: u64 = 90;
const DAY_NS: i64 = 86_400_000_000_000;

async fn fill(folder: &Path, start_ns: i64, events: u64) -> ParquetStore {
    let config = ParquetConfig {
        memory_bytes_max: 1 << 30,
        flush_bytes: 1 << 30,
        ..still(folder)
    };
    let store = ParquetStore::open(config, Hand::at(NOON + 90 * 86_400).clock()).unwrap();
    let mut traffic = Traffic::from(start_ns);
    let mut left = events;
    while left > 0 {
        for _ in 0..8 {
            let some = left.min(16_384);
            store.insert(Arc::new(traffic.batch(some))).await.unwrap();
            left -= some;
        }
        store.flush().await.unwrap();
    }
    merge(&store).await.unwrap();
    store
}

/// Bytes an event by table and column, most first.
fn table(folder: &Path, events: u64) -> String {
    let mut columns: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut files: BTreeMap<String, (u64, i64, u64)> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let name = path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .split('-')
            .next()
            .unwrap()
            .to_owned();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let file = files.entry(name.clone()).or_default();
        *file = (
            file.0 + path.metadata().unwrap().len(),
            file.1 + reader.metadata().file_metadata().num_rows(),
            file.2 + 1,
        );
        for column in reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let sum = columns.entry(format!("{name}.{}", column.column_path())).or_default();
            *sum = (
                sum.0 + column.compressed_size(),
                sum.1 + i64::from(column.bloom_filter_length().unwrap_or(0)),
            );
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let per = |bytes: i64| bytes as f64 / events as f64;
    let mut told = String::new();
    for (name, (bytes, rows, count)) in files {
        let bytes = i64::try_from(bytes).unwrap();
        writeln!(told, "{name:<40} {:7.2} B/event, {rows} rows in {count} files", per(bytes)).unwrap();
    }
    let mut columns: Vec<_> = columns.into_iter().collect();
    columns.sort_by_key(|(_, (bytes, filter))| -(bytes + filter));
    for (name, (bytes, filter)) in columns.into_iter().filter(|(_, (bytes, filter))| per(bytes + filter) > 0.02) {
        writeln!(told, "  {name:<38} {:7.2} and filter {:.2}", per(bytes), per(filter)).unwrap();
    }
    told
}

#[tokio::test]
async fn realistic_events_take_few_bytes_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = fill(folder.path(), NOON * 1_000_000_000 - DAY_NS / 2, EVENTS).await;
    let stored = store.snapshot().stored();
    assert!(
        stored.bytes <= BYTES_MAX * EVENTS,
        "{} bytes an event\n{}",
        stored.bytes / EVENTS,
        table(folder.path(), EVENTS)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and prints figures for people"]
async fn figures_of_a_million_events_at_ten_million_a_month() {
    const MILLION: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let start = NOON * 1_000_000_000 - DAY_NS / 2;
    let begun = Instant::now();
    let store = fill(folder.path(), start, MILLION).await;
    println!("filled in {:.1?}", begun.elapsed());
    println!("{}", table(folder.path(), MILLION));
    let settings = EngineSettings {
        threads: NonZeroUsize::new(2).unwrap(),
        memory_bytes_max: 256 << 20,
        spill_folder: None,
    };
    let reader = ParquetReader::start(store, settings).unwrap();
    let hour = Duration::from_hours(1);
    let since = Timestamp::from_nanos(start).plus(Duration::from_mins(700));
    let filter = Filter {
        since: Some(since),
        until: Some(since.plus(hour * 60)),
        ..Filter::all(Scope::All)
    };
    for round in ["first", "then"] {
        let ask = async |name: &str, asked: futures::future::BoxFuture<'_, ()>| {
            let begun = Instant::now();
            asked.await;
            println!("{round:<6} {name:<24} {:8.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        };
        for (name, limit) in [("overview", 0), ("usage", 10)] {
            let query = UsageQuery {
                filter: filter.clone(),
                limit,
                step: hour,
            };
            ask(name, Box::pin(async { drop(reader.usage(query).await.unwrap()) })).await;
        }
        for (name, metric, by) in [
            ("calls by server", Metric::Calls, Dimension::Server),
            ("p95 by tool", Metric::LatencyP95, Dimension::Tool),
            ("calls by human", Metric::Calls, Dimension::Human),
        ] {
            let query = SeriesQuery {
                filter: filter.clone(),
                metric,
                by,
                step: hour,
                top: 8,
            };
            ask(name, Box::pin(async { drop(reader.series(query).await.unwrap()) })).await;
        }
        let query = ToolsQuery {
            filter: filter.clone(),
            limit: 100,
        };
        ask("tools", Box::pin(async { drop(reader.tools(query).await.unwrap()) })).await;
        let denied = Filter {
            equals: vec![
                ("server".to_owned(), vec!["server-3".to_owned()]),
                ("outcome".to_owned(), vec!["denied".to_owned()]),
            ],
            ..Filter::all(Scope::All)
        };
        for (name, filter) in [("last 100", Filter::all(Scope::All)), ("last 100 denied", denied)] {
            let query = EventQuery {
                filter,
                order: Order::Newest(None),
                limit: 100,
            };
            ask(name, Box::pin(async { drop(reader.events(query).await.unwrap()) })).await;
        }
    }
}
