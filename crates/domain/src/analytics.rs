//! Answers of analytics queries: the bodies of the platform API, read by the command line, the console and dashboards.
//!
//! Times are RFC 3339 in UTC, latencies microseconds, rates fractions between 0 and 1. Lists are never `null`.

use serde::{Deserialize, Serialize};

use crate::{Event, Timestamp};

/// How current an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// When the answer was made.
    pub as_of: Timestamp,
    /// Every event received before this is counted in the answer. Later ones may be or may not.
    pub complete_through: Timestamp,
}

/// Which stored form an answer was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Served {
    /// Single events.
    Raw,
    /// Whole hours from the hourly rollup, edges from single events.
    Hourly,
    /// Whole days from the daily rollup, whole hours and edges from the finer forms.
    Daily,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsPage {
    /// The events, in the order asked for.
    pub events: Vec<StoredEvent>,
    /// Where the page stands.
    pub meta: PageMeta,
    /// How current it is.
    #[serde(flatten)]
    pub horizon: Horizon,
}

/// An event with its place in the order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event; its columns are under `payload`.
    #[serde(flatten)]
    pub event: Event,
    /// Partition of the queue it arrived by.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
}

/// Where a page stands in the whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageMeta {
    /// Most rows of a page.
    pub limit: u32,
    /// Whether there are more.
    pub has_more: bool,
    /// Opaque; asks for the next page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Counts over a set of calls. `latency_*` are absent when no call of the set had a latency.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CallCounts {
    /// Events counted.
    pub events: u64,
    /// With decision `allow`.
    pub allowed: u64,
    /// With outcome `denied`.
    pub denied: u64,
    /// With outcome `tool_error`, `rpc_error` or `transport_error`.
    pub errors: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of answers.
    pub bytes_out: u64,
    /// Half of the calls took at most this long, within 1 %.
    pub latency_p50_us: Option<u64>,
    /// 95 of 100 calls took at most this long, within 1 %.
    pub latency_p95_us: Option<u64>,
    /// 99 of 100 calls took at most this long, within 1 %.
    pub latency_p99_us: Option<u64>,
}

impl CallCounts {
    /// Failed calls among all; 0 when there are none.
    pub fn error_rate(&self) -> f64 {
        rate(self.errors, self.events)
    }

    /// Denied calls among all; 0 when there are none.
    pub fn deny_rate(&self) -> f64 {
        rate(self.denied, self.events)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Everything the usage page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Over everything that matched.
    pub totals: UsageTotals,
    /// The busiest servers.
    pub servers: Vec<ServerUsage>,
    /// The busiest pairs of person and agent.
    pub actors: Vec<ActorUsage>,
    /// The busiest tools by server and caller.
    pub tools: Vec<ToolUsage>,
    /// Events by decision; events without one are under `unknown`.
    pub decisions: Vec<DecisionUsage>,
    /// Counts over time, gaps filled with zero.
    pub series: Vec<UsageBucket>,
    /// The newest events.
    pub recent: Vec<StoredEvent>,
    /// How current it is.
    #[serde(flatten)]
    pub horizon: Horizon,
    /// What it was computed from.
    pub served_from: Served,
}

/// Totals of a usage report. `unique_*` are estimates, within some 2 %.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct UsageTotals {
    /// Counts and latencies.
    #[serde(flatten)]
    pub calls: CallCounts,
    /// Distinct servers.
    pub unique_servers: u64,
    /// Distinct people.
    pub unique_humans: u64,
    /// Distinct agents.
    pub unique_agents: u64,
    /// Distinct sessions.
    pub unique_sessions: u64,
}

/// One server in a usage report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerUsage {
    /// Its name.
    pub server: String,
    /// Its namespace.
    pub namespace: String,
    /// Its owning team, when told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// Counts and latencies.
    #[serde(flatten)]
    pub calls: CallCounts,
    /// Distinct people.
    pub unique_humans: u64,
    /// Distinct agents.
    pub unique_agents: u64,
    /// Time of its newest event.
    pub last_seen: Timestamp,
}

/// One pair of person and agent in a usage report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorUsage {
    /// The person; empty when unknown.
    pub human_id: String,
    /// The agent; empty when unknown.
    pub agent_id: String,
    /// Events counted.
    pub events: u64,
    /// With outcome `denied`.
    pub denied: u64,
    /// Distinct servers called.
    pub unique_servers: u64,
    /// Distinct tools called.
    pub unique_tools: u64,
    /// Time of the newest event.
    pub last_seen: Timestamp,
}

/// One tool as used by one caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolUsage {
    /// Namespace of the server.
    pub namespace: String,
    /// Server.
    pub server: String,
    /// Tool.
    pub tool_name: String,
    /// The person; empty when unknown.
    pub human_id: String,
    /// The team; empty when unknown.
    pub team_id: String,
    /// The agent; empty when unknown.
    pub agent_id: String,
    /// Events counted.
    pub events: u64,
    /// With outcome `denied`.
    pub denied: u64,
    /// Time of the newest event.
    pub last_seen: Timestamp,
}

/// Events with one decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionUsage {
    /// `allow`, `deny` or `unknown`.
    pub decision: String,
    /// Events counted.
    pub events: u64,
}

/// Counts of one step of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBucket {
    /// Start of the step.
    pub bucket: Timestamp,
    /// Events counted.
    pub events: u64,
    /// With decision `allow`.
    pub allowed: u64,
    /// With outcome `denied`.
    pub denied: u64,
}

/// One metric over time, split by one dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesReport {
    /// Length of a step in seconds.
    pub step_seconds: u64,
    /// Starts of the steps.
    pub buckets: Vec<Timestamp>,
    /// The busiest keys, most events first; the rest is summed up under `other`.
    pub series: Vec<Series>,
    /// How current it is.
    #[serde(flatten)]
    pub horizon: Horizon,
    /// What it was computed from.
    pub served_from: Served,
}

/// The values of one key of a series report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The key; empty when the dimension was absent, `other` for the rest, `all` when not split.
    pub key: String,
    /// One value per step; `null` where the metric has none (a latency without calls), 0 for counts.
    pub values: Vec<Option<f64>>,
}

/// What every tool did in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolsReport {
    /// Most calls first.
    pub tools: Vec<ToolRow>,
    /// How current it is.
    #[serde(flatten)]
    pub horizon: Horizon,
    /// What it was computed from.
    pub served_from: Served,
}

/// One tool of one server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolRow {
    /// Namespace of the server.
    pub namespace: String,
    /// Server.
    pub server: String,
    /// Tool.
    pub tool_name: String,
    /// Counts and latencies.
    #[serde(flatten)]
    pub calls: CallCounts,
    /// Failed calls among all.
    pub error_rate: f64,
    /// Denied calls among all.
    pub deny_rate: f64,
    /// Distinct pairs of person and agent, within some 2 %.
    pub unique_callers: u64,
    /// Time of the newest call.
    pub last_seen: Timestamp,
    /// Calls in the window of the same length before.
    pub previous_calls: u64,
}

/// How many events have one value of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueCount {
    /// The value.
    pub value: String,
    /// Events that have it.
    pub count: u64,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// Events stored.
    pub events: u64,
    /// Bytes on disk, rollups included.
    pub bytes: u64,
    /// Files on disk.
    pub files: u64,
    /// Events that are visible but not yet in a file; the queue keeps them until they are.
    pub events_in_memory: u64,
    /// Time of the oldest event; absent when there is none.
    pub oldest: Option<Timestamp>,
    /// Time of the newest event; absent when there is none.
    pub newest: Option<Timestamp>,
    /// Events older than this are removed; absent when they are kept for ever.
    pub retention_seconds: Option<u64>,
}
