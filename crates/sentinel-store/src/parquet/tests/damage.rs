use std::path::PathBuf;

use super::events::{Hand, NOON, batch, counted, merge, number, open, sql, still};
use crate::EventWriter as _;
use crate::parquet::{OpenError, ParquetStore};
use crate::query::Scope;

fn files(folder: &tempfile::TempDir, part: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().contains(part));
    found.sort();
    found
}

#[tokio::test]
async fn a_missing_file_is_named_where_it_is_needed_and_hurts_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.insert(batch(0, 100).into()).await.unwrap();
    store.flush().await.unwrap();
    let mut later = batch(100, 200);
    for (_, event) in &mut later.events {
        event.timestamp = domain::Timestamp::from_seconds(NOON + 86_400);
    }
    store.insert(later.into()).await.unwrap();
    store.flush().await.unwrap();
    drop(store);
    let lost = files(&folder, "events-2026-11-22").remove(0);
    std::fs::remove_file(&lost).unwrap();
    let store = open(folder.path());
    let name = lost.file_name().unwrap().to_str().unwrap();
    let faults = store.snapshot().stored().faults;
    assert!(faults.len() == 1 && faults[0].contains(name), "{faults:?}");
    let error = sql(&store.snapshot(), &Scope::All, "select count(*) from events")
        .await
        .unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert_eq!(
        number(
            &store.snapshot(),
            "select count(*) from events where timestamp >= '2026-11-23T00:00:00Z'"
        )
        .await,
        100
    );
    assert_eq!(number(&store.snapshot(), "select sum(events) from calls_daily").await, 200);
    store.insert(batch(200, 250).into()).await.unwrap();
    store.flush().await.unwrap();
}

#[tokio::test]
async fn one_process_at_a_time_writes_and_others_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.insert(batch(0, 100).into()).await.unwrap();
    store.flush().await.unwrap();
    let error = ParquetStore::open(still(folder.path()), Hand::at(NOON).clock()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    let reader = ParquetStore::open_read_only(still(folder.path()), Hand::at(NOON).clock()).unwrap();
    assert_eq!(counted(&reader).await, 100);
    assert!(matches!(
        reader.insert(batch(100, 101).into()).await,
        Err(crate::InsertError::Closed)
    ));
    assert!(matches!(reader.flush().await, Err(crate::InsertError::Closed)));
}

#[tokio::test]
async fn a_damaged_manifest_gives_way_to_the_one_before_only_when_that_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::at(NOON);
    let store = ParquetStore::open(still(folder.path()), hand.clock()).unwrap();
    for part in 0..2 {
        store.insert(batch(part * 10, (part + 1) * 10).into()).await.unwrap();
        store.flush().await.unwrap();
    }
    drop(store);
    let newest = files(&folder, "manifest").pop().unwrap();
    let sound = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &sound[..sound.len() / 2]).unwrap();
    let error = ParquetStore::open(still(folder.path()), hand.clock()).unwrap_err();
    assert!(
        matches!(error, OpenError::Lost { .. }) && error.to_string().contains("-f.parquet"),
        "{error}"
    );
    std::fs::write(&newest, &sound).unwrap();

    let store = ParquetStore::open(still(folder.path()), hand.clock()).unwrap();
    let held = store.snapshot();
    hand.set(NOON + 5 * 86_400);
    merge(&store).await.unwrap();
    let copies: Vec<_> = files(&folder, "-f.parquet")
        .into_iter()
        .map(|path| (std::fs::read(&path).unwrap(), path))
        .collect();
    drop((store, held));
    for (bytes, path) in copies {
        std::fs::write(path, bytes).unwrap();
    }
    // Three merges, each a commit: the newest of them is undone as long as what it merged is there.
    let newest = files(&folder, "manifest").pop().unwrap();
    std::fs::write(&newest, b"mcp-events").unwrap();
    let outcome = ParquetStore::open(still(folder.path()), hand.clock());
    match outcome {
        Ok(store) => assert_eq!(counted(&store).await, 20),
        Err(error) => assert!(matches!(error, OpenError::Lost { .. }), "{error}"),
    }
}
