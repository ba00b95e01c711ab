//! Who changed what: facts that go into the same store as the calls.
//!
//! ```text
//! change + row of the outbox (one transaction) ─► task `audit` ─► AuditSink (the queue) ─► store
//! ```
//!
//! A row leaves the outbox only after the sink has the event, and its id is the event's id, so that a fact sent twice counts once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use domain::event::WireVersion;
use domain::{Decision, Event, EventId, Outcome, Payload, Timestamp};
use futures::future::BoxFuture;
use service_kit::{Shutdown, Stage, Tasks, trace};
use sqlx::Row as _;
use tokio::sync::Notify;

use crate::database::{Database, DatabaseError, Transaction};

/// Namespace of facts that belong to no tenant; only administrators see it.
pub(crate) const PLATFORM_NAMESPACE: &str = "mcp-platform";
const SOURCE: &str = "platform-api";
/// Facts handed over at once.
const BATCH_MAX: i64 = 100;
/// Pause after a sink that would not take facts.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Longest text of one attribute.
const TEXT_BYTES_MAX: usize = 1_024;

/// Takes facts. `Ok`: they survive this process.
pub trait AuditSink: Debug + Send + Sync + 'static {
    fn append(&self, events: Vec<Event>) -> BoxFuture<'_, Result<(), anyhow::Error>>;
}

/// What kind of fact it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Accounts, logins, keys, teams, servers.
    Audit,
    /// Grants and sessions: what somebody may call.
    Access,
}

/// How the action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Refused,
}

/// One fact.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) topic: Topic,
    /// Such as `server_publish`.
    pub(crate) action: &'static str,
    pub(crate) ended: Ended,
    /// Who did it: an account's id, or the name of a program.
    pub(crate) actor: String,
    /// Their address in words, where known.
    pub(crate) actor_email: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) server: Option<String>,
    pub(crate) team_id: Option<String>,
    /// What it was done to, such as `grant/cursor`.
    pub(crate) resource: String,
    /// More, for people; no secrets.
    pub(crate) details: Vec<(&'static str, String)>,
}

impl Fact {
    fn event(self, id: EventId, now: Timestamp) -> Event {
        let context = trace::current();
        let done = self.ended == Ended::Done;
        let mut attributes: BTreeMap<String, String> = [
            ("action".to_owned(), self.action.to_owned()),
            ("resource".to_owned(), self.resource),
            ("status".to_owned(), if done { "success" } else { "denied" }.to_owned()),
        ]
        .into();
        attributes.extend(self.actor_email.map(|email| ("actor_email".to_owned(), email)));
        attributes.extend(self.details.into_iter().map(|(name, text)| (name.to_owned(), text)));
        for text in attributes.values_mut() {
            shorten(text);
        }
        Event {
            version: WireVersion,
            id,
            timestamp: now,
            received_at: now,
            received_by: None,
            source: SOURCE.to_owned(),
            event_type: match self.topic {
                Topic::Audit => "audit",
                Topic::Access => "access.change",
            }
            .to_owned(),
            trace_id: context.as_ref().and_then(|context| context.trace_id.to_string().parse().ok()),
            span_id: None,
            parent_span_id: None,
            producer: None,
            producer_seq: None,
            payload: Box::new(Payload {
                namespace: Some(self.namespace.unwrap_or_else(|| PLATFORM_NAMESPACE.to_owned())),
                server: Some(self.server.unwrap_or_else(|| SOURCE.to_owned())),
                team_id: self.team_id,
                human_id: Some(self.actor),
                decision: Some(if done { Decision::Allow } else { Decision::Deny }),
                outcome: Some(if done { Outcome::Ok } else { Outcome::Denied }),
                attributes: attributes.into_iter().collect(),
                ..Payload::default()
            }),
        }
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
}

/// Writes a fact beside the change it tells of.
pub(crate) async fn record(transaction: &mut Transaction, fact: Fact, now: Timestamp) -> Result<(), DatabaseError> {
    let id = EventId::from_uuid(uuid::Uuid::now_v7());
    let event = fact.event(id, now);
    let text = serde_json::to_string(&event).map_err(|source| DatabaseError::Damaged { what: "a fact", source })?;
    sqlx::query("INSERT INTO audit_outbox (id, at, event) VALUES ($1, $2, $3)")
        .bind(id.to_string())
        .bind(now.millis())
        .bind(text)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Hands facts over as a task of the query stage, until stopped. What is left then is handed over after the next start.
pub(crate) fn deliver(database: Database, sink: Arc<dyn AuditSink>, wake: Arc<Notify>, tasks: &Tasks) {
    let shutdown = tasks.shutdown(Stage::Query);
    tasks.spawn(Stage::Query, "audit", async move {
        while !shutdown.is_requested() {
            let pause = match hand_over(&database, &*sink).await {
                Ok(true) => continue,
                Ok(false) => None,
                Err(error) => {
                    tracing::warn!(error = %service_kit::error::Chain(&*error), "facts wait to be handed over");
                    Some(RETRY_EVERY)
                }
            };
            wait(&shutdown, &wake, pause).await;
        }
        Ok(())
    });
}

async fn wait(shutdown: &Shutdown, wake: &Notify, pause: Option<Duration>) {
    let woken = async {
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => wake.notified().await,
        }
    };
    tokio::select! {
        () = woken => {}
        () = shutdown.requested() => {}
    }
}

/// Hands over the oldest facts; `false` when there were none.
async fn hand_over(database: &Database, sink: &dyn AuditSink) -> anyhow::Result<bool> {
    let rows = sqlx::query("SELECT id, event FROM audit_outbox ORDER BY at, id LIMIT $1")
        .bind(BATCH_MAX)
        .fetch_all(database.pool())
        .await?;
    let mut ids: Vec<String> = Vec::with_capacity(rows.len());
    let mut events: Vec<Event> = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(row.try_get("id")?);
        let text: String = row.try_get("event")?;
        match serde_json::from_str(&text) {
            Ok(event) => events.push(event),
            // Left in place it would hold up every later fact.
            Err(error) => tracing::error!(id = ids.last(), %error, "a fact cannot be read back and is dropped"),
        }
    }
    if ids.is_empty() {
        return Ok(false);
    }
    sink.append(events).await?;
    for id in ids {
        sqlx::query("DELETE FROM audit_outbox WHERE id = $1")
            .bind(id)
            .execute(database.pool())
            .await?;
    }
    Ok(true)
}
