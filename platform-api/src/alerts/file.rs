//! The file of alert rules.
//!
//! ```yaml
//! rules:
//!   - name: refunds fail
//!     metric: error_rate          # see domain::alerts::AlertMetric
//!     above: 0.05                 # or below: …, or changes_by: … (times the window before)
//!     window: 10m
//!     filter: { server: payments, tool_name: [refund_invoice] }
//!     calls_min: 20               # fewer calls judge nothing; 1 when left out, 0 to watch for silence
//!     webhook: https://hooks.example.com/services/…
//! ```
//!
//! A wrong rule is left out and told; the others are in force. A file that is no such list leaves those of before in force.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::alerts::{AlertMetric, Bound, NAME_CHARS_MAX, RULES_MAX, Rule, WINDOW_MAX, WINDOW_MIN, WebhookStatus};
use serde::Deserialize;
use service_kit::parse_duration;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Window of a rule that names none.
const WINDOW: Duration = Duration::from_mins(5);
/// Columns besides those of [`domain::COLUMNS`] that a filter may name.
const MORE_COLUMNS: [&str; 2] = ["source", "event_type"];

/// A rule with whom it tells.
#[derive(Clone, Debug)]
pub(super) struct FileRule {
    pub(super) rule: Rule,
    pub(super) webhook: Option<Arc<Webhook>>,
}

/// An address that is told, and how that went. The address is a secret.
pub(super) struct Webhook {
    pub(super) url: http::Uri,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    delivered: u64,
    failed: u64,
    fault: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Webhook").field(&self.url.host()).finish()
    }
}

impl Webhook {
    fn parse(text: &str) -> Result<Arc<Self>, String> {
        let url = text.parse::<http::Uri>().ok();
        let url = url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some());
        let url = url.ok_or("`webhook` is not an http or https address")?;
        Ok(Arc::new(Self {
            url,
            told: Mutex::default(),
        }))
    }

    pub(super) fn status(&self) -> WebhookStatus {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        WebhookStatus {
            host: self.url.host().unwrap_or_default().to_owned(),
            delivered: told.delivered,
            failed: told.failed,
            fault: told.fault.clone(),
        }
    }

    /// Counts a notice that was taken, or why it was not.
    pub(super) fn count(&self, result: Result<(), String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => told.delivered += 1,
            Err(_) => told.failed += 1,
        }
        told.fault = result.err();
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rules: Vec<serde_json::Value>,
}

/// One or several values of a column.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    metric: AlertMetric,
    above: Option<f64>,
    below: Option<f64>,
    changes_by: Option<f64>,
    window: Option<String>,
    #[serde(default)]
    filter: BTreeMap<String, Values>,
    calls_min: Option<u64>,
    webhook: Option<String>,
}

/// Reads a file of `bytes` bytes: its rules, and what is wrong with those left out. `Err`: why there are no rules to be had from it.
pub(super) async fn read(path: &Path, bytes: u64) -> Result<(Vec<FileRule>, Vec<String>), String> {
    let shown = path.display();
    if bytes > FILE_BYTES_MAX {
        return Err(format!(
            "{shown} is larger than {FILE_BYTES_MAX} bytes; is it the right file?"
        ));
    }
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| format!("reading {shown}: {error}"))?;
    parse(&text).map_err(|fault| format!("{shown}: {fault}"))
}

fn parse(text: &str) -> Result<(Vec<FileRule>, Vec<String>), String> {
    let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let written = file.map_or_else(Vec::new, |file| file.rules);
    if written.len() > RULES_MAX {
        return Err(format!("{} rules are more than {RULES_MAX}", written.len()));
    }
    let mut rules: Vec<FileRule> = Vec::with_capacity(written.len());
    let mut faults = Vec::new();
    for (index, value) in written.into_iter().enumerate() {
        let name = value
            .get("name")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("without a name");
        let place = format!("rule {} ({name})", index + 1);
        match check(value) {
            Ok(rule) if rules.iter().any(|known| known.rule.name == rule.rule.name) => {
                faults.push(format!("{place}: another rule has this name; the first one is in force"));
            }
            Ok(rule) => rules.push(rule),
            Err(fault) => faults.push(format!("{place}: {fault}")),
        }
    }
    Ok((rules, faults))
}

fn check(value: serde_json::Value) -> Result<FileRule, String> {
    let written: Written = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let name = written.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(format!("`name` must be 1 to {NAME_CHARS_MAX} visible characters"));
    }
    let bound = bound_of(&written)?;
    let window = written.window.as_deref().map_or(Ok(WINDOW), |text| {
        parse_duration(text).map_err(|_| format!("`window` {text:?} is not a time such as 5m or 1h"))
    })?;
    if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        return Err(format!(
            "`window` must be {} s to {} days",
            WINDOW_MIN.as_secs(),
            WINDOW_MAX.as_secs() / 86_400
        ));
    }
    if written.metric.of_pipeline() && (!written.filter.is_empty() || matches!(bound, Bound::ChangesBy(_))) {
        return Err("the metric is one of the pipeline now: it takes neither `filter` nor `changes_by`".to_owned());
    }
    let filter = written.filter.into_iter().map(|(column, values)| {
        known_column(&column)?;
        let values = match values {
            Values::One(value) => vec![value],
            Values::Many(values) => values,
        };
        Ok((column, values))
    });
    let rule = Rule {
        name,
        metric: written.metric,
        bound,
        window_seconds: window.as_secs(),
        filter: filter.collect::<Result<_, String>>()?,
        calls_min: written.calls_min.unwrap_or(1),
    };
    let webhook = written.webhook.as_deref().map(Webhook::parse).transpose()?;
    Ok(FileRule { rule, webhook })
}

fn bound_of(written: &Written) -> Result<Bound, String> {
    let bounds = [
        written.above.map(Bound::Above),
        written.below.map(Bound::Below),
        written.changes_by.map(Bound::ChangesBy),
    ];
    let mut given = bounds.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(Bound::ChangesBy(factor)), None) if factor.is_nan() || factor <= 1.0 => {
            Err("`changes_by` must be more than 1: 2 means twice or half".to_owned())
        }
        (Some(bound), None) => Ok(bound),
        _ => Err("give exactly one of `above`, `below` and `changes_by`".to_owned()),
    }
}

fn known_column(column: &str) -> Result<(), String> {
    let known = || domain::COLUMNS.iter().map(|known| known.name).chain(MORE_COLUMNS);
    if known().any(|name| name == column) {
        return Ok(());
    }
    let near = known().max_by(|a, b| strsim::jaro_winkler(a, column).total_cmp(&strsim::jaro_winkler(b, column)));
    Err(format!(
        "`filter` names no column `{column}`; did you mean `{}`?",
        near.unwrap_or("server")
    ))
}

#[cfg(test)]
mod tests;
