//! What senders post: an event that may lack id, time, namespace and server, and may be wrong.
//!
//! Reading is lenient about form (the predecessor's envelopes are accepted) and strict about content: a value of the wrong type is a
//! fault that names the field, and nothing is guessed.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::columns::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, COLUMNS, TEXT_BYTES_MAX, Value};
use super::{Decision, Event, Outcome, Payload, WireVersion};
use crate::json_text::JsonText;
use crate::text_enum::text_enum;
use crate::{EventId, Namespace, SpanId, Timestamp, TraceId};

/// Event types and the text before it: everything a request is recorded as.
pub(super) const REQUEST_TYPE: &str = "mcp.request";
/// What sources of gateways end with, after the server's name.
const GATEWAY_SUFFIX: &str = "-gateway";

text_enum! {
    /// Why an event was refused. The words are part of the API.
    FaultCode {
        /// Not JSON.
        InvalidJson = "invalid_json",
        /// `source`, `event_type` or `payload` is missing or blank.
        MissingFields = "missing_fields",
        /// A field has the wrong type or a value outside its set.
        InvalidField = "invalid_field",
        /// A text or the attributes exceed their bound.
        TooLarge = "too_large",
        /// The time lies too far in the future or before the retention.
        TimestampOutOfRange = "timestamp_out_of_range",
        /// The event names another namespace (or server) than the key it came with.
        NamespaceMismatch = "namespace_mismatch",
    }
}

/// An event that cannot be taken in, with a sentence for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EventFault {
    /// For programs.
    pub code: FaultCode,
    /// For people: what, where, and what would be right.
    pub message: String,
}

impl EventFault {
    fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// An event as posted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draft {
    pub(super) id: Option<EventId>,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) source: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) span_id: Option<SpanId>,
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) producer: Option<String>,
    pub(super) producer_seq: Option<u64>,
    pub(super) payload: Option<Box<Payload>>,
}

/// Which namespaces (and servers) a sender may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceRule {
    /// One namespace; absent is filled in, another is refused. With a server, the same holds for the server.
    Only(Namespace, Option<String>),
    /// Any of these namespaces, which the event must name.
    OneOf(Box<[Namespace]>),
    /// Any namespace, which the event must name.
    Any,
}

/// What the receiver knows and the draft may lack.
#[derive(Debug, Clone)]
pub struct Receipt<'a> {
    /// When the request came in.
    pub now: Timestamp,
    /// Id of the key it came with.
    pub key: Option<&'a str>,
    /// What the key may write.
    pub rule: &'a NamespaceRule,
    /// Trace of the request that carried the event, used when the event names none.
    pub trace_id: Option<TraceId>,
    /// Events older than this are refused.
    pub age_max: Duration,
    /// Events further ahead than this are refused.
    pub ahead_max: Duration,
}

impl Draft {
    /// Reads one JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, EventFault> {
        if let Some(draft) = super::scan::read(json) {
            return Ok(draft);
        }
        serde_json::from_slice(json).map_err(|error| {
            let text = error.to_string();
            match error.classify() {
                serde_json::error::Category::Data => EventFault::new(FaultCode::InvalidField, without_position(&text)),
                _ => EventFault::new(FaultCode::InvalidJson, format!("the event is not valid JSON: {text}")),
            }
        })
    }

    /// Completes and checks the event. `fresh` makes an id when the sender gave none.
    pub fn admit(self, receipt: &Receipt<'_>, fresh: impl FnOnce() -> EventId) -> Result<Event, EventFault> {
        let mut payload = self.payload.ok_or_else(|| missing("payload"))?;
        let source = named(self.source, "source")?;
        let event_type = named(self.event_type, "event_type")?;
        let timestamp = self.timestamp.unwrap_or(receipt.now);
        check_time(timestamp, receipt)?;
        place(&mut payload, &source, receipt.rule)?;
        if event_type == REQUEST_TYPE {
            derive(&mut payload);
        }
        check_sizes(&payload)?;
        Ok(Event {
            version: WireVersion,
            id: self.id.unwrap_or_else(fresh),
            timestamp,
            received_at: receipt.now,
            received_by: receipt.key.map(str::to_owned),
            source,
            event_type,
            trace_id: self.trace_id.or(receipt.trace_id),
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            producer: self.producer,
            producer_seq: self.producer_seq,
            payload,
        })
    }
}

/// Fills in namespace and server, or refuses those of others.
fn place(payload: &mut Payload, source: &str, rule: &NamespaceRule) -> Result<(), EventFault> {
    if let NamespaceRule::Only(namespace, server) = rule {
        claim(&mut payload.namespace, namespace.as_str(), "namespace")?;
        if let Some(server) = server {
            claim(&mut payload.server, server, "server")?;
        }
    }
    if let (NamespaceRule::OneOf(own), Some(claimed)) = (rule, &payload.namespace)
        && !own.iter().any(|own| own.as_str() == claimed)
    {
        return Err(EventFault::new(
            FaultCode::NamespaceMismatch,
            "payload.namespace is none of those this token may write; name one of them or use another token",
        ));
    }
    if payload.namespace.is_none() {
        return Err(EventFault::new(
            FaultCode::MissingFields,
            "payload.namespace is missing; this key is not bound to one namespace, so each event must name its own",
        ));
    }
    if payload.server.is_none() {
        let server = source.strip_suffix(GATEWAY_SUFFIX).unwrap_or(source);
        payload.server = Some(server.to_owned());
    }
    Ok(())
}

fn claim(field: &mut Option<String>, own: &str, name: &str) -> Result<(), EventFault> {
    match field {
        Some(claimed) if claimed != own => Err(EventFault::new(
            FaultCode::NamespaceMismatch,
            format!("payload.{name} is not the {name} of this key; leave it out or use the key of that {name}"),
        )),
        _ => {
            *field = Some(own.to_owned());
            Ok(())
        }
    }
}

/// What older senders leave to be read between the lines: where the name of a call belongs, and how the call ended.
fn derive(payload: &mut Payload) {
    match payload.rpc_method.as_deref() {
        Some("tools/call") | None => {}
        // The predecessor called every `params.name` a tool.
        Some("prompts/get") => payload.prompt_name = payload.prompt_name.take().or(payload.tool_name.take()),
        Some(_) => {
            if let Some(name) = payload.tool_name.take() {
                payload.attributes.insert("tool_name".to_owned(), name);
            }
        }
    }
    if payload.outcome.is_none() {
        payload.outcome = match (payload.decision, payload.status) {
            (Some(Decision::Deny), _) => Some(Outcome::Denied),
            (_, Some(400..)) => Some(Outcome::TransportError),
            (Some(Decision::Allow), _) | (_, Some(_)) => Some(Outcome::Ok),
            (None, None) => None,
        };
    }
}

fn check_time(timestamp: Timestamp, receipt: &Receipt<'_>) -> Result<(), EventFault> {
    let out_of_range = |why: String| EventFault::new(FaultCode::TimestampOutOfRange, format!("timestamp {timestamp} {why}"));
    if timestamp.since(receipt.now) > receipt.ahead_max {
        let seconds = receipt.ahead_max.as_secs();
        return Err(out_of_range(format!(
            "is more than {seconds} s ahead of this server's clock ({}); check the sender's clock",
            receipt.now
        )));
    }
    if receipt.now.since(timestamp) > receipt.age_max {
        let days = receipt.age_max.as_secs() / 86_400;
        return Err(out_of_range(format!("is older than the {days} days that events are kept")));
    }
    Ok(())
}

fn check_sizes(payload: &Payload) -> Result<(), EventFault> {
    let too_large = |name: &str, bytes: usize, max: usize| {
        Err(EventFault::new(
            FaultCode::TooLarge,
            format!("payload.{name} has {bytes} bytes, at most {max} are kept; shorten it"),
        ))
    };
    let mut long = None;
    payload.each(|number, value| {
        if let Value::Text(text) = value
            && text.len() > COLUMNS[number].bytes_max
        {
            long = long.or(Some((&COLUMNS[number], text.len())));
        }
    });
    if let Some((column, bytes)) = long {
        return too_large(column.name, bytes, column.bytes_max);
    }
    if payload.attributes.len() > ATTRIBUTES_MAX {
        let count = payload.attributes.len();
        return Err(EventFault::new(
            FaultCode::TooLarge,
            format!("payload has {count} keys that are no columns, at most {ATTRIBUTES_MAX} are kept"),
        ));
    }
    for (name, value) in &payload.attributes {
        if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
            return too_large("attributes: a name", name.len(), ATTRIBUTE_NAME_BYTES_MAX);
        }
        if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
            return too_large(name, value.len(), ATTRIBUTE_VALUE_BYTES_MAX);
        }
    }
    Ok(())
}

fn missing(name: &str) -> EventFault {
    EventFault::new(
        FaultCode::MissingFields,
        format!("{name} is missing or blank; an event needs source, event_type and payload"),
    )
}

fn named(text: Option<String>, name: &'static str) -> Result<String, EventFault> {
    let text = text.filter(|text| !text.trim().is_empty()).ok_or_else(|| missing(name))?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(EventFault::new(
            FaultCode::TooLarge,
            format!(
                "{name} has {} bytes, at most {TEXT_BYTES_MAX} are kept; shorten it",
                text.len()
            ),
        ));
    }
    Ok(text)
}

/// Without the place that `serde_json` appends (twice, when a field's fault is wrapped): the field's name says it better.
fn without_position(text: &str) -> &str {
    text.split(" at line ").next().unwrap_or(text)
}

struct DraftVisitor;

impl<'de> Deserialize<'de> for Draft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DraftVisitor)
    }
}

impl<'de> Visitor<'de> for DraftVisitor {
    type Value = Draft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: an object with source, event_type and payload")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Draft, M::Error> {
        let mut draft = Draft::default();
        let mut others = Payload::default();
        while let Some(key) = map.next_key::<JsonText<'de>>()? {
            match &*key {
                "v" => drop(value::<M, Option<WireVersion>>(&mut map, &key)?),
                "id" => set(&mut draft.id, parsed(&mut map, &key)?, &key)?,
                "timestamp" => set(&mut draft.timestamp, time(&mut map, &key)?, &key)?,
                "source" => set(&mut draft.source, value(&mut map, &key)?, &key)?,
                "event_type" => set(&mut draft.event_type, value(&mut map, &key)?, &key)?,
                "trace_id" => draft.trace_id = hex_or_keep(&mut map, &key, &mut others)?,
                "span_id" => draft.span_id = hex_or_keep(&mut map, &key, &mut others)?,
                "parent_span_id" => draft.parent_span_id = hex_or_keep(&mut map, &key, &mut others)?,
                "producer" => set(&mut draft.producer, value(&mut map, &key)?, &key)?,
                "producer_seq" => set(&mut draft.producer_seq, value(&mut map, &key)?, &key)?,
                "payload" => set(
                    &mut draft.payload,
                    map.next_value::<Option<Box<Payload>>>()
                        .map_err(|error| named_payload(&error))?,
                    &key,
                )?,
                // Ours to say, so a sender's word on them is not kept.
                "received_at" | "received_by" => drop(map.next_value::<serde::de::IgnoredAny>()?),
                other => others.keep(other, value(&mut map, &key)?),
            }
        }
        if let Some(payload) = &mut draft.payload {
            payload.attributes.append(&mut others.attributes);
        }
        Ok(draft)
    }
}

fn named_payload<E: serde::de::Error>(error: &E) -> E {
    let text = error.to_string();
    if text.starts_with("payload") {
        E::custom(text)
    } else {
        E::custom(format!("payload: {text}"))
    }
}

fn set<T, E: serde::de::Error>(slot: &mut Option<T>, value: Option<T>, key: &str) -> Result<(), E> {
    if slot.is_some() {
        return Err(E::custom(format!("{key} is given twice")));
    }
    *slot = value;
    Ok(())
}

fn value<'de, M: MapAccess<'de>, T: Deserialize<'de>>(map: &mut M, key: &str) -> Result<T, M::Error> {
    map.next_value().map_err(|error| M::Error::custom(format!("{key}: {error}")))
}

fn parsed<'de, M: MapAccess<'de>, T: std::str::FromStr<Err: fmt::Display>>(
    map: &mut M,
    key: &str,
) -> Result<Option<T>, M::Error> {
    let text: Option<JsonText<'de>> = value(map, key)?;
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| {
        text.parse()
            .map_err(|error| M::Error::custom(format!("{key}: {error}, got {:?}", &*text)))
    })
    .transpose()
}

fn time<'de, M: MapAccess<'de>>(map: &mut M, key: &str) -> Result<Option<Timestamp>, M::Error> {
    let text: Option<JsonText<'de>> = value(map, key)?;
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| Timestamp::parse(&text).map_err(|error| M::Error::custom(format!("{key}: {error}, got {:?}", &*text))))
        .transpose()
}

/// Trace ids of other forms are kept as attributes: they are worth less than the event they stand on.
fn hex_or_keep<'de, M: MapAccess<'de>, T: std::str::FromStr>(
    map: &mut M,
    key: &str,
    others: &mut Payload,
) -> Result<Option<T>, M::Error> {
    let text: Option<JsonText<'de>> = value(map, key)?;
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let id = text.parse().ok();
    if id.is_none() {
        others.keep(key, serde_json::Value::String(text.into_string()));
    }
    Ok(id)
}
