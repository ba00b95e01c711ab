//! Alert rules: what is watched, when it is wrong, and what the watcher found.
//!
//! A rule names one metric over a window that ends now, and one bound. [`Rule::judge`] is the whole judgement; whoever evaluates
//! rules only measures, calls it, and tells people when the state changes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::analytics::CallCounts;
use crate::operations::PipelineStatus;

/// Most rules of one file.
pub const RULES_MAX: usize = 200;
/// Shortest window: a shorter one would judge by single calls.
pub const WINDOW_MIN: Duration = Duration::from_secs(10);
/// Longest window.
pub const WINDOW_MAX: Duration = Duration::from_hours(24 * 31);
/// Most characters of a rule's name.
pub const NAME_CHARS_MAX: usize = 200;

/// What a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertMetric {
    /// Calls in the window.
    Calls,
    /// Failed calls in the window.
    Errors,
    /// Denied calls in the window.
    Denied,
    /// Failed calls among all, between 0 and 1.
    ErrorRate,
    /// Denied calls among all, between 0 and 1.
    DenyRate,
    /// Median latency in milliseconds.
    LatencyP50,
    /// 95th percentile of latency in milliseconds.
    LatencyP95,
    /// 99th percentile of latency in milliseconds.
    LatencyP99,
    /// Bytes of requests and answers in the window.
    Bytes,
    /// Age in seconds of the oldest event taken in but not yet visible; now, not over the window.
    LagSeconds,
    /// Records set aside because they could not be stored; now.
    DeadLetters,
    /// Events given up by gateways since start; now.
    Dropped,
    /// Events that senders numbered but that never came, since start; now.
    Missing,
}

impl fmt::Display for AlertMetric {
    /// The word in rules and answers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Calls => "calls",
            Self::Errors => "errors",
            Self::Denied => "denied",
            Self::ErrorRate => "error_rate",
            Self::DenyRate => "deny_rate",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::Bytes => "bytes",
            Self::LagSeconds => "lag_seconds",
            Self::DeadLetters => "dead_letters",
            Self::Dropped => "dropped",
            Self::Missing => "missing",
        })
    }
}

impl AlertMetric {
    /// Whether it is a property of the pipeline at this moment rather than of calls in a window.
    pub fn of_pipeline(self) -> bool {
        matches!(self, Self::LagSeconds | Self::DeadLetters | Self::Dropped | Self::Missing)
    }

    /// Its value over a set of calls; absent when it has none, such as the latency of no calls.
    #[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are not compared to the unit")]
    pub fn of_calls(self, calls: &CallCounts) -> Option<f64> {
        let milliseconds = |micros: Option<u64>| micros.map(|micros| micros as f64 / 1e3);
        match self {
            Self::Calls => Some(calls.events as f64),
            Self::Errors => Some(calls.errors as f64),
            Self::Denied => Some(calls.denied as f64),
            Self::ErrorRate => (calls.events > 0).then(|| calls.error_rate()),
            Self::DenyRate => (calls.events > 0).then(|| calls.deny_rate()),
            Self::LatencyP50 => milliseconds(calls.latency_p50_us),
            Self::LatencyP95 => milliseconds(calls.latency_p95_us),
            Self::LatencyP99 => milliseconds(calls.latency_p99_us),
            Self::Bytes => Some((calls.bytes_in + calls.bytes_out) as f64),
            Self::LagSeconds | Self::DeadLetters | Self::Dropped | Self::Missing => None,
        }
    }

    /// Its value in a pipeline; absent for metrics of calls.
    #[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are not compared to the unit")]
    pub fn of_status(self, pipeline: &PipelineStatus) -> Option<f64> {
        match self {
            Self::LagSeconds => Some(pipeline.lag_seconds),
            Self::DeadLetters => Some(pipeline.dead_letters as f64),
            Self::Dropped => Some(pipeline.dropped as f64),
            Self::Missing => Some(pipeline.missing as f64),
            _ => None,
        }
    }
}

/// When a value is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It is greater than this.
    Above(f64),
    /// It is less than this.
    Below(f64),
    /// It is at least this many times the value of the window before, or at most one part in so many. Greater than 1.
    ChangesBy(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(bound) => write!(f, "above {bound}"),
            Self::Below(bound) => write!(f, "below {bound}"),
            Self::ChangesBy(factor) => write!(f, "changes by {factor}×"),
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique among the rules.
    pub name: String,
    /// What is watched.
    pub metric: AlertMetric,
    /// When it is wrong.
    #[serde(flatten)]
    pub bound: Bound,
    /// Length of the window in seconds.
    pub window_seconds: u64,
    /// Columns that must have one of the values, as in filters of queries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filter: BTreeMap<String, Vec<String>>,
    /// With fewer calls in the window than this, nothing is judged. For rates and latencies, where one call proves little.
    pub calls_min: u64,
}

/// What was measured for a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The value; absent when there is none.
    pub value: Option<f64>,
    /// The value of the window before, when the rule asks for it.
    pub before: Option<f64>,
    /// Calls in the window.
    pub calls: u64,
}

/// Whether a rule's bound is crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is not.
    Ok,
    /// It is.
    Firing,
    /// There is too little to judge by, or nothing could be measured.
    NoData,
}

impl Rule {
    /// Length of the window.
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.window_seconds)
    }

    /// Whether the rule's bound is crossed by what was measured.
    pub fn judge(&self, measured: Measured) -> AlertState {
        if !self.metric.of_pipeline() && measured.calls < self.calls_min {
            return AlertState::NoData;
        }
        let Some(value) = measured.value else {
            return AlertState::NoData;
        };
        let crossed = match self.bound {
            Bound::Above(bound) => value > bound,
            Bound::Below(bound) => value < bound,
            // From nothing to something has no factor: a change is told once there is something to compare with.
            Bound::ChangesBy(factor) => match measured.before {
                Some(before) if before > 0.0 => value >= before * factor || value * factor <= before,
                _ => return AlertState::NoData,
            },
        };
        if crossed { AlertState::Firing } else { AlertState::Ok }
    }
}

/// A rule and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertStatus {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// Whether its bound is crossed.
    pub state: AlertState,
    /// Since when; absent before the first evaluation.
    pub since: Option<Timestamp>,
    /// The value judged last, in the metric's unit.
    pub value: Option<f64>,
    /// The value of the window before it, for rules about change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    /// When it was judged last.
    pub evaluated_at: Option<Timestamp>,
    /// Why it could not be judged, when it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Who is told, when somebody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
}

/// Deliveries to a webhook. Its address is a secret beyond the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// Host of its address.
    pub host: String,
    /// Notices taken by it since start.
    pub delivered: u64,
    /// Notices given up since start.
    pub failed: u64,
    /// Why the last one failed, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Every rule and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertsReport {
    /// Firing ones first, then by name.
    pub alerts: Vec<AlertStatus>,
    /// What is wrong with the file of rules: each a sentence. Rules read before stay in force.
    pub faults: Vec<String>,
    /// The file of rules; absent when none is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// When this was seen.
    pub as_of: Timestamp,
}

/// What a webhook is sent, as JSON, whenever a rule begins or ends to fire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertNotice {
    /// Unique to this change of state, the same on each try.
    pub id: String,
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// `firing` or `ok`.
    pub state: AlertState,
    /// Since when.
    pub since: Timestamp,
    /// The value that was judged.
    pub value: Option<f64>,
    /// One sentence for people.
    pub text: String,
}

#[cfg(test)]
mod tests;
