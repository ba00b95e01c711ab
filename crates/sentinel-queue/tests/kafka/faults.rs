//! Faults under load: whatever dies, everything acknowledged is handed out, in order, and no span is ever cut two ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_service::Cluster;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sentinel_queue::kafka::{KafkaAppender, KafkaTail};
use sentinel_queue::{BatchLimit, EventAppender as _, EventTail as _, Lease, Record, Remedy};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Names, events_of, soon};

const SENDERS: u64 = 4;
const LIMIT: BatchLimit = BatchLimit {
    events: 50,
    bytes: 1 << 20,
};

/// Senders that send again what was not acknowledged.
struct Load {
    stop: watch::Sender<bool>,
    senders: JoinSet<u64>,
    acknowledged: watch::Receiver<u64>,
    failed: watch::Receiver<u64>,
}

/// First number of a sender: each has a range, and a server, of its own.
fn first_of(sender: u64) -> u64 {
    sender << 32
}

impl Load {
    fn start(appender: &KafkaAppender) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (acknowledge, acknowledged) = watch::channel(0);
        let (fail, failed) = watch::channel(0);
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (appender, stopped) = (appender.clone(), stopped.clone());
            let (acknowledge, fail) = (acknowledge.clone(), fail.clone());
            senders.spawn(async move {
                let mut random = SmallRng::seed_from_u64(sender);
                let mut sent = 0;
                while !*stopped.borrow() {
                    let count = random.random_range(1..20);
                    let from = first_of(sender) + sent;
                    let mut events = events_of(from..from + count, 1);
                    for event in &mut events {
                        event.payload.server = Some(format!("server-{sender}"));
                    }
                    while let Err(error) = appender.append(&events).await {
                        assert_eq!(error.remedy(), Remedy::Retry, "{error:?}");
                        fail.send_modify(|failed| *failed += 1);
                        tokio::task::yield_now().await;
                    }
                    sent += count;
                    acknowledge.send_modify(|all| *all += count);
                }
                first_of(sender) + sent
            });
        }
        Self {
            stop,
            senders,
            acknowledged,
            failed,
        }
    }

    /// Waits until so many more are acknowledged.
    async fn goes_on(&mut self, by: u64) {
        let target = *self.acknowledged.borrow() + by;
        soon("acknowledgements", self.acknowledged.wait_for(|all| *all >= target))
            .await
            .unwrap();
    }

    async fn is_refused(&mut self) {
        let before = *self.failed.borrow();
        soon("a refusal", self.failed.wait_for(|failed| *failed > before))
            .await
            .unwrap();
    }

    /// Ends the senders, and tells which numbers are acknowledged.
    async fn stop(mut self) -> BTreeSet<u64> {
        self.stop.send_replace(true);
        let mut acknowledged = BTreeSet::new();
        while let Some(end) = soon("the senders", self.senders.join_next()).await {
            let end = end.unwrap();
            acknowledged.extend((end >> 32) << 32..end);
        }
        acknowledged
    }
}

/// A store that takes a span once. Shared by all tails.
#[derive(Debug, Default)]
struct Store {
    /// By partition: spans, and the numbers each held.
    spans: BTreeMap<u32, BTreeMap<u64, (u64, Vec<u64>)>>,
}

impl Store {
    fn insert(&mut self, lease: &Lease) {
        let number = |record: &Record| match record {
            Record::Event { event, .. } => event.producer_seq.unwrap(),
            Record::Undecodable { reason, .. } => panic!("{reason}"),
        };
        let numbers: Vec<u64> = lease.records.iter().map(number).collect();
        let taken = self.spans.entry(lease.span.partition).or_default();
        let held = taken
            .entry(lease.span.first)
            .or_insert_with(|| (lease.span.end, numbers.clone()));
        assert_eq!(
            *held,
            (lease.span.end, numbers),
            "{:?} was handed out otherwise before",
            lease.span
        );
    }

    fn count(&self) -> BTreeSet<u64> {
        let spans = self.spans.values().flat_map(BTreeMap::values);
        spans.flat_map(|(_, numbers)| numbers.iter().copied()).collect()
    }

    /// Spans join without gap or overlap, and each sender's events came in order.
    fn check(&self) {
        for (partition, spans) in &self.spans {
            let mut at = 0;
            let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
            for (first, (end, numbers)) in spans {
                assert_eq!(*first, at, "partition {partition}");
                at = *end;
                for number in numbers {
                    let newest = newest.entry(number >> 32).or_insert(first_of(number >> 32));
                    // A batch that was sent again repeats some; nothing is passed over.
                    assert!(*number <= *newest, "{number:#x} came before {newest:#x}");
                    *newest = (*newest).max(number + 1);
                }
            }
        }
    }
}

struct Reader {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Reader {
    fn start(mut tail: KafkaTail, store: &Arc<Mutex<Store>>, seed: u64) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let store = Arc::clone(store);
        #[expect(clippy::disallowed_methods, reason = "a test owns its task")]
        let task = tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed);
            loop {
                let lease = tokio::select! {
                    lease = tail.next(LIMIT) => lease,
                    _ = stopped.wait_for(|stop| *stop) => return,
                };
                let lease = match lease {
                    Ok(lease) => lease,
                    Err(error) => {
                        assert_eq!(error.remedy(), Remedy::Retry, "{error:?}");
                        continue;
                    }
                };
                store.lock().unwrap().insert(&lease);
                // Some are left for whoever comes next to see again.
                if random.random_bool(0.7)
                    && let Err(error) = tail.commit(lease.span.partition, lease.span.end).await
                {
                    assert_eq!(error.remedy(), Remedy::Retry, "{error:?}");
                }
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        soon("a reader", self.task).await.unwrap();
    }
}

async fn all_is_read(store: &Arc<Mutex<Store>>, acknowledged: &BTreeSet<u64>) {
    soon("every acknowledged event", async {
        loop {
            let read = store.lock().unwrap().count();
            if acknowledged.is_subset(&read) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    store.lock().unwrap().check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_or_hangs_loses_nothing_acknowledged() {
    let cluster = Cluster::start(1);
    let names = Names::new(cluster.bootstrap());
    let appender = names
        .appender(&["--kafka-partitions=3", "--kafka-append-timeout-ms=1500"])
        .await;
    let store = Arc::default();
    let reader = Reader::start(names.tail(&[]).await, &store, 1);
    let mut load = Load::start(&appender);
    let mut random = SmallRng::seed_from_u64(7);
    for hang in [false, true, false] {
        load.goes_on(random.random_range(100..500)).await;
        if hang {
            cluster.pause(1);
            load.is_refused().await;
            cluster.resume(1);
        } else {
            cluster.kill(1);
            load.is_refused().await;
            tokio::task::block_in_place(|| cluster.restart(1));
        }
    }
    load.goes_on(200).await;
    let acknowledged = load.stop().await;
    all_is_read(&store, &acknowledged).await;
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_brokers_may_die_without_a_sender_noticing() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3));
    let names = Names::new(cluster.bootstrap());
    let replicated = ["--kafka-partitions=6", "--kafka-replicas=3"];
    let appender = names.appender(&replicated).await;
    let store = Arc::default();
    let reader = Reader::start(names.tail(&[]).await, &store, 1);
    let mut load = Load::start(&appender);
    load.goes_on(500).await;
    cluster.kill(2);
    load.goes_on(1_000).await;
    assert_eq!(*load.failed.borrow(), 0, "an acknowledgement comes late, but it comes");
    let acknowledged = load.stop().await;
    all_is_read(&store, &acknowledged).await;
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_that_come_and_go_hand_out_everything_and_no_span_two_ways() {
    let names = Names::new(Cluster::shared().bootstrap());
    let appender = names.appender(&["--kafka-partitions=4"]).await;
    let store: Arc<Mutex<Store>> = Arc::default();
    let mut load = Load::start(&appender);
    let mut random = SmallRng::seed_from_u64(11);
    let mut readers = vec![Reader::start(names.tail(&[]).await, &store, 0)];
    for turn in 1..=8 {
        load.goes_on(random.random_range(50..300)).await;
        if readers.len() > 1 && random.random_bool(0.5) {
            readers.swap_remove(random.random_range(0..readers.len())).stop().await;
        } else {
            readers.push(Reader::start(names.tail(&[]).await, &store, turn));
        }
    }
    let acknowledged = load.stop().await;
    all_is_read(&store, &acknowledged).await;
    for reader in readers {
        reader.stop().await;
    }
}
