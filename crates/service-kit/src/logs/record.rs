//! One log record, and the filter that chooses among them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How grave a record is; later ones are graver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    #[default]
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// The text is none of the five levels.
#[derive(Debug, thiserror::Error)]
#[error("expected a log level of trace, debug, info, warn or error")]
pub struct LogLevelError;

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        let levels = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];
        levels
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(text))
            .ok_or(LogLevelError)
    }
}

impl From<&tracing::Level> for LogLevel {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}

/// One log record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub timestamp_unix_ns: i64,
    pub level: LogLevel,
    /// The crate that wrote it, such as `sentinel_ingest`.
    pub component: String,
    pub message: String,
    /// Fields of the record and of the spans around it; the innermost wins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl LogRecord {
    /// Stands in for `missed` records a slow follower did not get.
    pub(super) fn gap(timestamp_unix_ns: i64, missed: u64) -> Self {
        Self {
            timestamp_unix_ns,
            level: LogLevel::Warn,
            component: "service_kit".to_owned(),
            message: "log records were missed by this slow reader".to_owned(),
            fields: BTreeMap::from([("missed".to_owned(), Value::from(missed))]),
            trace_id: None,
        }
    }

    /// Approximate memory of the record.
    pub(super) fn bytes(&self) -> usize {
        let fields: usize = self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value_bytes(value) + 64)
            .sum();
        size_of::<Self>() + self.component.len() + self.message.len() + fields + self.trace_id.as_ref().map_or(0, String::len)
    }

    /// Whether the message or the text of a field contains `needle`, in any case of ASCII letters.
    fn contains(&self, needle: &str) -> bool {
        let mut texts = self.fields.values().filter_map(Value::as_str);
        contains_ignoring_case(&self.message, needle)
            || texts.any(|text| contains_ignoring_case(text, needle))
            || self.trace_id.as_deref().is_some_and(|id| contains_ignoring_case(id, needle))
    }
}

fn value_bytes(value: &Value) -> usize {
    value.as_str().map_or(8, str::len)
}

fn contains_ignoring_case(text: &str, needle: &str) -> bool {
    let (text, needle) = (text.as_bytes(), needle.as_bytes());
    needle.is_empty() || text.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// Which records to read. The default passes all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only records of this crate, such as `sentinel_ingest`; `-` and `_` are the same here.
    pub component: Option<String>,
    /// Only records from this moment on, in nanoseconds since 1970-01-01T00:00:00Z.
    pub since_unix_ns: Option<i64>,
    /// Only the newest this many stored records; following goes on with all later ones.
    pub tail: Option<usize>,
    /// Only records at least this grave.
    pub level_min: LogLevel,
    /// Only records whose message, fields or trace id contain this text, in any case.
    pub grep: Option<String>,
    /// Only records that have this field with this text.
    pub field: Option<(String, String)>,
}

impl LogFilter {
    /// Whether a record passes, `tail` aside.
    pub fn passes(&self, record: &LogRecord) -> bool {
        record.level >= self.level_min
            && self.since_unix_ns.is_none_or(|since| record.timestamp_unix_ns >= since)
            && self
                .component
                .as_deref()
                .is_none_or(|wanted| same_component(wanted, &record.component))
            && self
                .field
                .as_ref()
                .is_none_or(|(name, value)| record.fields.get(name).and_then(Value::as_str) == Some(value))
            && self.grep.as_deref().is_none_or(|needle| record.contains(needle))
    }

    pub(super) fn select(&self, records: Vec<Arc<LogRecord>>) -> Vec<Arc<LogRecord>> {
        let mut chosen: Vec<_> = records.into_iter().filter(|record| self.passes(record)).collect();
        if let Some(tail) = self.tail {
            chosen.drain(..chosen.len().saturating_sub(tail));
        }
        chosen
    }
}

fn same_component(wanted: &str, component: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    wanted.bytes().map(plain).eq(component.bytes().map(plain))
}
