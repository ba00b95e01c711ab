//! Looking at the queue without being part of it: brokers, partitions, and how far the group is.

use std::sync::Arc;
use std::time::Duration;

use domain::operations::{BrokerReport, PartitionReport, QueueReport};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::args::ConnectionConfig;
use super::client::{ConnectError, Telling, settings};

/// Longest wait for one answer; three are asked for.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// The brokers did not tell.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// They do not answer, or refuse.
    #[error("asking the brokers {brokers} about {topic}")]
    Refused {
        /// Where they are.
        brokers: String,
        /// What was asked about.
        topic: String,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// The process is stopping.
    #[error("asking the brokers while the process stops")]
    Stopping,
}

/// Looks at the queue. It joins no group and commits nothing. Clones look through the same client.
#[derive(Clone)]
pub struct KafkaView(Arc<Inner>);

struct Inner {
    consumer: BaseConsumer<Telling>,
    brokers: String,
    topic: String,
    group: String,
}

impl std::fmt::Debug for KafkaView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaView")
            .field("topic", &self.0.topic)
            .field("group", &self.0.group)
            .finish_non_exhaustive()
    }
}

impl KafkaView {
    /// Looks at the topic of these settings and at what `group` has settled of it. Reaches nobody yet.
    pub fn new(config: &ConnectionConfig, group: &str) -> Result<Self, ConnectError> {
        let consumer = settings(config)?
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create_with_context(Telling)
            .map_err(|source| ConnectError::Client {
                brokers: config.brokers.clone(),
                source,
            })?;
        Ok(Self(Arc::new(Inner {
            consumer,
            brokers: config.brokers.clone(),
            topic: config.topic.clone(),
            group: group.to_owned(),
        })))
    }

    /// How it is at this moment.
    pub async fn look(&self) -> Result<QueueReport, ViewError> {
        let inner = Arc::clone(&self.0);
        // The client library waits for answers on the thread that asks.
        let looked = tokio::task::spawn_blocking(move || inner.look()).await;
        let looked = looked.map_err(|_| ViewError::Stopping)?;
        looked.map_err(|source| ViewError::Refused {
            brokers: self.0.brokers.clone(),
            topic: self.0.topic.clone(),
            source,
        })
    }
}

impl Inner {
    fn look(&self) -> KafkaResult<QueueReport> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ANSWER_WAIT)?;
        let brokers = metadata.brokers().iter().map(|broker| BrokerReport {
            id: broker.id(),
            address: format!("{}:{}", broker.host(), broker.port()),
        });
        let mut partitions: Vec<PartitionReport> = Vec::new();
        for topic in metadata.topics() {
            if let Some(fault) = topic.error() {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::from(fault)));
            }
            partitions.extend(topic.partitions().iter().map(|partition| PartitionReport {
                partition: u32::try_from(partition.id()).unwrap_or_default(),
                leader: Some(partition.leader()).filter(|leader| *leader >= 0),
                replicas: u32::try_from(partition.replicas().len()).unwrap_or(u32::MAX),
                in_sync: u32::try_from(partition.isr().len()).unwrap_or(u32::MAX),
                first: 0,
                end: 0,
                committed: None,
            }));
        }
        partitions.sort_unstable_by_key(|partition| partition.partition);
        // Asked for times before all and after all, the brokers tell the first and the last record.
        let first = self
            .consumer
            .offsets_for_times(self.list(&partitions, Offset::Beginning)?, ANSWER_WAIT)?;
        note(&mut partitions, &first, |partition, record| partition.first = record);
        let end = self
            .consumer
            .offsets_for_times(self.list(&partitions, Offset::End)?, ANSWER_WAIT)?;
        note(&mut partitions, &end, |partition, record| partition.end = record);
        let committed = self
            .consumer
            .committed_offsets(self.list(&partitions, Offset::Invalid)?, ANSWER_WAIT)?;
        note(&mut partitions, &committed, |partition, record| {
            partition.committed = Some(record);
        });
        let mut brokers: Vec<BrokerReport> = brokers.collect();
        brokers.sort_unstable_by_key(|broker| broker.id);
        Ok(QueueReport {
            topic: self.topic.clone(),
            group: self.group.clone(),
            brokers,
            partitions,
        })
    }

    fn list(&self, partitions: &[PartitionReport], offset: Offset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
            list.add_partition_offset(&self.topic, number, offset)?;
        }
        Ok(list)
    }
}

/// Notes what the brokers answered for each partition.
fn note(partitions: &mut [PartitionReport], answered: &TopicPartitionList, put: impl Fn(&mut PartitionReport, u64)) {
    for element in answered.elements() {
        let number = u32::try_from(element.partition()).unwrap_or_default();
        let known = partitions.iter_mut().find(|partition| partition.partition == number);
        if let (Some(partition), Offset::Offset(record)) = (known, element.offset()) {
            put(partition, u64::try_from(record).unwrap_or_default());
        }
    }
}
