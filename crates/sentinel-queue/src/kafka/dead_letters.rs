//! Dead letters in a compacted topic of one partition, which every process that cares reads as a whole and follows.
//!
//! ```text
//! key     partition/offset of the record that was set aside
//! value   {"set_aside_at":…,"partition":…,"offset":…,"reason":…,"record":…}; none: discarded
//! ```
//!
//! A letter's id is one more than its offset in that topic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use domain::Timestamp;
use domain::operations::DeadLetter;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use super::args::ConnectionConfig;
use super::client::{ConnectError, Telling, io_error, settings, tell};
use super::topic::{Wanted, ensure};
use crate::dead_letters::{BoxFuture, DeadLetterError, DeadLetters, Kept, NewDeadLetter};

const POLL_WAIT: Duration = Duration::from_millis(100);
/// Longest wait for the brokers to acknowledge, and for what they acknowledged to come back.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Brokers take a mebibyte by default.
const VALUE_BYTES_MAX: usize = 900_000;
/// What is kept of a record that makes a value larger than that.
const RECORD_BYTES_KEPT: usize = 100_000;
const CUT_SHORT: &str = "; only its beginning is kept here, the whole is in the events topic at this place";

/// Dead letters on the brokers. Clones are the same.
#[derive(Clone)]
pub struct KafkaDeadLetters(Arc<Inner>);

struct Inner {
    topic: String,
    bytes_max: u64,
    producer: FutureProducer<Telling>,
    view: Arc<View>,
    /// The next offset that the view has not seen.
    seen: watch::Receiver<i64>,
    follower: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct View {
    kept: Mutex<Kept>,
    stopping: AtomicBool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Value {
    set_aside_at: Timestamp,
    partition: u32,
    offset: u64,
    reason: String,
    record: String,
}

impl std::fmt::Debug for KafkaDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaDeadLetters")
            .field("topic", &self.0.topic)
            .finish_non_exhaustive()
    }
}

impl View {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, at: i64, key: &str, value: Option<&[u8]>) {
        let place = key.split_once('/');
        let place = place.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
        let Some((partition, offset)) = place else {
            tracing::warn!(at, "a record among the dead letters is none of ours; it is passed over");
            return;
        };
        let mut kept = self.lock();
        // The newest word on a place is the one that counts.
        kept.forget_place(partition, offset);
        match value.map(serde_json::from_slice::<Value>) {
            None => {}
            Some(Ok(value)) => kept.keep(vec![DeadLetter {
                id: id_of(at),
                set_aside_at: value.set_aside_at,
                partition,
                offset,
                reason: value.reason,
                record: value.record,
            }]),
            Some(Err(error)) => tracing::warn!(at, %error, "a dead letter cannot be read; it is passed over"),
        }
    }
}

fn id_of(at: i64) -> u64 {
    u64::try_from(at).unwrap_or(0) + 1
}

impl KafkaDeadLetters {
    /// Reaches the brokers, makes the topic where it is missing, and reads what it holds: at most `bytes_max` bytes are taken.
    pub async fn connect(config: &ConnectionConfig, bytes_max: u64) -> Result<Self, ConnectError> {
        ensure(config, &Wanted::dead_letters(config)).await?;
        let fault = |source| ConnectError::Client {
            brokers: config.brokers.clone(),
            source,
        };
        let producer = settings(config)?
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", ANSWER_WAIT.as_millis().to_string())
            .set("linger.ms", "0")
            .create_with_context(Telling)
            .map_err(fault)?;
        let consumer: BaseConsumer<Telling> = settings(config)?
            // Never joined and never committed to: each process reads all of it.
            .set("group.id", format!("{}-readers", config.dlq_topic))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .create_with_context(Telling)
            .map_err(fault)?;
        let mut all = TopicPartitionList::with_capacity(1);
        all.add_partition_offset(&config.dlq_topic, 0, Offset::Beginning)
            .map_err(fault)?;
        consumer.assign(&all).map_err(fault)?;
        let view = Arc::new(View::default());
        let (saw, mut seen) = watch::channel(-1);
        let shared = Arc::clone(&view);
        let follower = thread::Builder::new()
            .name("kafka-dlq".to_owned())
            .spawn(move || follow(&consumer, &shared, &saw))
            .map_err(ConnectError::Thread)?;
        let read = timeout(config.start_timeout, seen.wait_for(|next| *next >= 0)).await.is_ok();
        let letters = Self(Arc::new(Inner {
            topic: config.dlq_topic.clone(),
            bytes_max,
            producer,
            view,
            seen,
            follower: Some(follower),
        }));
        if read {
            return Ok(letters);
        }
        Err(ConnectError::Unreachable {
            brokers: config.brokers.clone(),
            source: KafkaError::ClientCreation(format!("{} was not read in time", config.dlq_topic)),
        })
    }

    fn fault(&self, step: &'static str, source: std::io::Error) -> DeadLetterError {
        DeadLetterError::Io {
            step,
            path: self.0.topic.clone().into(),
            source,
        }
    }

    /// Sends records in order, and waits until our own view has them.
    async fn send(&self, records: Vec<(String, Option<Vec<u8>>)>) -> Result<(), DeadLetterError> {
        let fault = |error: KafkaError| self.fault("writing to", io_error(error));
        let mut sent = Vec::with_capacity(records.len());
        for (key, value) in &records {
            let record = FutureRecord::<str, [u8]>::to(&self.0.topic).partition(0).key(key);
            let record = match value {
                Some(value) => record.payload(value),
                None => record,
            };
            sent.push(self.0.producer.send_result(record).map_err(|(error, _)| fault(error))?);
        }
        let mut last = -1;
        for delivery in sent {
            // The producer outlives its records, so there is always an answer.
            match delivery.await {
                Ok(Ok(delivered)) => last = last.max(delivered.offset),
                Ok(Err((error, _))) => return Err(fault(error)),
                Err(_) => return Err(fault(KafkaError::Canceled)),
            }
        }
        let mut seen = self.0.seen.clone();
        match timeout(ANSWER_WAIT, seen.wait_for(|next| *next > last)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.fault("reading back", std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn put_all(&self, letters: Vec<NewDeadLetter>) -> Result<(), DeadLetterError> {
        // Those that are there already, or twice in the list, fall away here; what they would take must fit.
        let new = self.0.view.lock().number(letters, self.0.bytes_max)?;
        let mut records = Vec::with_capacity(new.len());
        for letter in new {
            let key = format!("{}/{}", letter.partition, letter.offset);
            let encode = |value: &Value| serde_json::to_vec(value).map_err(|error| self.fault("encoding for", error.into()));
            let mut value = Value {
                set_aside_at: letter.set_aside_at,
                partition: letter.partition,
                offset: letter.offset,
                reason: letter.reason,
                record: letter.record,
            };
            let mut encoded = encode(&value)?;
            if encoded.len() > VALUE_BYTES_MAX {
                value.record.truncate(value.record.floor_char_boundary(RECORD_BYTES_KEPT));
                value.reason.truncate(value.reason.floor_char_boundary(RECORD_BYTES_KEPT));
                value.reason.push_str(CUT_SHORT);
                encoded = encode(&value)?;
            }
            records.push((key, Some(encoded)));
        }
        self.send(records).await
    }

    async fn discard_all(&self, ids: Vec<u64>) -> Result<u64, DeadLetterError> {
        let mut keys = std::collections::BTreeSet::new();
        {
            let kept = self.0.view.lock();
            for letter in ids.iter().filter_map(|id| kept.letters.get(id)) {
                keys.insert(format!("{}/{}", letter.partition, letter.offset));
            }
        }
        let count = keys.len() as u64;
        self.send(keys.into_iter().map(|key| (key, None)).collect()).await?;
        Ok(count)
    }
}

/// Takes in every record until told to stop.
fn follow(consumer: &BaseConsumer<Telling>, view: &View, saw: &watch::Sender<i64>) {
    while !view.stopping.load(Ordering::Relaxed) {
        match consumer.poll(POLL_WAIT) {
            None => {}
            Some(Ok(message)) => {
                let key = message
                    .key()
                    .and_then(|key| std::str::from_utf8(key).ok())
                    .unwrap_or_default();
                view.take_in(message.offset(), key, message.payload());
                // The first of many is not all of them: only the end says that all were read once.
                saw.send_if_modified(|next| {
                    let told = *next >= 0;
                    if told {
                        *next = message.offset() + 1;
                    }
                    told
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let end = consumer.position().ok().and_then(|at| match at.elements().first()?.offset() {
                    Offset::Offset(next) => Some(next),
                    _ => None,
                });
                saw.send_modify(|next| *next = (*next).max(end.unwrap_or(0)));
            }
            Some(Err(error)) => tell(&error, "following the dead letters; it is repeated"),
        }
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn put(&self, letters: Vec<NewDeadLetter>) -> BoxFuture<'_, Result<(), DeadLetterError>> {
        Box::pin(self.put_all(letters))
    }

    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.0.view.lock().list(after, limit))))
    }

    fn show(&self, id: u64) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.0.view.lock().letters.get(&id).cloned())))
    }

    fn discard(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<u64, DeadLetterError>> {
        Box::pin(self.discard_all(ids))
    }

    fn count(&self) -> u64 {
        self.0.view.lock().letters.len() as u64
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.view.stopping.store(true, Ordering::Relaxed);
        if let Some(follower) = self.follower.take()
            && follower.join().is_err()
        {
            tracing::error!("the thread that follows the dead letters panicked");
        }
    }
}
