//! Questions, typed: what a reader may ask of any store.

use std::time::Duration;

use domain::{Decision, Outcome, Position, Timestamp};

/// Namespaces (and teams) a caller may see. Applied to every question before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Events of these namespaces, or of servers these teams own, as recorded at ingest. Empty: nothing.
    Only {
        /// Namespaces.
        namespaces: Vec<String>,
        /// Owning teams (`team_id`).
        teams: Vec<String>,
    },
}

/// Which events a question is about: within the scope, in `[since, until)`, and matching every given filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What the caller may see.
    pub scope: Scope,
    /// First time asked about.
    pub since: Option<Timestamp>,
    /// First time no longer asked about.
    pub until: Option<Timestamp>,
    /// Columns that must have one of the given values; names as in `domain::COLUMNS`, or `source`, `event_type`, `trace_id`, `id`.
    /// An empty text matches absent.
    pub equals: Vec<(String, Vec<String>)>,
}

impl Filter {
    /// Everything within a scope.
    pub fn all(scope: Scope) -> Self {
        Self {
            scope,
            since: None,
            until: None,
            equals: Vec::new(),
        }
    }
}

/// Order of a list of events, with its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By time, newest first; events of one time by arrival, latest first. Goes on before the given time and place.
    Newest(Option<(Timestamp, Position)>),
    /// By arrival, oldest first: by partition, then offset. Goes on after the given place. For followers and exports: within a
    /// partition no event is ever inserted before a place already passed.
    Arrival(Option<Position>),
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Which events.
    pub filter: Filter,
    /// In which order, and from where.
    pub order: Order,
    /// Most rows.
    pub limit: u32,
}

/// How exported events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line, the wire form of events.
    Ndjson,
    /// Comma-separated, one column per field, with a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Every matching event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportQuery {
    /// Which events.
    pub filter: Filter,
    /// Written how.
    pub format: ExportFormat,
}

/// A usage report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// Which events; `since` and `until` are set.
    pub filter: Filter,
    /// Most rows of each list. With 0 the lists are not looked for, which spares most of the work.
    pub limit: u32,
    /// Step of the series.
    pub step: Duration,
}

/// What a series shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Events.
    Calls,
    /// Events with an error outcome.
    Errors,
    /// Events denied.
    Denied,
    /// Median latency in microseconds.
    LatencyP50,
    /// 95th percentile in microseconds.
    LatencyP95,
    /// 99th percentile in microseconds.
    LatencyP99,
    /// Bytes of requests and answers.
    Bytes,
}

/// What a series is split by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Not at all.
    None,
    /// By server.
    Server,
    /// By tool.
    Tool,
    /// By agent.
    Agent,
    /// By person.
    Human,
    /// By namespace.
    Namespace,
    /// By outcome.
    Outcome,
}

/// One metric over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesQuery {
    /// Which events; `since` and `until` are set.
    pub filter: Filter,
    /// What to show.
    pub metric: Metric,
    /// Split by what.
    pub by: Dimension,
    /// Length of a step; steps are counted from the epoch.
    pub step: Duration,
    /// Keys shown on their own; the rest becomes `other`.
    pub top: u32,
}

/// Every tool in a window, compared with the window before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolsQuery {
    /// Which events; `since` and `until` are set.
    pub filter: Filter,
    /// Most rows.
    pub limit: u32,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuesQuery {
    /// Which events.
    pub filter: Filter,
    /// A column of `domain::COLUMNS`, or `source` or `event_type`.
    pub column: String,
    /// Most rows.
    pub limit: u32,
}

/// A person's SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlQuery {
    /// What the caller may see.
    pub scope: Scope,
    /// One `SELECT`.
    pub sql: String,
    /// Longest run.
    pub time_max: Duration,
    /// Most rows of the answer; what exceeds them is left out and told.
    pub rows_max: u64,
    /// Most bytes of memory.
    pub memory_bytes_max: u64,
}

/// The answer to SQL: column names with their types in words, and rows of JSON values in that order.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlAnswer {
    /// Name and type (`text`, `integer`, `number`, `boolean`, `time`, `other`) of each column.
    pub columns: Vec<(String, &'static str)>,
    /// The rows.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Whether rows were left out because of `rows_max`.
    pub truncated: bool,
    /// How current it is.
    pub horizon: domain::analytics::Horizon,
}

/// The answer to SQL as columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrowAnswer {
    /// An Arrow IPC stream: the schema, the rows, the end.
    pub stream: bytes::Bytes,
    /// Whether rows were left out because of `rows_max`.
    pub truncated: bool,
    /// How current it is.
    pub horizon: domain::analytics::Horizon,
}

/// How far a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// Counts inserts; changes whenever a query could see something new.
    pub version: u64,
    /// Every event received before this is visible.
    pub complete_through: Timestamp,
}

/// Whether an event counts as allowed, denied or failed: the one definition that raw rows and rollups share.
pub fn counts(decision: Option<Decision>, outcome: Option<Outcome>) -> (bool, bool, bool) {
    let denied = outcome == Some(Outcome::Denied) || (outcome.is_none() && decision == Some(Decision::Deny));
    (
        decision == Some(Decision::Allow),
        denied,
        outcome.is_some_and(Outcome::is_error),
    )
}
