//! The log against its contract and against a disk that cuts, flips, fills and fails.

mod faults;
mod opening;
mod torn;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::contract::{self, Subject, event, events};
use crate::{BatchLimit, EventAppender as _, EventTail, Record};

const ALL: BatchLimit = BatchLimit {
    events: 100_000,
    bytes: 64 << 20,
};

/// A clock that moves by a millisecond each time it is read.
fn clock() -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let millis = Arc::new(AtomicI64::new(1_800_000_000_000));
    move || Timestamp::from_millis(millis.fetch_add(1, Ordering::Relaxed))
}

fn small(dir: &Path) -> LogConfig {
    LogConfig {
        segment_bytes: 4 << 10,
        bytes_max: 1 << 20,
        record_bytes_max: 64 << 10,
        ..LogConfig::new(dir)
    }
}

fn open_small(dir: &Path) -> (LogAppender, LogTail) {
    open(small(dir), clock()).unwrap()
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    segment::list(dir).unwrap().into_iter().map(|(_, path)| path).collect()
}

/// Numbers of all events that wait, with their offsets.
async fn drain(tail: &mut LogTail) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    while tail.lag().events > 0 {
        for record in tail.next(ALL).await.unwrap().records {
            let Record::Event { offset, event } = record else {
                panic!("{record:?}")
            };
            seen.push((offset, event.producer_seq.unwrap()));
        }
    }
    seen
}

struct Log {
    dir: TempDir,
    bytes_max: u64,
    durability: Durability,
}

impl Subject for Log {
    type Appender = LogAppender;
    type Tail = LogTail;

    async fn create(bytes_max: u64) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            bytes_max,
            durability: Durability::Fsync,
        }
    }

    async fn open(&mut self) -> (LogAppender, LogTail) {
        let config = LogConfig {
            bytes_max: self.bytes_max,
            durability: self.durability,
            ..small(self.dir.path())
        };
        open(config, clock()).unwrap()
    }

    async fn append_line(&self, appender: &LogAppender, line: &[u8]) {
        appender.append_line(line).await.unwrap();
    }
}

/// The same log with other words for "acknowledged".
struct Relaxed(Log);

impl Subject for Relaxed {
    type Appender = LogAppender;
    type Tail = LogTail;

    async fn create(bytes_max: u64) -> Self {
        Self(Log {
            durability: Durability::Interval(Duration::from_millis(1)),
            ..Log::create(bytes_max).await
        })
    }

    async fn open(&mut self) -> (LogAppender, LogTail) {
        self.0.open().await
    }

    async fn append_line(&self, appender: &LogAppender, line: &[u8]) {
        self.0.append_line(appender, line).await;
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    contract::suite::<Log>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_on_several_threads() {
    contract::suite::<Log>().await;
}

#[tokio::test]
async fn keeps_the_contract_when_synced_at_intervals() {
    contract::suite::<Relaxed>().await;
}

#[tokio::test]
async fn a_large_append_becomes_several_records_and_stays_in_order() {
    let dir = TempDir::new().unwrap();
    let config = LogConfig {
        record_bytes_max: 2 << 10,
        ..small(dir.path())
    };
    let (appender, mut tail) = open(config, clock()).unwrap();
    appender.append(&events(0..500)).await.unwrap();
    let seen = drain(&mut tail).await;
    assert_eq!(seen, (0..500).map(|number| (number, number)).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_longer_than_a_record_is_refused_alone() {
    let dir = TempDir::new().unwrap();
    let (appender, mut tail) = open_small(dir.path());
    let mut long = event(1);
    long.payload.attributes.insert("note".to_owned(), "x".repeat(70 << 10));
    let error = appender.append(&[event(0), long]).await.unwrap_err();
    assert!(matches!(error, crate::AppendError::TooLarge { .. }), "{error:?}");
    appender.append(&[event(2)]).await.unwrap();
    assert_eq!(drain(&mut tail).await, [(0, 2)], "nothing of a refused append is kept");
}

#[tokio::test]
async fn segments_are_deleted_once_committed() {
    let dir = TempDir::new().unwrap();
    let (appender, mut tail) = open_small(dir.path());
    for first in 0..200 {
        appender.append(&events(first..first + 1)).await.unwrap();
    }
    let before = segment_files(dir.path()).len();
    assert!(before > 5, "{before} segments");
    assert_eq!(drain(&mut tail).await.len(), 200);
    tail.commit(0, 100).await.unwrap();
    let half = segment_files(dir.path()).len();
    assert!(half < before && half > 1, "{half} of {before} segments are left");
    tail.commit(0, 200).await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 1, "the newest stays");
    assert!(tail.lag().bytes <= 8 << 10, "{:?}", tail.lag());
}

#[tokio::test]
async fn complete_through_never_passes_an_event_still_to_come() {
    let dir = TempDir::new().unwrap();
    let start = Timestamp::from_seconds(1_800_000_000);
    let now = Arc::new(AtomicI64::new(start.nanos()));
    let told = Arc::clone(&now);
    let (appender, mut tail) = open(small(dir.path()), move || Timestamp::from_nanos(told.load(Ordering::Relaxed))).unwrap();
    for number in 0..20 {
        now.fetch_add(1_000_000, Ordering::Relaxed);
        appender.append(&events(number..number + 3)).await.unwrap();
    }
    let mut last = Timestamp::MIN;
    while tail.lag().events > 0 {
        let lease = tail
            .next(BatchLimit {
                events: 2,
                bytes: 1 << 20,
            })
            .await
            .unwrap();
        assert!(lease.complete_through >= last);
        last = lease.complete_through;
        let next_written = start.plus(Duration::from_millis(lease.span.end / 3 + 1));
        assert!(
            lease.complete_through <= next_written,
            "{} after offset {}",
            lease.complete_through,
            lease.span.end
        );
    }
    assert_eq!(last, Timestamp::from_nanos(now.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn a_clock_that_goes_back_harms_nothing() {
    let dir = TempDir::new().unwrap();
    let seconds = Arc::new(AtomicI64::new(1_900_000_000));
    let told = Arc::clone(&seconds);
    let (appender, mut tail) = open(small(dir.path()), move || {
        Timestamp::from_seconds(told.fetch_sub(1_000, Ordering::Relaxed))
    })
    .unwrap();
    for number in 0..10 {
        appender.append(&events(number..number + 1)).await.unwrap();
        assert_eq!(tail.lag().events, number + 1);
    }
    drop(appender);
    assert_eq!(drain(&mut tail).await.len(), 10);
}
