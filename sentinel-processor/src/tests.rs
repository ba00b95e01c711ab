//! The processor between the queue in memory and a store that fails on command.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::{EventBatch, EventId, Timestamp};
use sentinel_queue::contract::{event, events};
use sentinel_queue::dead_letters::{DeadLetters as _, MemoryDeadLetters};
use sentinel_queue::memory::{self, MemoryAppender, MemoryTail};
use sentinel_queue::{EventAppender as _, EventTail as _};
use sentinel_store::{InsertError, Inserted};
use service_kit::tasks::{Running, RunningOptions};
use tokio::time::{Instant, timeout};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// What the store answers next; nothing more: it works.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// Refuses for now, with or without having taken the batch.
    Unavailable {
        taken: bool,
    },
    Closed,
}

/// A store that answers as told, and makes durable only when told.
#[derive(Debug, Clone, Default)]
struct Store(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    /// Events it refuses for good, by number.
    unfit: Vec<u64>,
    /// Whether it names the offset of an unfit event.
    vague: bool,
    /// Durable at once, or at a flush only.
    lazy: bool,
    visible: BTreeMap<EventId, u64>,
    spans: Vec<(u32, u64, u64)>,
    ends: BTreeMap<u32, u64>,
    durable: BTreeMap<u32, u64>,
    inserts: usize,
    through: Timestamp,
}

impl Store {
    fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.set(|state| state.visible.values().copied().collect());
        numbers.sort_unstable();
        numbers
    }
}

impl State {
    fn take(&mut self, batch: &EventBatch) -> Inserted {
        let span = batch.span;
        let end = self.ends.entry(span.partition).or_insert(0);
        let mut inserted = Inserted::default();
        for (offset, event) in &batch.events {
            if *offset < *end || self.visible.insert(event.id, event.producer_seq.unwrap()).is_some() {
                inserted.duplicates += 1;
            } else {
                inserted.stored += 1;
            }
        }
        assert!(span.first <= *end, "a gap before {span:?}");
        *end = span.end.max(*end);
        self.spans.push((span.partition, span.first, span.end));
        if !self.lazy {
            self.durable = self.ends.clone();
        }
        inserted
    }
}

impl EventWriter for Store {
    async fn insert(&self, batch: Arc<EventBatch>) -> Result<Inserted, InsertError> {
        tokio::task::yield_now().await;
        self.set(|state| {
            state.inserts += 1;
            let unavailable = || InsertError::Unavailable("the disk is full".into());
            match state.answers.pop_front() {
                Some(Answer::Unavailable { taken }) => {
                    if taken {
                        state.take(&batch);
                    }
                    return Err(unavailable());
                }
                Some(Answer::Closed) => return Err(InsertError::Closed),
                None => {}
            }
            let unfit = batch
                .events
                .iter()
                .find(|(_, event)| state.unfit.contains(&event.producer_seq.unwrap()));
            match unfit {
                Some((offset, _)) => {
                    let offset = if state.vague { u64::MAX } else { *offset };
                    Err(InsertError::Unfit {
                        offset,
                        source: "no such year".into(),
                    })
                }
                None => Ok(state.take(&batch)),
            }
        })
    }

    fn durable_end(&self, partition: u32) -> u64 {
        self.set(|state| state.durable.get(&partition).copied().unwrap_or(0))
    }

    async fn flush(&self) -> Result<(), InsertError> {
        self.set(|state| state.durable = state.ends.clone());
        Ok(())
    }

    fn advance(&self, through: Timestamp) {
        self.set(|state| state.through = state.through.max(through));
    }
}

/// A processor at work, with everything around it in the hands of a test.
struct Bench {
    running: Running,
    appender: MemoryAppender,
    store: Store,
    letters: Arc<MemoryDeadLetters>,
    status: ProcessorStatus,
}

fn start_with(store: &Store, letters: &Arc<MemoryDeadLetters>, appender: &MemoryAppender, tail: MemoryTail) -> Bench {
    start_keeping(store, letters, appender, tail, None)
}

fn start_keeping(
    store: &Store,
    letters: &Arc<MemoryDeadLetters>,
    appender: &MemoryAppender,
    tail: MemoryTail,
    ledger_file: Option<std::path::PathBuf>,
) -> Bench {
    let args = Args {
        retry_pause_max: Duration::from_millis(10),
        batch_events_max: 50,
        ..Args::default()
    };
    let config = Config {
        ledger_file,
        ..Config::try_from(args).unwrap()
    };
    start_as(store, letters, appender, tail, config)
}

fn start_as(
    store: &Store,
    letters: &Arc<MemoryDeadLetters>,
    appender: &MemoryAppender,
    tail: MemoryTail,
    config: Config,
) -> Bench {
    let running = Running::new(&RunningOptions {
        shutdown_timeout: Duration::from_secs(10),
        ..RunningOptions::default()
    });
    running.set_started();
    let status = serve(config, tail, store.clone(), Arc::clone(letters), &running.tasks());
    Bench {
        running,
        appender: appender.clone(),
        store: store.clone(),
        letters: Arc::clone(letters),
        status,
    }
}

fn start(store: &Store) -> Bench {
    let (appender, tail) = memory::partitioned(1 << 24, 3);
    start_with(store, &Arc::new(MemoryDeadLetters::new(1 << 20)), &appender, tail)
}

impl Bench {
    async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut turns = tokio::time::interval(Duration::from_millis(1));
        while !check(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: last saw {:?} and {:?}",
                self.status.snapshot(),
                self.store
            );
            turns.tick().await;
        }
    }

    async fn append(&self, numbers: std::ops::Range<u64>) {
        self.appender.append(&events(numbers)).await.unwrap();
    }

    async fn stop(self) -> (MemoryAppender, Store) {
        let report = timeout(DEADLINE, self.running.stop()).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        (self.appender, self.store)
    }

    fn not_ready(&self) -> Option<String> {
        let conditions = self.running.tasks().ready_report().conditions;
        conditions
            .into_iter()
            .find(|condition| !condition.ready)
            .and_then(|condition| condition.reason)
            .map(Into::into)
    }
}

fn up_to(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[tokio::test]
async fn events_are_stored_committed_and_counted() {
    let bench = start(&Store::default());
    for first in (0..200).step_by(20) {
        bench.append(first..first + 20).await;
    }
    bench.until("stored", |bench| bench.status.snapshot().stored == 200).await;
    bench
        .until("committed", |bench| bench.appender.tail().lag().events == 0)
        .await;
    let snapshot = bench.status.snapshot();
    assert_eq!((snapshot.duplicates, snapshot.missing, snapshot.dead_letters), (0, 0, 0));
    assert!(snapshot.freshness_p99_ms.is_some() && snapshot.events_per_second > 0.0);
    assert_eq!(bench.not_ready(), None);
    let text = bench.running.tasks().metrics().encode().unwrap();
    assert!(text.contains("sentinel_processor_events_stored_total 200\n"), "{text}");
    let (_, store) = bench.stop().await;
    assert_eq!(store.numbers(), up_to(200));
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_again_and_nothing_is_lost() {
    let store = Store::default();
    store.set(|state| state.answers = (0..7).map(|turn| Answer::Unavailable { taken: turn % 2 == 0 }).collect());
    let bench = start(&store);
    bench.append(0..120).await;
    bench
        .until("not ready", |bench| {
            bench.not_ready().is_some_and(|reason| reason.contains("store refuses"))
                || bench.store.set(|state| state.inserts > 7)
        })
        .await;
    bench.until("stored", |bench| bench.store.numbers().len() == 120).await;
    bench.until("ready again", |bench| bench.not_ready().is_none()).await;
    bench.append(120..130).await;
    let (_, store) = bench.stop().await;
    assert_eq!(store.numbers(), up_to(130));
}

#[tokio::test]
async fn nothing_is_committed_before_the_store_holds_it_for_good() {
    let store = Store::default();
    store.set(|state| state.lazy = true);
    let bench = start(&store);
    bench.append(0..30).await;
    bench.until("stored", |bench| bench.status.snapshot().stored == 30).await;
    bench
        .until("idle", |bench| bench.store.set(|state| state.through > Timestamp::default()))
        .await;
    assert_eq!(bench.appender.tail().lag().events, 30, "visible is not durable");
    store.set(|state| state.durable = state.ends.clone());
    bench
        .until("committed", |bench| bench.appender.tail().lag().events == 0)
        .await;
    bench.append(30..40).await;
    let (appender, store) = bench.stop().await;
    assert!(store.set(|state| state.durable == state.ends), "flushed at the end");
    assert_eq!(appender.tail().lag().events, 0, "and committed");
}

#[tokio::test]
async fn what_is_no_event_is_set_aside_and_its_neighbours_are_stored() {
    let bench = start(&Store::default());
    let seconds = Timestamp::from_seconds(1_800_000_000);
    bench.append(0..2).await;
    bench.appender.append_line(b"{\"v\":9}", seconds).unwrap();
    bench.append(2..4).await;
    bench.appender.append_line(b"junk", seconds).unwrap();
    bench
        .until("committed", |bench| {
            bench.appender.tail().lag().events == 0 && bench.store.numbers().len() == 4
        })
        .await;
    let kept = bench.letters.list(0, 10).await.unwrap();
    assert_eq!(
        kept.iter().map(|letter| letter.record.as_str()).collect::<Vec<_>>(),
        ["{\"v\":9}", "junk"]
    );
    assert_eq!(bench.status.snapshot().dead_letters, 2);
    bench.stop().await;
}

#[tokio::test]
async fn an_event_the_store_refuses_is_set_aside_alone() {
    for vague in [false, true] {
        let store = Store::default();
        store.set(|state| (state.unfit, state.vague) = (vec![3, 17, 18], vague));
        let bench = start(&store);
        bench.append(0..40).await;
        bench
            .until("committed", |bench| {
                bench.appender.tail().lag().events == 0 && bench.store.numbers().len() == 37
            })
            .await;
        let kept = bench.letters.list(0, 10).await.unwrap();
        let numbers: Vec<u64> = kept
            .iter()
            .map(|letter| {
                serde_json::from_str::<domain::Event>(&letter.record)
                    .unwrap()
                    .producer_seq
                    .unwrap()
            })
            .collect();
        assert_eq!(numbers, [3, 17, 18], "vague: {vague}");
        assert!(kept[0].reason.contains("no such year"), "{}", kept[0].reason);
        bench.stop().await;
    }
}

#[tokio::test]
async fn full_dead_letters_hold_the_queue_and_say_so() {
    let (appender, tail) = memory::queue(1 << 20);
    let letters = Arc::new(MemoryDeadLetters::new(200));
    let bench = start_with(&Store::default(), &letters, &appender, tail);
    appender.append_line(&[b'x'; 300], Timestamp::from_seconds(1)).unwrap();
    bench.append(0..5).await;
    bench
        .until("not ready", |bench| {
            bench.not_ready().is_some_and(|reason| reason.contains("dead letters"))
        })
        .await;
    assert_eq!(bench.store.numbers(), [0_u64; 0]);
    let (appender, _) = bench.stop().await;
    assert_eq!(appender.tail().lag().events, 6, "all of it is still in the queue");
}

/// A runtime of its own for each life: dropping it drops the processor at whatever await it is.
fn life<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_crash_at_any_moment_counts_every_event_once() {
    let store = Store::default();
    let (appender, _) = memory::partitioned(1 << 24, 3);
    let letters = Arc::new(MemoryDeadLetters::new(1 << 20));
    let mut sent = 0;
    for turn in 0..40_u64 {
        store.set(|state| {
            state.lazy = turn % 3 == 0;
            // What was visible but not durable dies with the process.
            state.ends = state.durable.clone();
            if turn % 4 == 1 {
                state.answers = [Answer::Unavailable { taken: true }, Answer::Unavailable { taken: false }].into();
            }
        });
        // The guard outlives the runtime, or the processor would be asked to stop instead of cut off.
        let cut_off = life(async {
            let bench = start_with(&store, &letters, &appender, appender.tail());
            for _ in 0..5 {
                bench.append(sent..sent + 13).await;
                sent += 13;
            }
            let target = store.numbers().len() + usize::try_from(turn % 7 * 9).unwrap();
            bench
                .until("some are in", |bench| {
                    bench.store.numbers().len() >= target || bench.appender.tail().lag().events == 0
                })
                .await;
            bench
        });
        drop(cut_off);
    }
    life(async {
        let bench = start_with(&store, &letters, &appender, appender.tail());
        bench
            .until("all are in", |bench| bench.store.numbers().len() as u64 == sent)
            .await;
        let (appender, store) = bench.stop().await;
        assert_eq!(store.numbers(), up_to(sent));
        assert_eq!(appender.tail().lag().events, 0);
    });
}

#[tokio::test]
async fn shutdown_stores_what_the_queue_holds() {
    let store = Store::default();
    store.set(|state| state.lazy = true);
    let bench = start(&store);
    for first in (0..3_000).step_by(100) {
        bench.append(first..first + 100).await;
    }
    let (appender, store) = bench.stop().await;
    assert_eq!(store.numbers(), up_to(3_000));
    assert_eq!(appender.tail().lag().events, 0);
}

#[tokio::test]
async fn a_queue_that_keeps_filling_does_not_keep_the_process_from_stopping() {
    let store = Store::default();
    let (appender, tail) = memory::partitioned(1 << 24, 3);
    let letters = Arc::new(MemoryDeadLetters::new(1 << 20));
    let config = Config {
        drain_time_max: Duration::ZERO,
        ..Config::try_from(Args::default()).unwrap()
    };
    let bench = start_as(&store, &letters, &appender, tail, config);
    bench.append(0..10).await;
    bench.until("stored", |bench| bench.store.numbers().len() == 10).await;
    let filling = async {
        for first in (10..).step_by(10) {
            appender.append(&events(first..first + 10)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = filling => unreachable!("it fills for ever"),
        _ = bench.stop() => {}
    }
}

#[tokio::test]
async fn a_fault_only_a_person_can_mend_stops_the_process() {
    let store = Store::default();
    store.set(|state| state.answers = [Answer::Closed].into());
    let bench = start(&store);
    bench.append(0..1).await;
    timeout(DEADLINE, bench.running.failed()).await.unwrap();
    let report = bench.running.stop().await;
    assert_eq!(report.failed[0].task, "processor");
    assert_eq!(
        format!("{:#}", report.failed[0].error),
        "inserting a batch: the store is closed"
    );
    assert_eq!(bench.appender.tail().lag().events, 1);
}

#[tokio::test]
async fn repeats_and_gaps_of_producers_are_told() {
    let bench = start(&Store::default());
    bench.append(0..10).await;
    bench.append(5..10).await;
    bench.append(15..20).await;
    bench.until("stored", |bench| bench.status.snapshot().stored == 15).await;
    let snapshot = bench.status.snapshot();
    assert_eq!((snapshot.duplicates, snapshot.repeated, snapshot.missing), (5, 5, 5));
    bench.stop().await;
}

#[tokio::test]
async fn the_store_in_memory_is_filled() {
    let (appender, tail) = memory::partitioned(1 << 24, 2);
    let running = Tasks::for_test();
    let store = sentinel_store::memory::MemoryStore::default();
    let letters = MemoryDeadLetters::new(1 << 20);
    let status = serve(
        Config::try_from(Args::default()).unwrap(),
        tail,
        store.clone(),
        letters,
        &running.tasks(),
    );
    appender.append(&[event(1), event(2), event(1)]).await.unwrap();
    let report = timeout(DEADLINE, running.stop()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let snapshot = status.snapshot();
    assert_eq!((snapshot.stored, snapshot.duplicates), (2, 1));
}

#[tokio::test]
async fn what_is_missing_and_what_came_twice_is_told_by_hour_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("completeness.json");
    let (appender, tail) = memory::partitioned(1 << 24, 1);
    let store = Store::default();
    let letters = Arc::new(MemoryDeadLetters::new(1 << 20));
    let begin = |tail| start_keeping(&store, &letters, &appender, tail, Some(file.clone()));
    let bench = begin(tail);
    bench.append(0..10).await;
    bench.append(15..20).await;
    bench.until("stored", |bench| bench.status.snapshot().stored == 15).await;
    assert_eq!(bench.status.snapshot().missing, 5);
    bench.stop().await;
    let bench = begin(appender.tail());
    bench.until("read back", |bench| bench.status.snapshot().missing == 5).await;
    bench.append(12..14).await;
    bench.append(19..20).await;
    bench.until("seen", |bench| bench.status.snapshot().repeated == 1).await;
    assert_eq!(bench.status.snapshot().missing, 3);
    let hours = bench.status.completeness();
    let sum = |of: fn(&status::HourCompleteness) -> u64| hours.iter().map(of).sum::<u64>();
    assert_eq!(
        (
            sum(|hour| hour.received),
            sum(|hour| hour.missing),
            sum(|hour| hour.duplicated)
        ),
        (18, 3, 1)
    );
    bench.stop().await;
}
