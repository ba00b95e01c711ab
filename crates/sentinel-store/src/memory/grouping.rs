//! What is counted, and by what.

use std::time::Duration;

use domain::{Column, Event, Value};

use super::terms::Field;
use crate::QueryError;
use crate::query::{Dimension, Metric};
use crate::sketch::DistinctSketch;

/// The key of the group of what is not among the top: no sender's text, as `other` might be.
pub(crate) const REST: &str = "\u{1}rest";

/// Distinct values to count in each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distinct {
    /// Servers; same-named ones of two namespaces are two.
    Servers,
    /// People.
    Humans,
    /// Agents.
    Agents,
    /// Sessions.
    Sessions,
    /// Tools, of events that name one.
    Tools,
    /// Pairs of person and agent; not counted when neither is known.
    Callers,
}

impl Distinct {
    /// The columns whose values together are one value.
    pub(crate) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Servers => &["namespace", "server"],
            Self::Humans => &["human_id"],
            Self::Agents => &["agent_id"],
            Self::Sessions => &["session_id"],
            Self::Tools => &["namespace", "server", "tool_name"],
            Self::Callers => &["human_id", "agent_id"],
        }
    }

    /// The column without which there is no value, when that is not simply none of them.
    pub(crate) const fn required(self) -> Option<&'static str> {
        match self {
            Self::Tools => Some("tool_name"),
            _ => None,
        }
    }

    pub(super) fn insert(self, sketch: &mut DistinctSketch, event: &Event) {
        let text = |name: &&str| match Column::named(name).map(|column| (column.read)(&event.payload)) {
            Some(Value::Text(text)) => text,
            _ => "",
        };
        if self.required().is_none_or(|name| !text(&name).is_empty()) {
            sketch.insert_tuple(self.columns().iter().map(text).map(str::as_bytes));
        }
    }
}

/// What to count by.
#[derive(Debug, Clone)]
pub(crate) struct Grouping {
    /// Steps of time, when counted over time.
    pub(crate) step: Option<Duration>,
    /// One group per combination of their values.
    pub(crate) keys: Vec<Field>,
    /// Values of the only key that keep a group of their own; the others share the group [`REST`]. Absent: all do.
    pub(crate) keep: Option<Vec<String>>,
    /// Distinct values counted in each group.
    pub(crate) distinct: &'static [Distinct],
    /// Whether only events that name a tool are counted.
    pub(crate) tools_only: bool,
    /// Whether latencies are counted: they cost the most.
    pub(crate) latencies: bool,
}

impl Grouping {
    fn by(names: &[&str]) -> Result<Self, QueryError> {
        let keys = names.iter().map(|name| Field::named(name)).collect::<Result<_, _>>()?;
        Ok(Self {
            step: None,
            keys,
            keep: None,
            distinct: &[],
            tools_only: false,
            latencies: false,
        })
    }

    /// For [`super::tally::totals`].
    pub(crate) fn totals() -> Result<Self, QueryError> {
        let distinct = &[Distinct::Servers, Distinct::Humans, Distinct::Agents, Distinct::Sessions];
        Ok(Self {
            distinct,
            latencies: true,
            ..Self::by(&[])?
        })
    }

    /// For [`super::tally::servers`].
    pub(crate) fn servers() -> Result<Self, QueryError> {
        Ok(Self {
            distinct: &[Distinct::Humans, Distinct::Agents],
            latencies: true,
            ..Self::by(&["server", "namespace", "team_id"])?
        })
    }

    /// For [`super::tally::actors`].
    pub(crate) fn actors() -> Result<Self, QueryError> {
        Ok(Self {
            distinct: &[Distinct::Servers, Distinct::Tools],
            ..Self::by(&["human_id", "agent_id"])?
        })
    }

    /// For [`super::tally::tool_usage`].
    pub(crate) fn tool_usage() -> Result<Self, QueryError> {
        let keys = ["namespace", "server", "tool_name", "human_id", "team_id", "agent_id"];
        Ok(Self {
            tools_only: true,
            ..Self::by(&keys)?
        })
    }

    /// For [`super::tally::decisions`].
    pub(crate) fn decisions() -> Result<Self, QueryError> {
        Self::by(&["decision"])
    }

    /// For [`super::tally::usage_series`].
    pub(crate) fn usage_series(step: Duration) -> Result<Self, QueryError> {
        Ok(Self {
            step: Some(step),
            ..Self::by(&[])?
        })
    }

    /// For [`super::tally::top_keys`]: how many events each key has.
    pub(crate) fn keys(by: Dimension) -> Result<Self, QueryError> {
        Self::by(dimension_column(by).as_slice())
    }

    /// For [`super::tally::series`]: the keys to keep come from [`super::tally::top_keys`].
    pub(crate) fn series(by: Dimension, metric: Metric, step: Duration, keep: Vec<String>) -> Result<Self, QueryError> {
        Ok(Self {
            step: Some(step),
            keep: Some(keep),
            latencies: quantile_of(metric).is_some(),
            ..Self::keys(by)?
        })
    }

    /// For [`super::tally::tool_rows`].
    pub(crate) fn tool_rows() -> Result<Self, QueryError> {
        let keys = ["namespace", "server", "tool_name"];
        Ok(Self {
            distinct: &[Distinct::Callers],
            tools_only: true,
            latencies: true,
            ..Self::by(&keys)?
        })
    }

    /// For the calls of [`super::tally::tool_rows`] in the window before.
    pub(crate) fn tool_calls() -> Result<Self, QueryError> {
        Ok(Self {
            tools_only: true,
            ..Self::by(&["namespace", "server", "tool_name"])?
        })
    }

    /// For [`super::tally::values`].
    pub(crate) fn values(column: &str) -> Result<Self, QueryError> {
        match Field::named(column)? {
            Field::Id | Field::TraceId => Err(QueryError::Invalid(format!(
                "{column} is different for every call; ask for events instead"
            ))),
            field => Ok(Self {
                keys: vec![field],
                ..Self::by(&[])?
            }),
        }
    }
}

fn dimension_column(by: Dimension) -> Option<&'static str> {
    match by {
        Dimension::None => None,
        Dimension::Server => Some("server"),
        Dimension::Tool => Some("tool_name"),
        Dimension::Agent => Some("agent_id"),
        Dimension::Human => Some("human_id"),
        Dimension::Namespace => Some("namespace"),
        Dimension::Outcome => Some("outcome"),
    }
}

/// The percentile that a metric is; `None` for counts.
pub(super) fn quantile_of(metric: Metric) -> Option<f64> {
    match metric {
        Metric::LatencyP50 => Some(0.5),
        Metric::LatencyP95 => Some(0.95),
        Metric::LatencyP99 => Some(0.99),
        Metric::Calls | Metric::Errors | Metric::Denied | Metric::Bytes => None,
    }
}
