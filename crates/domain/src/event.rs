//! The event: one MCP request (or one change worth recording), as it travels and as it is stored.
//!
//! [`Event`] is complete: it has an id, a time, a namespace and a server. What senders post may lack these; it is read as a
//! [`Draft`] and completed by [`Draft::admit`] with what the receiver knows. Wire form, version 1:
//!
//! ```json
//! {"v":1,"id":"0190f1e0-…","timestamp":"2026-11-22T15:04:05.123456789Z","received_at":"…","received_by":"k1",
//!  "source":"payments-gateway","event_type":"mcp.request","trace_id":"…","span_id":"…","producer":"…","producer_seq":7,
//!  "payload":{"server":"payments","namespace":"acme","tool_name":"list_invoices","outcome":"ok","latency_us":1200}}
//! ```
//!
//! The predecessor's envelope is version 0: the same without `v`, `id` and the producer's count, with `latency_ms`.

pub mod columns;
pub mod compact;
mod draft;
pub mod otel;
mod scan;

pub use columns::Payload;
pub use draft::{Draft, EventFault, FaultCode, NamespaceRule, Receipt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text_enum::text_enum;
use crate::{EventId, SpanId, Timestamp, TraceId};

/// Version of the wire form that we write.
pub const WIRE_VERSION: u64 = 1;

/// One request to an MCP server, or one change worth recording, with everything needed to count it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Version of the wire form.
    #[serde(rename = "v", default)]
    pub version: WireVersion,
    /// Identity for counting.
    pub id: EventId,
    /// When the request began.
    pub timestamp: Timestamp,
    /// When ingest took it in.
    pub received_at: Timestamp,
    /// Id of the key it came in with; never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_by: Option<String>,
    /// Who sends, such as `payments-gateway`.
    pub source: String,
    /// What kind of fact this is: `mcp.request` for requests.
    pub event_type: String,
    /// W3C trace the call belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// Span of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<SpanId>,
    /// Span that caused the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<SpanId>,
    /// Process that made the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// That process's own gapless count, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_seq: Option<u64>,
    /// What happened. On the heap: it is a kilobyte, and events are moved often.
    pub payload: Box<Payload>,
}

impl Event {
    /// Namespace; ingest has made sure there is one.
    pub fn namespace(&self) -> &str {
        self.payload.namespace.as_deref().unwrap_or_default()
    }

    /// Server; ingest has made sure there is one.
    pub fn server(&self) -> &str {
        self.payload.server.as_deref().unwrap_or_default()
    }
}

/// Version of the wire form: written as [`WIRE_VERSION`]; anything later is refused when read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WireVersion;

impl Serialize for WireVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(WIRE_VERSION)
    }
}

impl<'de> Deserialize<'de> for WireVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0..=WIRE_VERSION => Ok(Self),
            later => Err(serde::de::Error::custom(format!(
                "version {later} is newer than {WIRE_VERSION}, which this program knows"
            ))),
        }
    }
}

text_enum! {
    /// How a request ended.
    Outcome {
        /// Answered with a result.
        Ok = "ok",
        /// Refused by the gateway.
        Denied = "denied",
        /// Answered with a result whose `isError` is true.
        ToolError = "tool_error",
        /// Answered with a JSON-RPC error.
        RpcError = "rpc_error",
        /// Not answered as MCP: no connection, HTTP failure, a stream that broke off.
        TransportError = "transport_error",
        /// Given up by the client.
        Cancelled = "cancelled",
        /// Answered with a question to the client.
        InputRequired = "input_required",
        /// Answered with a task to be polled.
        Task = "task",
        /// A modern client asking a legacy server whether it is modern: refused as it should be.
        EraProbe = "era_probe",
    }
}

impl Outcome {
    /// Whether the request failed for a reason other than policy, the caller's mind or probing.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::ToolError | Self::RpcError | Self::TransportError)
    }
}

text_enum! {
    /// What the policy said to a request.
    Decision {
        /// Go on.
        Allow = "allow",
        /// Refused.
        Deny = "deny",
    }
}

text_enum! {
    /// How sure we are who called.
    Identity {
        /// Proven by a credential.
        Verified = "verified",
        /// Claimed in a header.
        Asserted = "asserted",
        /// Nobody was named.
        None = "none",
    }
}

text_enum! {
    /// Which of the two incompatible MCP wire forms a request spoke.
    Era {
        /// Revisions up to 2025-11-25: handshake and sessions.
        Legacy = "legacy",
        /// Revision 2026-07-28: every request stands alone.
        Modern = "modern",
    }
}

text_enum! {
    /// How an answer travelled.
    ResponseKind {
        /// One JSON document.
        Json = "json",
        /// Server-sent events.
        Sse = "sse",
        /// Anything else with a body.
        Other = "other",
        /// No body.
        Empty = "empty",
    }
}

#[cfg(test)]
mod tests;
