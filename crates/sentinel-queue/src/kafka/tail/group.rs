//! Membership of the group: which partitions are ours, and the thread that looks after it.
//!
//! The client library calls back on the thread that polls it. That thread does nothing else, so that a store which takes its time
//! never costs us the partitions. Messages do not come through it: each partition has a queue of its own, which the tail empties
//! when it wants more; what is not wanted stays with the library, which stops fetching at its bound.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use domain::Timestamp;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::client::{log, tell};
use super::super::position::{Committed, record_of};
use super::partition::{Jump, Partition};
use crate::BatchLimit;

pub(super) type Consumer = BaseConsumer<Context>;

/// How long the thread waits for a callback before it looks round.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How often the ends of the partitions are asked for.
const ENDS_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for one answer of the brokers.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The same for what is only asked to be shown.
const SHOWN_WAIT: Duration = Duration::from_secs(1);

/// A group that cannot go on without a person.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "partition {partition} of {topic} holds record {found} where {expected} was due: the topic was deleted or cut back; \
     choose another --kafka-group (and a store that holds nothing of the old topic) to read it from its beginning"
)]
pub(super) struct Rewound {
    topic: String,
    partition: i32,
    found: i64,
    expected: i64,
}

/// What the tail, the callbacks and the thread share.
pub(super) struct Group {
    pub(super) topic: String,
    state: Mutex<State>,
    /// Held by whoever moves the group's position, and while partitions go: a commit on its way is answered as that of a member who
    /// has the partition, or refused.
    committing: Mutex<()>,
    pub(super) arrived: Arc<Notify>,
    consumer: OnceLock<Weak<Consumer>>,
    stopping: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: BTreeMap<u32, Held>,
    /// Counts assignments, to tell a partition that went and came back.
    epochs: u64,
    /// Ends that were final when their partition was no longer ours. Should it come back, they still are.
    settled: BTreeMap<u32, u64>,
    pub(super) rewound: Option<Rewound>,
    /// The newest fault, until it is told.
    pub(super) fault: Option<KafkaError>,
    /// Records that the brokers forgot before anyone read them.
    pub(super) lost: u64,
}

/// A partition that is ours.
pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) partition: Partition,
    queue: Option<PartitionQueue<Context>>,
    /// First and last record that the brokers hold, as of a moment ago.
    pub(super) ends: (i64, i64),
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The partition is not ours, or not any more.
    Gone,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    pub(super) fn new(topic: String) -> Arc<Self> {
        Arc::new(Self {
            topic,
            state: Mutex::default(),
            committing: Mutex::default(),
            arrived: Arc::default(),
            consumer: OnceLock::new(),
            stopping: AtomicBool::new(false),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Commits a partition up to `end` (or what is committed already) with the claims as they are now. Blocks until answered.
    pub(super) fn commit(&self, number: u32, epoch: u64, end: u64) -> KafkaResult<Outcome> {
        // Held longer than the lock: whoever drops the last of them closes it, which calls back for the same lock.
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else {
            return Ok(Outcome::Gone);
        };
        let _committing = lock(&self.committing);
        let wanted = self.lock().ours(number, epoch).map(|held| held.partition.would_commit(end));
        let Some((end, metadata)) = wanted else {
            return Ok(Outcome::Gone);
        };
        let mut position = TopicPartitionList::with_capacity(1);
        let mut element = position.add_partition(&self.topic, i32::try_from(number).unwrap_or(i32::MAX));
        element.set_offset(Offset::Offset(record_of(end)))?;
        element.set_metadata(metadata);
        consumer.commit(&position, CommitMode::Sync)?;
        if let Some(held) = self.lock().ours(number, epoch) {
            held.partition.commit(end);
        }
        Ok(Outcome::Done)
    }

    /// Remembers what is final of a partition that is not ours.
    pub(super) fn settle(&self, number: u32, end: u64) {
        let mut state = self.lock();
        let settled = state.settled.entry(number).or_default();
        *settled = (*settled).max(end);
    }

    fn assigned(&self, consumer: &Consumer, committed: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        let mut from = TopicPartitionList::with_capacity(committed.count());
        let strong = self.consumer.get().and_then(Weak::upgrade);
        let mut state = self.lock();
        for element in committed.elements_for_topic(&self.topic) {
            let number = u32::try_from(element.partition()).unwrap_or(0);
            let mut position = match element.offset() {
                Offset::Offset(record) => Committed::parse(record, element.metadata()),
                _ => Committed::default(),
            };
            position.end = position.end.max(state.settled.remove(&number).unwrap_or(0));
            position.claims.retain(|claim| *claim > position.end);
            let start = match (element.offset(), record_of(position.end)) {
                (Offset::Offset(_), record) | (_, record @ 1..) => Offset::Offset(record),
                _ => Offset::Beginning,
            };
            from.add_partition_offset(&self.topic, element.partition(), start)?;
            let queue = strong
                .as_ref()
                .and_then(|consumer| consumer.split_partition_queue(&self.topic, element.partition()));
            let queue = queue.map(|mut queue| {
                let arrived = Arc::clone(&self.arrived);
                queue.set_nonempty_callback(move || arrived.notify_one());
                queue
            });
            state.epochs += 1;
            let held = Held {
                epoch: state.epochs,
                ends: (0, record_of(position.end)),
                partition: Partition::new(number, position),
                queue,
            };
            tracing::info!(
                partition = number,
                position = held.partition.committed(),
                "partition assigned"
            );
            state.held.insert(number, held);
        }
        drop(state);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&from)?,
            _ => consumer.assign(&from)?,
        }
        self.arrived.notify_one();
        Ok(from)
    }

    fn revoked(&self, consumer: &Consumer, gone: &TopicPartitionList) -> KafkaResult<()> {
        let _committing = lock(&self.committing);
        let dropped: Vec<Option<Held>> = {
            let mut state = self.lock();
            let numbers = gone.elements_for_topic(&self.topic).into_iter();
            numbers
                .map(|element| state.held.remove(&u32::try_from(element.partition()).unwrap_or(0)))
                .collect()
        };
        tracing::info!(
            partitions = dropped.len(),
            lost = consumer.assignment_lost(),
            "partitions revoked"
        );
        drop(dropped);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(gone),
            _ => consumer.unassign(),
        }
    }

    /// What the group has committed. Without it nothing can be read, so we ask until we know, or until the partitions are lost.
    fn committed(&self, consumer: &Consumer, partitions: &TopicPartitionList) -> Option<TopicPartitionList> {
        loop {
            if self.stopping.load(Ordering::Relaxed) || consumer.assignment_lost() {
                return None;
            }
            let answer = consumer.committed_offsets(partitions.clone(), ANSWER_WAIT);
            let answer = answer.and_then(|answer| {
                let faults = answer.elements().into_iter().map(|element| element.error());
                faults.collect::<KafkaResult<Vec<()>>>().map(|_| answer.clone())
            });
            match answer {
                Ok(committed) => return Some(committed),
                Err(error) => tell(&error, "asking for the position of the group; it is repeated"),
            }
        }
    }
}

impl State {
    /// The partition, if it is ours since `epoch`.
    pub(super) fn ours(&mut self, number: u32, epoch: u64) -> Option<&mut Held> {
        self.held.get_mut(&number).filter(|held| held.epoch == epoch)
    }

    /// Moves what the library holds of a partition into it, until it has enough for a lease of `limit`.
    pub(super) fn fill(&mut self, number: u32, limit: BatchLimit) {
        let Some(held) = self.held.get_mut(&number) else { return };
        let Some(queue) = &held.queue else { return };
        let mut taken = Ok(());
        while taken.is_ok() && held.partition.wants(limit) {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => taken = held.partition.take_in(&message, &mut self.lost),
                Some(Err(error)) => {
                    self.fault = Some(error);
                    break;
                }
            }
        }
        self.rewound = taken.err().or(self.rewound.take());
    }
}

impl State {
    fn slipped(&mut self, message: &BorrowedMessage<'_>) {
        let number = u32::try_from(message.partition()).unwrap_or(0);
        if let Some(held) = self.held.get_mut(&number) {
            let taken = held.partition.take_in(message, &mut self.lost);
            self.rewound = taken.err().or(self.rewound.take());
        }
    }
}

impl Partition {
    fn take_in(&mut self, message: &BorrowedMessage<'_>, lost: &mut u64) -> Result<(), Rewound> {
        let (found, expected) = (message.offset(), self.next_record());
        let appended = message.timestamp().to_millis().map_or(Timestamp::MIN, Timestamp::from_millis);
        match self.push(found, appended, message.payload().unwrap_or_default(), Instant::now()) {
            Jump::None => Ok(()),
            // The first record of a topic whose beginning is forgotten is no loss to a group that begins.
            Jump::Lost(_) if self.committed() == 0 => Ok(()),
            Jump::Lost(records) => {
                *lost += records;
                let partition = message.partition();
                tracing::error!(
                    partition,
                    records,
                    from = expected,
                    "the brokers forgot records before they were read"
                );
                Ok(())
            }
            Jump::Back => Err(Rewound {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                found,
                expected,
            }),
        }
    }
}

/// What the client library calls back.
#[derive(Clone)]
pub(super) struct Context(pub(super) Arc<Group>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &Consumer, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let result = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => match self.0.committed(consumer, partitions) {
                Some(committed) => self.0.assigned(consumer, &committed).map(drop),
                None => Ok(()),
            },
            _ => self.0.revoked(consumer, partitions),
        };
        if let Err(error) = result {
            tell(&error, "taking over or giving back partitions");
            self.0.lock().fault = Some(error);
            self.0.arrived.notify_one();
        }
    }
}

/// Looks after the membership until told to stop, then leaves the group.
pub(super) fn look_after(group: &Group, consumer: Arc<Consumer>) {
    let mut asked: Option<Instant> = None;
    while !group.stopping.load(Ordering::Relaxed) {
        match consumer.poll(POLL_WAIT) {
            None => {}
            // A queue is split off before its partition is fetched, so this is for a library that does it otherwise.
            Some(Ok(message)) => group.lock().slipped(&message),
            Some(Err(error)) => {
                group.lock().fault = Some(error);
                group.arrived.notify_one();
            }
        }
        if asked.is_none_or(|asked| asked.elapsed() >= ENDS_PAUSE) && ask_ends(group, &consumer) {
            asked = Some(Instant::now());
        }
    }
    // The queues hold the consumer, and so does a commit on its way; the last holder closes it, which leaves the group.
    let held = std::mem::take(&mut group.lock().held);
    drop(held);
    drop(consumer);
}

/// Learns which records the brokers hold. False when there is nothing to ask about.
fn ask_ends(group: &Group, consumer: &Consumer) -> bool {
    let numbers: Vec<u32> = group.lock().held.keys().copied().collect();
    if numbers.is_empty() {
        return false;
    }
    let ask = |which: Offset| {
        let mut asked = TopicPartitionList::with_capacity(numbers.len());
        for number in &numbers {
            let number = i32::try_from(*number).unwrap_or(i32::MAX);
            asked.add_partition_offset(&group.topic, number, which)?;
        }
        consumer.offsets_for_times(asked, SHOWN_WAIT)
    };
    let answers = ask(Offset::Beginning).and_then(|first| Ok((first, ask(Offset::End)?)));
    let mut state = group.lock();
    let (first, last) = match answers {
        Ok(answers) => answers,
        Err(error) => {
            // Asked again; but brokers that do not answer this hand out nothing either, and nothing else says so.
            state.fault = Some(error);
            drop(state);
            group.arrived.notify_one();
            return true;
        }
    };
    for (first, last) in first.elements().iter().zip(last.elements()) {
        if let (Offset::Offset(low), Offset::Offset(end)) = (first.offset(), last.offset())
            && let Some(held) = state.held.get_mut(&u32::try_from(last.partition()).unwrap_or(0))
        {
            held.ends = (low, end);
        }
    }
    true
}

impl Group {
    pub(super) fn set_consumer(&self, consumer: &Arc<Consumer>) {
        // Set once, right after the consumer is made.
        let _first = self.consumer.set(Arc::downgrade(consumer));
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
