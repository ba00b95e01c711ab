//! Spans and log records of OpenTelemetry as events, for servers that are instrumented and need no gateway to be counted.
//!
//! What counts is a span (or record) with the attribute `mcp.method.name`; anything else a program reports is none of ours. Spans of
//! kind client are passed over, because the server's own span tells of the same call. Names are those of [`COLUMNS`]; resource
//! attributes tell server, namespace and cluster, and the span's own attributes the rest. Attributes with arguments, results or messages
//! are never kept.

use std::borrow::Cow;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::columns::{COLUMNS, Column, Kind, Payload, Value};
use super::draft::{Draft, EventFault, REQUEST_TYPE};
use super::{EventId, FaultCode, Outcome};
use crate::{SpanId, Timestamp, TraceId};

/// The attribute without which a span is not of MCP.
pub const METHOD: &str = "mcp.method.name";

/// Attributes that hold what was said to a tool or by it, and all whose names begin like these and a dot.
const CONTENT: [&str; 7] = [
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.prompt.variable",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
];

/// What the event is called where the program does not name itself.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute<'a> {
    /// Text, or anything but a whole number as text.
    Text(Cow<'a, str>),
    /// A whole number.
    Whole(i64),
}

/// A span or a log record, apart from its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signal {
    /// The trace it belongs to.
    pub trace_id: Option<TraceId>,
    /// The span, or the span in which the record was made.
    pub span_id: Option<SpanId>,
    /// The span that caused it.
    pub parent_span_id: Option<SpanId>,
    /// When it began, or when the record was made.
    pub start: Option<Timestamp>,
    /// How long it took; records do not tell.
    pub duration: Option<Duration>,
    /// Whether its status is an error.
    pub failed: bool,
}

impl Signal {
    /// The event it tells of; `None` when it is not of MCP.
    ///
    /// A program sends a span again when it got no answer, so the id follows from trace and span.
    pub fn draft<'a>(
        &self,
        resource: impl Iterator<Item = (&'a str, Attribute<'a>)>,
        attributes: impl Iterator<Item = (&'a str, Attribute<'a>)>,
    ) -> Result<Option<Draft>, EventFault> {
        let mut payload = Box::<Payload>::default();
        let mut producer = None;
        for (name, value) in resource {
            match Column::of_attribute(name) {
                Some(column) => set(&mut payload, column, name, &value)?,
                None if name == "service.instance.id" => producer = Some(value.into_text()),
                None => {}
            }
        }
        for (name, value) in attributes {
            match Column::of_attribute(name) {
                Some(column) => set(&mut payload, column, name, &value)?,
                None if is_content(name) => {}
                None => drop(payload.attributes.insert(name.to_owned(), value.into_text())),
            }
        }
        if payload.rpc_method.is_none() {
            return Ok(None);
        }
        payload.session_id = payload.session_id.as_deref().map(hashed);
        payload.latency_us = self
            .duration
            .map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        payload.outcome = Some(self.outcome(&payload));
        let source = payload.server.clone().unwrap_or_else(|| UNKNOWN_SERVICE.to_owned());
        Ok(Some(Draft {
            id: self.id(),
            timestamp: self.start,
            source: Some(source),
            event_type: Some(REQUEST_TYPE.to_owned()),
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            producer,
            producer_seq: None,
            payload: Some(payload),
        }))
    }

    fn outcome(&self, payload: &Payload) -> Outcome {
        match (payload.error_type.as_deref(), payload.rpc_code) {
            (Some("tool_error"), _) => Outcome::ToolError,
            (_, Some(code)) if code != 0 => Outcome::RpcError,
            (Some(_), _) => Outcome::TransportError,
            (None, _) if self.failed => Outcome::TransportError,
            (None, _) => Outcome::Ok,
        }
    }

    /// Version 7 with the time of the span, so that stores look for repeats where they keep what is of that time.
    fn id(&self) -> Option<EventId> {
        let (trace, span, start) = (self.trace_id?, self.span_id?, self.start?);
        let hash = Sha256::new()
            .chain_update(trace.as_bytes())
            .chain_update(span.as_bytes())
            .chain_update(start.nanos().to_le_bytes())
            .finalize();
        let (mut bytes, millis) = ([0; 16], u64::try_from(start.millis()).ok()?.to_be_bytes());
        bytes[..6].copy_from_slice(&millis[2..]);
        bytes[6..].copy_from_slice(&hash[..10]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Some(EventId::from_bytes(bytes))
    }
}

impl Attribute<'_> {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::Whole(number) => number.to_string(),
        }
    }
}

impl Column {
    /// The column that an attribute is kept in. Durations are metrics there, and not read from attributes.
    fn of_attribute(name: &str) -> Option<&'static Self> {
        let is_it = |column: &&Self| !column.otel.is_empty() && column.otel == name && !name.ends_with(".duration");
        COLUMNS.iter().find(is_it)
    }
}

/// Sets a column; a number may come as text, as the conventions have it for codes of JSON-RPC, and a text as number.
fn set(payload: &mut Payload, column: &Column, name: &str, value: &Attribute<'_>) -> Result<(), EventFault> {
    let number = match value {
        Attribute::Whole(number) => Some(*number),
        Attribute::Text(text) => text.parse().ok(),
    };
    let text = match value {
        Attribute::Whole(number) => Cow::Owned(number.to_string()),
        Attribute::Text(text) => Cow::Borrowed(text.as_ref()),
    };
    let value = match column.kind {
        Kind::Name | Kind::Text if text.is_empty() => return Ok(()),
        Kind::Name | Kind::Text => Some(Value::Text(&text)),
        Kind::Count => number.and_then(|number| u64::try_from(number).ok()).map(Value::Count),
        Kind::Code => number.map(Value::Code),
    };
    if value.is_some_and(|value| (column.write)(payload, value)) {
        return Ok(());
    }
    Err(EventFault {
        code: FaultCode::InvalidField,
        message: format!("attribute {name}: `{text}` is not what {} holds", column.name),
    })
}

fn is_content(name: &str) -> bool {
    CONTENT.iter().any(|content| {
        name.strip_prefix(content)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// A session's id opens the session to whoever knows it, so only this is kept.
fn hashed(session: &str) -> String {
    hex::encode(&Sha256::digest(session.as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Attribute<'_> {
        Attribute::Text(value.into())
    }

    fn signal() -> Signal {
        Signal {
            trace_id: TraceId::from_bytes([1; 16]),
            span_id: SpanId::from_bytes([2; 8]),
            parent_span_id: None,
            start: Some(Timestamp::from_millis(1_795_000_000_123)),
            duration: Some(Duration::from_micros(1_500)),
            failed: false,
        }
    }

    fn draft(signal: &Signal, attributes: &[(&'static str, Attribute<'static>)]) -> Result<Option<Draft>, EventFault> {
        let resource = [
            ("service.name", text("payments")),
            ("service.instance.id", text("p-1")),
            ("telemetry.sdk.language", text("rust")),
        ];
        signal.draft(resource.into_iter(), attributes.iter().cloned())
    }

    fn payload(attributes: &[(&'static str, Attribute<'static>)]) -> Payload {
        *draft(&signal(), attributes).unwrap().unwrap().payload.unwrap()
    }

    #[test]
    fn a_tool_call_fills_the_columns_of_its_attributes() {
        let draft = draft(
            &signal(),
            &[
                (METHOD, text("tools/call")),
                ("gen_ai.tool.name", text("refund")),
                ("mcp.session.id", text("secret")),
                ("jsonrpc.request.id", Attribute::Whole(7)),
                ("gen_ai.tool.call.arguments", text("{\"card\":1}")),
                ("gen_ai.prompt.variable.name", text("Ada")),
                ("network.transport", text("tcp")),
            ],
        );
        let draft = draft.unwrap().unwrap();
        assert_eq!(draft.id.unwrap().made_at_millis(), Some(1_795_000_000_123));
        assert_eq!(
            (draft.source.as_deref(), draft.producer.as_deref()),
            (Some("payments"), Some("p-1"))
        );
        let payload = draft.payload.unwrap();
        assert_eq!(payload.tool_name.as_deref(), Some("refund"));
        assert_eq!((payload.latency_us, payload.outcome), (Some(1_500), Some(Outcome::Ok)));
        assert_eq!(payload.request_id.as_deref(), Some("7"));
        assert_eq!(payload.session_id.as_deref().map(str::len), Some(32));
        let kept: Vec<_> = payload.attributes.keys().map(String::as_str).collect();
        assert_eq!(kept, ["network.transport"], "content and resource are not kept");
    }

    #[test]
    fn what_is_not_of_mcp_is_no_event() {
        assert_eq!(draft(&signal(), &[("http.request.method", text("GET"))]), Ok(None));
    }

    #[test]
    fn outcomes_follow_from_code_type_and_status() {
        let call = (METHOD, text("tools/call"));
        for (attributes, outcome) in [
            (vec![("error.type", text("tool_error"))], Outcome::ToolError),
            (
                vec![("error.type", text("-32602")), ("rpc.response.status_code", text("-32602"))],
                Outcome::RpcError,
            ),
            (vec![("error.type", text("timeout"))], Outcome::TransportError),
            (vec![], Outcome::Ok),
        ] {
            let all: Vec<_> = [vec![call.clone()], attributes].concat();
            assert_eq!(payload(&all).outcome, Some(outcome), "{all:?}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_names_its_attribute() {
        let fault = draft(
            &signal(),
            &[(METHOD, text("ping")), ("http.response.status_code", text("fine"))],
        );
        let fault = fault.unwrap_err();
        assert_eq!(fault.code, FaultCode::InvalidField);
        assert_eq!(
            fault.message,
            "attribute http.response.status_code: `fine` is not what status holds"
        );
    }

    #[test]
    fn the_same_span_has_the_same_id_and_another_has_another() {
        let other = Signal {
            span_id: SpanId::from_bytes([3; 8]),
            ..signal()
        };
        assert_eq!(signal().id(), signal().id());
        assert_ne!(signal().id(), other.id());
        assert_eq!(Signal::default().id(), None, "without a span the receiver makes one");
    }
}
