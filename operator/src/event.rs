//! Kubernetes Events: what happened to an object, where `kubectl describe` shows it.
//!
//! One is sent when a statement changes its mind, never for a state that lasts. Losing one loses no state, so faults are logged only.

use crds::object::{Condition, ConditionStatus};
use kube::Client;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::FIELD_MANAGER;
use crate::apply::api;
use crate::object::{Key, Kind};

/// Longest note, in bytes, that the API takes.
const NOTE_BYTES_MAX: usize = 1024;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub is_warning: bool,
    pub reason: String,
    pub note: String,
}

/// Reasons that say "not yet": they pass by themselves.
const CALM: &[&str] = &[
    "NotCreated",
    "RollingOut",
    "NoAddress",
    "NotPublished",
    "WaitingForIngressController",
    "WaitingForGateway",
    "NoCanary",
    "NotGoverned",
    "NoGateways",
    "Acknowledging",
];

/// What is worth telling when `old` became `new`: what went wrong, and what is right again.
pub fn news(old: &[Condition], new: &[Condition]) -> Vec<News> {
    let is_trouble =
        |condition: &Condition| condition.status == ConditionStatus::False && !CALM.contains(&condition.reason.as_str());
    let mut news: Vec<News> = Vec::new();
    for condition in new {
        let before = old.iter().find(|old| old.kind == condition.kind);
        let is_new = before.is_none_or(|old| old.reason != condition.reason);
        let is_over = condition.status == ConditionStatus::True && before.is_some_and(is_trouble);
        // Several statements often share a cause; it is told once.
        let is_told = news.iter().any(|told| told.note == condition.message);
        if !is_told && ((is_new && is_trouble(condition)) || is_over) {
            news.push(News {
                is_warning: !is_over,
                reason: condition.reason.clone(),
                note: condition.message.clone(),
            });
        }
    }
    news
}

/// Sends news about an object.
pub async fn publish(client: &Client, kind: Kind, key: &Key, uid: &str, news: &[News], unix_ns: i64) {
    for (index, news) in news.iter().enumerate() {
        let body = body(
            kind,
            key,
            uid,
            news,
            unix_ns.saturating_add(i64::try_from(index).unwrap_or_default()),
        );
        let Ok(body) = serde_json::from_value(body) else { continue };
        if let Err(error) = api(client, &key.namespace, Kind::Event)
            .create(&PostParams::default(), &body)
            .await
        {
            tracing::warn!(%kind, %key, reason = news.reason, error = service_kit::error::Chain(&error).to_string(), "an Event was not taken");
        }
    }
}

fn body(kind: Kind, key: &Key, uid: &str, news: &News, unix_ns: i64) -> Value {
    let now = domain::Timestamp::from_nanos(unix_ns).to_string();
    let note: String = news
        .note
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= NOTE_BYTES_MAX).then_some(c)
        })
        .collect();
    json!({
        "apiVersion": Kind::Event.api_version(),
        "kind": Kind::Event.as_str(),
        "metadata": { "name": format!("{}.{unix_ns:x}", key.name.chars().take(200).collect::<String>()), "namespace": key.namespace },
        "eventTime": format!("{}Z", now.get(..26).unwrap_or("1970-01-01T00:00:00.000000")),
        "regarding": { "apiVersion": kind.api_version(), "kind": kind.as_str(), "name": key.name, "namespace": key.namespace, "uid": uid },
        "type": if news.is_warning { "Warning" } else { "Normal" },
        "reason": news.reason,
        "note": note,
        "action": "Reconcile",
        "reportingController": FIELD_MANAGER,
        "reportingInstance": FIELD_MANAGER,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: format!("because {reason}"),
            last_transition_time: String::new(),
            observed_generation: None,
        }
    }

    #[test]
    fn only_changes_are_told_and_a_shared_cause_once() {
        let old = [condition("A", ConditionStatus::False, "RollingOut")];
        let new = [
            condition("A", ConditionStatus::False, "ImagePullFailed"),
            condition("B", ConditionStatus::False, "ImagePullFailed"),
            condition("C", ConditionStatus::False, "NotPublished"),
            condition("D", ConditionStatus::False, "NoGateways"),
        ];
        let told = news(&old, &new);
        assert_eq!(told.len(), 1);
        assert!(told[0].is_warning && told[0].reason == "ImagePullFailed");
        assert_eq!(news(&new, &new), []);
        let calm = [condition("A", ConditionStatus::True, "AllReplicasReady")];
        assert_eq!(news(&[], &calm), [], "a server that starts well is told once, by its phase");
        assert!(
            news(&new, &calm)
                .iter()
                .all(|told| !told.is_warning && told.reason == "AllReplicasReady")
        );
    }
}
