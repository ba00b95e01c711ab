//! Counts stay exact whatever happens on the way: answers that are lost, an engine that is killed, writers that begin anew with
//! other batches, two writers at once, senders that repeat themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{Event, EventBatch, Span, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sentinel_store::clickhouse::{ClickHouseStore, Config, apply};
use sentinel_store::memory::MemoryStore;
use sentinel_store::query::{Filter, Scope, SqlQuery, UsageQuery};
use sentinel_store::{EventReader as _, EventWriter, UsageReader, contract};

use crate::engine::{Engine, available, open, runs};
use crate::proxy::Proxy;

/// What a queue holds: per partition, events in order.
type Log = BTreeMap<u32, Vec<Event>>;

/// Attempts at one run; each makes progress or is a fault of the test's making.
const ATTEMPTS_MAX: u32 = 400;

/// Events of a seed, some of which come a second time, later in their partition or in the other one.
fn log(seed: u64) -> Log {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut log = Log::new();
    for batch in contract::batches(seed, 40) {
        let events = log.entry(batch.span.partition).or_default();
        for (_, event) in batch.events {
            if random.random_range(0..100) < 3 {
                events.push(event.clone());
            }
            events.push(event);
        }
    }
    let repeated: Vec<Event> = log
        .values()
        .flatten()
        .filter(|_| random.random_range(0..100) < 2)
        .cloned()
        .collect();
    log.entry(0).or_default().extend(repeated);
    log
}

/// `length` events of a partition from `first`, or as many as there are.
fn batch(log: &Log, partition: u32, first: u64, length: u64) -> EventBatch {
    let all = &log[&partition];
    let end = (first + length).min(all.len() as u64);
    let numbered = all.iter().enumerate().map(|(offset, event)| (offset as u64, event.clone()));
    EventBatch {
        span: Span { partition, first, end },
        events: numbered.filter(|(offset, _)| (first..end).contains(offset)).collect(),
        complete_through: Timestamp::from_seconds(1_793_491_200 + i64::try_from(end).unwrap_or_default()),
    }
}

async fn reference(log: &Log) -> MemoryStore {
    let store = MemoryStore::new();
    for (partition, events) in log {
        let whole = batch(log, *partition, 0, events.len() as u64);
        store.insert(Arc::new(whole)).await.expect("inserting into memory");
    }
    store
}

/// A processor that reads the log and inserts it, and now and then forgets everything, as a process that is killed does.
struct Processor {
    config: Config,
    store: Option<ClickHouseStore>,
    next: BTreeMap<u32, u64>,
    random: SmallRng,
}

impl Processor {
    fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            store: None,
            next: BTreeMap::new(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Inserts a little; `false` once everything is in.
    async fn step(&mut self, log: &Log) -> bool {
        if self.store.is_none() || self.random.random_range(0..100) < 15 {
            self.store = ClickHouseStore::open(self.config.clone()).await.ok();
            let Some(store) = &self.store else { return true };
            self.next = log
                .keys()
                .map(|partition| (*partition, store.durable_end(*partition)))
                .collect();
        }
        let Some(store) = &self.store else { return true };
        let open: Vec<u32> = log
            .iter()
            .filter(|(partition, events)| self.next[*partition] < events.len() as u64)
            .map(|(partition, _)| *partition)
            .collect();
        if open.is_empty() {
            let durable = log
                .iter()
                .all(|(partition, events)| store.durable_end(*partition) == events.len() as u64);
            if !durable {
                self.store = None;
            }
            return !durable;
        }
        let partition = open[self.random.random_range(0..open.len())];
        let batch = Arc::new(batch(log, partition, self.next[&partition], self.random.random_range(10..90)));
        let end = batch.span.end;
        // Whoever gives up waiting leaves an insert behind that may land later.
        let patience = if self.random.random_range(0..100) < 20 {
            Duration::from_millis(self.random.random_range(1..300))
        } else {
            Duration::from_mins(2)
        };
        if let Ok(Ok(_)) = tokio::time::timeout(patience, store.insert(Arc::clone(&batch))).await {
            self.next.insert(partition, end);
        }
        true
    }
}

async fn number(store: &ClickHouseStore, sql: &str) -> u64 {
    let query = SqlQuery {
        scope: Scope::All,
        sql: sql.to_owned(),
        time_max: Duration::from_mins(1),
        rows_max: 1,
        memory_bytes_max: 1 << 30,
    };
    let answer = store.sql(query).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    answer.rows[0][0]
        .as_u64()
        .unwrap_or_else(|| panic!("{sql}: {:?}", answer.rows))
}

/// Events and every rollup say what the log says.
async fn exact(store: &ClickHouseStore, log: &Log, what: &str) {
    let reference = reference(log).await;
    let expected = reference.storage().await.unwrap().events;
    assert_eq!(number(store, "SELECT count() FROM events").await, expected, "events, {what}");
    assert_eq!(
        number(store, "SELECT uniqExact(id) FROM events").await,
        expected,
        "ids, {what}"
    );
    // Not the minutes: they are kept for a week, and these events are older.
    for rollup in ["calls_hourly", "calls_daily", "servers_hourly", "servers_daily"] {
        let sum = number(store, &format!("SELECT sum(events) FROM {rollup}")).await;
        assert_eq!(sum, expected, "{rollup}, {what}");
    }
    let query = || UsageQuery {
        filter: Filter {
            since: Some(Timestamp::from_seconds(1_793_491_200)),
            until: Some(Timestamp::from_seconds(1_793_491_200 + 5 * 86_400)),
            ..Filter::all(Scope::All)
        },
        limit: 100,
        step: Duration::from_hours(24),
    };
    let (ours, theirs) = (store.usage(query()).await.unwrap(), reference.usage(query()).await.unwrap());
    assert_eq!(
        (ours.totals, ours.servers, ours.series),
        (theirs.totals, theirs.servers, theirs.series),
        "{what}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_and_forgetful_writers_change_no_count() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    for seed in 0..runs(2) {
        let direct = engine.config();
        apply(&direct).await.unwrap();
        let proxy = Proxy::start(&direct.shards[0], seed, 5).await;
        let through = Config {
            shards: vec![proxy.url.clone()],
            ..direct.clone()
        };
        let log = log(seed);
        let mut processor = Processor::new(through, seed);
        let mut attempts = 0;
        while processor.step(&log).await {
            attempts += 1;
            assert!(attempts < ATTEMPTS_MAX, "seed {seed}: not done, {:?}", processor.next);
        }
        let lost = proxy.lost.load(Ordering::Relaxed);
        exact(
            &open(direct).await,
            &log,
            &format!("seed {seed}, {lost} answers lost in {attempts} attempts"),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_engine_amid_inserts_changes_no_count() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    if !engine.is_ours() {
        eprintln!("skipped: the engine is not ours to kill");
        return;
    }
    for seed in 100..100 + runs(1) {
        let config = engine.config();
        apply(&config).await.unwrap();
        let log = log(seed);
        let mut processor = Processor::new(config.clone(), seed);
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut attempts, mut kills) = (0, 0);
        loop {
            let moment = Duration::from_millis(random.random_range(0..400));
            let killed = kills < 4 && random.random_range(0..100) < 50;
            let done = if killed {
                // The engine dies while the insert is under way, wherever it then is.
                let cut = tokio::time::timeout(moment, processor.step(&log)).await;
                engine.restart();
                kills += 1;
                cut.is_ok_and(|more| !more)
            } else {
                !processor.step(&log).await
            };
            attempts += 1;
            assert!(attempts < ATTEMPTS_MAX, "seed {seed}: not done, {:?}", processor.next);
            if done {
                break;
            }
        }
        exact(
            &open(config).await,
            &log,
            &format!("seed {seed}, {kills} kills in {attempts} attempts"),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_one_partition_store_each_event_once() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let config = engine.config();
    apply(&config).await.unwrap();
    let log = log(7);
    // As when a paused process does not know that another took over.
    let (mut one, mut two) = (Processor::new(config.clone(), 1), Processor::new(config.clone(), 2));
    let mut attempts = 0;
    loop {
        let (first, second) = tokio::join!(one.step(&log), two.step(&log));
        attempts += 1;
        assert!(attempts < ATTEMPTS_MAX, "not done: {:?} {:?}", one.next, two.next);
        if !first && !second {
            break;
        }
    }
    exact(&open(config).await, &log, "two writers").await;
}
