//! What operators see of a running system: components, logs, keys, dead letters. Bodies of the platform API.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::analytics::StorageReport;

/// The whole system at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// When this was seen.
    pub as_of: Timestamp,
    /// `standalone` or `cluster`.
    pub size: String,
    /// Version of the program that answered.
    pub version: String,
    /// Each part and its state.
    pub components: Vec<ComponentStatus>,
    /// How the events flow.
    pub pipeline: PipelineStatus,
    /// The brokers between ingest and processor; absent where the queue is a folder of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueReport>,
    /// What is stored.
    pub storage: Option<StorageReport>,
    /// The MCP servers behind the gateway.
    pub servers: Vec<ServerStatus>,
    /// Keys that end within a week.
    pub keys_expiring: Vec<KeyView>,
}

/// One part of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// Key for `logs` and `restart`: `gateway`, `ingest`, `queue`, `processor`, `store`, `platform-api`.
    pub key: String,
    /// Name for people.
    pub display: String,
    /// Whether it does its work.
    pub state: ComponentState,
    /// Why not, or what it is doing: one sentence.
    pub detail: String,
    /// Where it listens, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Whether a part does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComponentState {
    /// It does.
    Ready,
    /// It does, with losses or delay.
    Degraded,
    /// It does not.
    NotReady,
}

/// How the events flow.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// Events taken in and made durable since start.
    pub accepted: u64,
    /// Events refused at ingest since start.
    pub rejected: u64,
    /// Events stored since start, repeats not counted.
    pub stored: u64,
    /// Repeats recognised since start.
    pub duplicates: u64,
    /// Events that producers numbered but that never came, as far as the numbers show.
    pub missing: u64,
    /// Records set aside.
    pub dead_letters: u64,
    /// Events the gateway could not deliver and gave up since start.
    pub dropped: u64,
    /// Events taken in but not yet visible.
    pub lag_events: u64,
    /// Age of the oldest of these, in seconds.
    pub lag_seconds: f64,
    /// From receipt to visible, in milliseconds, over the last minutes; absent before the first event.
    pub freshness_p50_ms: Option<f64>,
    /// The same for 99 of 100 events.
    pub freshness_p99_ms: Option<f64>,
    /// Time of an insert into the store, in milliseconds, half of them; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insert_p50_ms: Option<f64>,
    /// The same for 99 of 100 inserts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insert_p99_ms: Option<f64>,
    /// Events per second over the last minute.
    pub events_per_second: f64,
    /// Failed among the last hour's requests.
    pub error_rate: f64,
    /// Denied among the last hour's requests.
    pub deny_rate: f64,
}

/// A queue on brokers, as they tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueReport {
    /// Topic of the events.
    pub topic: String,
    /// Group of the processors.
    pub group: String,
    /// Brokers that are there.
    pub brokers: Vec<BrokerReport>,
    /// Parts of the topic.
    pub partitions: Vec<PartitionReport>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerReport {
    /// Its number.
    pub id: i32,
    /// Where clients reach it.
    pub address: String,
}

/// A part of a topic. Numbers are of records, each of one or more events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// Its number.
    pub partition: u32,
    /// The broker that leads it; absent while there is none.
    pub leader: Option<i32>,
    /// Brokers that keep it.
    pub replicas: u32,
    /// How many of them have all of it.
    pub in_sync: u32,
    /// First record that is still kept.
    pub first: u64,
    /// One past the last record.
    pub end: u64,
    /// First record that is not stored for good; absent before the first commit.
    pub committed: Option<u64>,
}

impl PartitionReport {
    /// Records that are not stored for good.
    pub fn records_waiting(&self) -> u64 {
        self.end.saturating_sub(self.committed.unwrap_or(0).max(self.first))
    }
}

impl QueueReport {
    /// Records of all partitions that are not stored for good.
    pub fn records_waiting(&self) -> u64 {
        self.partitions.iter().map(PartitionReport::records_waiting).sum()
    }

    /// Partitions that some broker should have and has not.
    pub fn partitions_behind(&self) -> usize {
        let behind = |partition: &&PartitionReport| partition.leader.is_none() || partition.in_sync < partition.replicas;
        self.partitions.iter().filter(behind).count()
    }
}

/// An MCP server behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Where clients reach it.
    pub url: String,
    /// Where the gateway reaches it.
    pub upstream: String,
    /// `observe` or `enforce`.
    pub mode: String,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub timestamp: Timestamp,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// Which part wrote it.
    pub component: String,
    /// What happened.
    pub message: String,
    /// With which values.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// An ingest key as its owner may see it: never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Public part of the key.
    pub id: String,
    /// Namespace it may write; `*` for any.
    pub namespace: String,
    /// Server it may write; absent for any of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// Events per second it may send; absent for no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second_max: Option<u32>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A key just made: the only time the secret is seen.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// What is kept.
    #[serde(flatten)]
    pub view: KeyView,
    /// The whole key, `mcpi_<id>_<secret>`.
    pub key: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("view", &self.view).finish_non_exhaustive()
    }
}

/// A record that could not be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Counted up from 1.
    pub id: u64,
    /// When it was set aside.
    pub set_aside_at: Timestamp,
    /// Partition it came from.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Why: one sentence.
    pub reason: String,
    /// The record as text; bytes that are no text are replaced.
    pub record: String,
}
