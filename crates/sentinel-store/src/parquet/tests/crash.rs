use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::events::{Hand, NOON, batch, counted, merge, open, still};
use crate::EventWriter as _;
use crate::parquet::ParquetStore;
use crate::parquet::disk::{Fault, Step};

/// A process that dies before its nth step at the disk, and everything it had not made sure of.
#[derive(Default)]
struct Death {
    steps_left: usize,
    /// Renamed since the folder was last synced.
    unsure: Vec<PathBuf>,
}

fn dying(death: &Arc<Mutex<Death>>) -> Fault {
    let death = Arc::clone(death);
    Arc::new(move |step, path: &Path| {
        let mut death = death.lock().unwrap();
        death.steps_left = death.steps_left.checked_sub(1).ok_or_else(|| io::Error::other("dead"))?;
        match step {
            Step::Rename => death.unsure.push(path.to_owned()),
            Step::SyncFolder => death.unsure.clear(),
            _ => {}
        }
        Ok(())
    })
}

/// Inserts, flushes and merges; `true` when nothing went wrong. Days lie apart so that everything happens to several files.
async fn live(folder: &Path, fault: Fault) -> bool {
    let hand = Hand::at(NOON);
    let Ok(store) = ParquetStore::open_with(still(folder), hand.clock(), Some(fault)) else {
        return false;
    };
    let mut well = true;
    for part in 0..3 {
        let mut events = batch(part * 50, (part + 1) * 50);
        for (number, event) in &mut events.events {
            event.timestamp = domain::Timestamp::from_seconds(NOON + i64::try_from(*number % 2).unwrap() * 86_400);
        }
        assert_eq!(store.insert(events.into()).await.unwrap().stored, 50);
        well &= store.flush().await.is_ok();
        assert_eq!(
            store.snapshot().stored().events,
            (part + 1) * 50,
            "a failing disk hides nothing"
        );
    }
    hand.set(NOON + 5 * 86_400);
    well &= merge(&store).await.is_ok();
    assert_eq!(store.snapshot().stored().events, 150);
    well
}

/// What becomes of a rename whose folder was not synced.
#[derive(Clone, Copy, PartialEq)]
enum Unsure {
    Kept,
    Lost,
}

async fn die_at_every_step(unsure: Unsure) {
    for steps in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let death = Arc::new(Mutex::new(Death {
            steps_left: steps,
            ..Death::default()
        }));
        let well = live(folder.path(), dying(&death)).await;
        if unsure == Unsure::Lost {
            for path in &death.lock().unwrap().unsure {
                std::fs::remove_file(path).unwrap_or_default();
            }
        }
        let store = open(folder.path());
        let end = store.durable_end(0);
        assert_eq!(store.snapshot().stored().events, end, "died before step {steps}");
        store.insert(batch(0, 150).into()).await.unwrap();
        assert_eq!(counted(&store).await, 150, "died before step {steps}");
        let files = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|extension| extension == "parquet")
        });
        assert_eq!(
            files.count() as u64,
            store.snapshot().stored().files,
            "died before step {steps}"
        );
        if well {
            assert!(steps > 50, "the whole life takes only {steps} steps");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_before_any_step_at_the_disk_loses_nothing_and_repeats_nothing() {
    die_at_every_step(Unsure::Kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_power_before_any_step_at_the_disk_loses_nothing_and_repeats_nothing() {
    die_at_every_step(Unsure::Lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_inserts_wait_and_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(Mutex::new(true));
    let seen = Arc::clone(&full);
    let fault: Fault = Arc::new(move |step, _: &Path| {
        if *seen.lock().unwrap() && step == Step::Write {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    });
    let config = crate::parquet::ParquetConfig {
        memory_bytes_max: 100_000,
        insert_wait_max: std::time::Duration::from_millis(50),
        ..still(folder.path())
    };
    let store = ParquetStore::open_with(config, Hand::at(NOON).clock(), Some(fault)).unwrap();
    store.insert(batch(0, 100).into()).await.unwrap();
    let error = store.flush().await.unwrap_err();
    assert_eq!(error.remedy(), crate::Remedy::Retry);
    let error = store.insert(batch(100, 200).into()).await.unwrap_err();
    assert_eq!(error.remedy(), crate::Remedy::Retry);
    assert_eq!((counted(&store).await, store.durable_end(0)), (100, 0));
    *full.lock().unwrap() = false;
    store.flush().await.unwrap();
    store.insert(batch(100, 200).into()).await.unwrap();
    assert_eq!((counted(&store).await, store.durable_end(0)), (200, 100));
}

#[tokio::test]
async fn what_is_old_enough_goes_to_files_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::at(NOON);
    let config = crate::parquet::ParquetConfig {
        flush_age: std::time::Duration::from_mins(1),
        ..still(folder.path())
    };
    let store = ParquetStore::open(config, hand.clock()).unwrap();
    store.insert(batch(0, 10).into()).await.unwrap();
    hand.set(NOON + 61);
    let wait = async {
        while store.durable_end(0) < 10 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait)
        .await
        .expect("a flush after a minute");
    assert_eq!(store.snapshot().stored().events_in_memory, 0);
}
