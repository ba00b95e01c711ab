//! The appending side.

use std::sync::Arc;
use std::time::Duration;

use domain::Event;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::sync::RwLock;

use super::args::{AppenderConfig, Compression};
use super::client::{ConnectError, Telling, io_error, settings};
use super::record::{Packed, pack};
use super::topic::{Wanted, ensure};
use crate::{AppendError, EventAppender};

const SCHEMA: &str = "1";
const CONTENT_TYPE: &str = "application/x-ndjson";
/// Records beyond this many wait in no client; most of them would be single events.
const RECORDS_WAITING_MAX: usize = 500_000;
/// What a record takes beyond its value: key, headers, framing.
const FRAME_BYTES: usize = 4_096;
/// Longest wait for records still on their way when the last appender is dropped.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Appends to Kafka. Clones append through the same client.
///
/// `Ok` means that all in-sync replicas have every record. Records of an append that fails may still arrive: their senders send
/// again, and the store knows the events.
#[derive(Clone)]
pub struct KafkaAppender(Arc<Inner>);

struct Inner {
    config: AppenderConfig,
    /// Replaced when the client says that it can never work again.
    producer: RwLock<FutureProducer<Telling>>,
}

impl std::fmt::Debug for KafkaAppender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaAppender")
            .field("topic", &self.0.config.connection.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaAppender {
    /// Reaches the brokers, and makes the topic where it is missing.
    pub async fn connect(config: AppenderConfig) -> Result<Self, ConnectError> {
        let producer = RwLock::new(producer(&config)?);
        ensure(
            &config.connection,
            &Wanted::events(&config.connection, Some(config.record_bytes_max)),
        )
        .await?;
        Ok(Self(Arc::new(Inner { config, producer })))
    }

    /// Appends a line as it is, event or not.
    #[cfg(any(test, feature = "test-support"))]
    pub async fn append_line(&self, line: &[u8]) -> Result<(), AppendError> {
        let record = Packed {
            key: "test/line".to_owned(),
            lines: line.to_vec(),
            count: 1,
            traceparent: None,
        };
        self.send_all(&[record]).await
    }

    async fn send_all(&self, records: &[Packed]) -> Result<(), AppendError> {
        let producer = self.0.producer.read().await.clone();
        let mut fault = None;
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            match self.send(&producer, record) {
                Ok(delivery) => sent.push(delivery),
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        for delivery in sent {
            // The client outlives its records, so there is always an answer.
            if let Ok(Err((error, _))) = delivery.await {
                fault.get_or_insert(error);
            }
        }
        let Some(fault) = fault else { return Ok(()) };
        self.replace_if_dead(&producer).await;
        Err(self.append_error(fault, records))
    }

    fn send(&self, producer: &FutureProducer<Telling>, record: &Packed) -> Result<DeliveryFuture, KafkaError> {
        let count = record.count.to_string();
        let header = |key, value| Header { key, value: Some(value) };
        let mut headers = OwnedHeaders::new_with_capacity(4)
            .insert(header("schema", SCHEMA))
            .insert(header("content-type", CONTENT_TYPE))
            .insert(header("count", count.as_str()));
        if let Some(traceparent) = &record.traceparent {
            headers = headers.insert(header("traceparent", traceparent));
        }
        let message = FutureRecord::to(&self.0.config.connection.topic)
            .key(&record.key)
            .payload(&record.lines)
            .headers(headers);
        producer.send_result(message).map_err(|(error, _)| error)
    }

    fn append_error(&self, error: KafkaError, records: &[Packed]) -> AppendError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => {
                let bytes_max = self.0.config.buffer_bytes_max as u64;
                AppendError::Full {
                    bytes: bytes_max,
                    bytes_max,
                }
            }
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => AppendError::TooLarge {
                bytes: records.iter().map(|record| record.lines.len()).max().unwrap_or(0),
                bytes_max: self.0.config.record_bytes_max,
            },
            _ => AppendError::Unavailable(io_error(error)),
        }
    }

    /// An idempotent producer whose count no longer agrees with the brokers' stops for good. A new one begins a new count.
    async fn replace_if_dead(&self, used: &FutureProducer<Telling>) {
        let Some((code, reason)) = used.client().fatal_error() else {
            return;
        };
        let mut held = self.0.producer.write().await;
        // Another append may have been here first.
        if held.client().fatal_error().is_none() {
            return;
        }
        tracing::warn!(%code, reason, "the client of the brokers stopped for good; a new one takes over");
        match producer(&self.0.config) {
            Ok(new) => *held = new,
            Err(error) => tracing::error!(%error, "no new client of the brokers could be made"),
        }
    }
}

impl EventAppender for KafkaAppender {
    async fn append(&self, events: &[Event]) -> Result<(), AppendError> {
        let records = pack(events, self.0.config.record_bytes_max)?;
        self.send_all(&records).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever waited for these has gone; they may still be of use.
        if let Err(error) = self.producer.get_mut().flush(FLUSH_WAIT) {
            tracing::warn!(%error, "records on their way to the brokers are given up; nobody was told that they arrived");
        }
    }
}

fn producer(config: &AppenderConfig) -> Result<FutureProducer<Telling>, ConnectError> {
    let compression = match config.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    settings(&config.connection)?
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("compression.type", compression)
        .set("linger.ms", config.linger.as_millis().to_string())
        .set("message.max.bytes", (config.record_bytes_max + FRAME_BYTES).to_string())
        .set("message.timeout.ms", config.append_timeout.as_millis().to_string())
        .set("queue.buffering.max.kbytes", (config.buffer_bytes_max / 1_024).to_string())
        .set("queue.buffering.max.messages", RECORDS_WAITING_MAX.to_string())
        .create_with_context(Telling)
        .map_err(|source| ConnectError::Client {
            brokers: config.connection.brokers.clone(),
            source,
        })
}
