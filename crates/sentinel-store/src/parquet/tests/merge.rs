use std::time::Duration;

use super::events::{Hand, NOON, batch, counted, merge, number, open, sql, still};
use crate::EventWriter as _;
use crate::parquet::manifest::FileEntry;
use crate::parquet::schema::Table;
use crate::parquet::{ParquetConfig, ParquetStore, compact, retain, to_events};
use crate::query::Scope;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_never_dip_while_rows_move_to_files_and_files_merge() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::at(NOON);
    let store = ParquetStore::open(still(folder.path()), hand.clock()).unwrap();
    let writer = store.clone();
    #[expect(clippy::disallowed_methods, reason = "the test owns the task and awaits it")]
    let writing = tokio::spawn(async move {
        for part in 0..30 {
            writer.insert(batch(part * 20, (part + 1) * 20).into()).await.unwrap();
            if part % 2 == 0 {
                writer.flush().await.unwrap();
            }
            if part % 7 == 6 {
                merge(&writer).await.unwrap();
            }
        }
    });
    let mut last = 0;
    while !writing.is_finished() {
        let before = store.watermark().borrow().version * 20;
        let now = counted(&store).await;
        assert!(
            now >= last && now >= before && now % 20 == 0,
            "{last} events, {before} inserted, then {now}"
        );
        last = now;
    }
    writing.await.unwrap();
    assert_eq!(counted(&store).await, 600);
}

/// Files of one day at rest.
const TABLES: u64 = Table::ALL.len() as u64;

#[tokio::test]
async fn a_closed_day_becomes_one_file_per_table_in_the_same_order_and_a_snapshot_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::at(NOON);
    let store = ParquetStore::open(still(folder.path()), hand.clock()).unwrap();
    for part in 0..5 {
        store.insert(batch(part * 100, (part + 1) * 100).into()).await.unwrap();
        store.flush().await.unwrap();
    }
    let before = store.snapshot();
    assert_eq!(before.stored().files, 5 * TABLES);
    hand.set(NOON + 3 * 86_400);
    merge(&store).await.unwrap();
    assert_eq!(store.snapshot().stored().files, TABLES);
    assert_eq!(counted(&store).await, 500);
    assert_eq!(
        number(&before, "select count(*) from events").await,
        500,
        "a snapshot keeps its files"
    );
    let all = "select * from events order by \"offset\"";
    let (old, new) = (
        sql(&before, &Scope::All, all).await.unwrap(),
        sql(&store.snapshot(), &Scope::All, all).await.unwrap(),
    );
    let events =
        |rows: &[arrow::array::RecordBatch]| rows.iter().flat_map(|batch| to_events(batch).unwrap()).collect::<Vec<_>>();
    assert_eq!(events(&old), events(&new));
    let rows = sql(
        &store.snapshot(),
        &Scope::All,
        "select namespace, date_trunc('hour', timestamp) h, server, tool_name, timestamp from events",
    )
    .await
    .unwrap();
    let table = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
    let columns = table.columns().iter().map(|column| arrow::compute::SortColumn {
        values: std::sync::Arc::clone(column),
        options: None,
    });
    let order = arrow::compute::lexsort_to_indices(&columns.collect::<Vec<_>>(), None).unwrap();
    assert!(order.values().iter().is_sorted(), "the merged file is in order");
    drop(before);
    let left = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some());
    assert_eq!(left.count() as u64, TABLES, "files go when the last snapshot lets go");
    drop(store);
    let store = open(folder.path());
    assert_eq!(counted(&store).await, 500);
    assert_eq!(store.insert(batch(0, 500).into()).await.unwrap().duplicates, 500);
}

#[tokio::test]
async fn retention_removes_whole_days() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::at(NOON);
    let config = ParquetConfig {
        retention: Some(Duration::from_hours(3 * 24)),
        ..still(folder.path())
    };
    let store = ParquetStore::open(config, hand.clock()).unwrap();
    store.insert(batch(0, 10).into()).await.unwrap();
    store.flush().await.unwrap();
    hand.set(NOON + 3 * 86_400 + 43_199);
    retain::run(&store.shared).unwrap();
    assert_eq!(counted(&store).await, 10, "the day ended less than three days ago");
    hand.set(NOON + 3 * 86_400 + 43_200);
    retain::run(&store.shared).unwrap();
    assert_eq!((counted(&store).await, store.durable_end(0)), (0, 10));
    assert_eq!(
        store.insert(batch(0, 10).into()).await.unwrap().stored,
        0,
        "positions outlive the rows"
    );
}

fn file(number: u64, day: i32, rows: u64) -> FileEntry {
    FileEntry {
        name: format!("{number:04}"),
        table: Table::Events,
        day,
        rows,
        bytes: rows * 50,
        time_min: 0,
        time_max: 0,
        namespaces: Vec::new(),
        made_ids: None,
        other_ids: None,
    }
}

#[test]
fn a_day_of_flushes_stays_within_forty_files_and_rewrites_each_row_few_times() {
    for rows in [1, 500, 60_000] {
        let mut files: Vec<FileEntry> = Vec::new();
        let (mut rewritten, mut most) = (0, 0);
        let mut next = 0;
        for _ in 0..1_440 {
            files.push(file(next, 7, rows));
            next += 1;
            while let Some(chosen) = compact::choose(&files, 7) {
                let merged: u64 = files
                    .iter()
                    .filter(|file| chosen.contains(&file.name))
                    .map(|file| file.rows)
                    .sum();
                files.retain(|file| !chosen.contains(&file.name));
                files.push(file(next, 7, merged));
                next += 1;
                rewritten += merged;
            }
            most = most.max(files.len());
        }
        let total = rows * 1_440;
        assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), total);
        assert!(most <= 40, "{most} files with flushes of {rows} rows");
        assert!(
            rewritten <= total * 400 / rows.min(100),
            "each row rewritten {} times with flushes of {rows} rows",
            rewritten / total
        );
        while let Some(chosen) = compact::choose(&files, 8) {
            let merged: u64 = files
                .iter()
                .filter(|file| chosen.contains(&file.name))
                .map(|file| file.rows)
                .sum();
            files.retain(|file| !chosen.contains(&file.name));
            files.push(file(next, 7, merged));
            next += 1;
        }
        assert!(
            files.len() as u64 <= 2 + total / 4_000_000,
            "{} files at rest with flushes of {rows} rows",
            files.len()
        );
    }
}
