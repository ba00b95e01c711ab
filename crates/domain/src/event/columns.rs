//! The columns of an event's payload, named once: the struct, its wire form, and the table that stores build from.
//!
//! One `columns!` call below is the only list. Everything else that needs the columns (Arrow schema, `ClickHouse` DDL, filters,
//! OpenTelemetry names, documentation) walks [`COLUMNS`].

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::json_text::JsonText;

use super::{Decision, Era, Identity, Outcome, ResponseKind};

/// Longest text of a column, in bytes, where the column does not say otherwise.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Longest text of a column that holds a path or URI, in bytes.
pub const LONG_TEXT_BYTES_MAX: usize = 4_096;
/// Most attributes of one event.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest name of an attribute, in bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 128;
/// Longest value of an attribute, in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 4_096;

/// What a column holds and how a store should keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text with few distinct values: names of servers, tools, methods, people. Dictionary-encoded.
    Name,
    /// Text with many distinct values: paths, session and request ids.
    Text,
    /// A whole number, at most `u64`.
    Count,
    /// A whole number with sign: JSON-RPC codes.
    Code,
}

/// The value of one column of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// The sender did not tell.
    Absent,
    /// Of a [`Kind::Name`] or [`Kind::Text`] column.
    Text(&'a str),
    /// Of a [`Kind::Count`] column.
    Count(u64),
    /// Of a [`Kind::Code`] column.
    Code(i64),
}

/// One column of the payload.
pub struct Column {
    /// Name on the wire, in the store and in SQL.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Longest text, in bytes; 0 for numbers.
    pub bytes_max: usize,
    /// The OpenTelemetry attribute with the same meaning; empty where the conventions have none.
    pub otel: &'static str,
    /// Reads the column.
    pub read: for<'a> fn(&'a Payload) -> Value<'a>,
    /// Writes the column; `false` when the value is not of the column's kind or not of its set of words.
    pub write: fn(&mut Payload, Value<'_>) -> bool,
}

impl Column {
    /// The column of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        COLUMNS.iter().find(|column| column.name == name)
    }
}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A type that a column may have.
trait Field: Sized {
    fn value(&self) -> Value<'_>;
    fn from_value(value: Value<'_>) -> Option<Self>;
    /// Reads JSON; an empty text counts as absent, since senders in Go write it for "not known".
    fn read<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Option<Self>, M::Error>;
}

impl Field for String {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
    fn from_value(value: Value<'_>) -> Option<Self> {
        if let Value::Text(text) = value {
            Some(text.to_owned())
        } else {
            None
        }
    }
    fn read<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Option<Self>, M::Error> {
        Ok(map.next_value::<Option<Self>>()?.filter(|text| !text.is_empty()))
    }
}

macro_rules! number_field {
    ($($type:ty => $variant:ident as $wide:ty),+) => {$(
        impl Field for $type {
            fn value(&self) -> Value<'_> {
                Value::$variant(<$wide>::from(*self))
            }
            fn from_value(value: Value<'_>) -> Option<Self> {
                if let Value::$variant(number) = value { number.try_into().ok() } else { None }
            }
            fn read<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Option<Self>, M::Error> {
                map.next_value()
            }
        }
    )+};
}
number_field!(u16 => Count as u64, u32 => Count as u64, u64 => Count as u64, i64 => Code as i64);

macro_rules! word_field {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn value(&self) -> Value<'_> {
                Value::Text(self.as_str())
            }
            fn from_value(value: Value<'_>) -> Option<Self> {
                if let Value::Text(text) = value { Self::parse(text) } else { None }
            }
            fn read<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Option<Self>, M::Error> {
                match map.next_value::<Option<JsonText<'de>>>()? {
                    Some(text) if !text.is_empty() => text.parse().map(Some).map_err(M::Error::custom),
                    _ => Ok(None),
                }
            }
        }
    )+};
}
word_field!(Decision, Era, Identity, Outcome, ResponseKind);

macro_rules! columns {
    ($($(#[$meta:meta])* $name:ident: $type:ty = $kind:ident $bytes_max:expr, $otel:literal;)+) => {
        /// What happened, in typed columns, with whatever else the sender told in [`Payload::attributes`].
        ///
        /// On the wire it is a JSON object: columns as keys, absent ones left out, the rest under `attributes`. When reading,
        /// a key that is no column becomes an attribute, so that nothing a sender tells is dropped silently.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Payload {
            $($(#[$meta])* pub $name: Option<$type>,)+
            /// What the sender told beyond the columns; values that are not text are kept as JSON.
            pub attributes: BTreeMap<String, String>,
        }

        /// Names of all columns.
        pub(super) const NAMES: &[&str] = &[$(stringify!($name),)+];

        impl Payload {
            /// Shows each column that is there, with its number: the place in [`COLUMNS`].
            pub(super) fn each<'a>(&'a self, mut see: impl FnMut(usize, Value<'a>)) {
                let mut number = 0;
                $(if let Some(value) = &self.$name {
                    see(number, Field::value(value));
                }
                number += 1;)+
                let _all: usize = number;
            }
        }

        /// Every column, in the order in which stores keep them. A column's place is its number in logs on disk
        /// ([`compact`](super::compact)), so a new one goes to the end.
        pub static COLUMNS: &[Column] = &[$(Column {
            name: stringify!($name),
            kind: Kind::$kind,
            bytes_max: $bytes_max,
            otel: $otel,
            read: |payload| payload.$name.as_ref().map_or(Value::Absent, Field::value),
            write: |payload, value| {
                payload.$name = <$type as Field>::from_value(value);
                value == Value::Absent || payload.$name.is_some()
            },
        },)+];

        impl Serialize for Payload {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(if let Some(value) = &self.$name {
                    map.serialize_entry(stringify!($name), value)?;
                })+
                if !self.attributes.is_empty() {
                    map.serialize_entry("attributes", &self.attributes)?;
                }
                map.end()
            }
        }

        impl<'de> Visitor<'de> for PayloadVisitor {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Payload, M::Error> {
                let mut payload = Payload::default();
                while let Some(key) = map.next_key::<JsonText<'de>>()? {
                    match &*key {
                        $(stringify!($name) => {
                            if payload.$name.is_some() {
                                return Err(given_twice(&key));
                            }
                            payload.$name = Field::read(&mut map).map_err(|error| in_field(&key, &error))?;
                        })+
                        _ => payload.read_other(&key, &mut map)?,
                    }
                }
                Ok(payload)
            }
        }
    };
}

columns! {
    /// Name of the MCP server that was called.
    server: String = Name TEXT_BYTES_MAX, "service.name";
    /// Tenant namespace of the server; the key's namespace decides, not the sender.
    namespace: String = Name TEXT_BYTES_MAX, "service.namespace";
    /// Team that owns the server.
    team_id: String = Name TEXT_BYTES_MAX, "";
    /// Cluster the gateway runs in.
    cluster: String = Name TEXT_BYTES_MAX, "k8s.cluster.name";
    /// Person on whose behalf the call was made.
    human_id: String = Name TEXT_BYTES_MAX, "user.id";
    /// Agent that made the call.
    agent_id: String = Name TEXT_BYTES_MAX, "gen_ai.agent.id";
    /// Team of the caller.
    subject_team_id: String = Name TEXT_BYTES_MAX, "";
    /// Session of the caller, hashed when it is a credential.
    session_id: String = Text TEXT_BYTES_MAX, "mcp.session.id";
    /// How sure we are who called.
    identity: Identity = Name 16, "";
    /// HTTP method.
    method: String = Name 32, "http.request.method";
    /// Path of the request as the client sent it, without query.
    path: String = Name LONG_TEXT_BYTES_MAX, "url.path";
    /// HTTP status returned to the client.
    status: u16 = Count 0, "http.response.status_code";
    /// JSON-RPC method, such as `tools/call`.
    rpc_method: String = Name TEXT_BYTES_MAX, "mcp.method.name";
    /// Tool, set for `tools/call` only.
    tool_name: String = Name TEXT_BYTES_MAX, "gen_ai.tool.name";
    /// Prompt, set for `prompts/get` only.
    prompt_name: String = Name TEXT_BYTES_MAX, "gen_ai.prompt.name";
    /// Resource that was read or subscribed to.
    resource_uri: String = Text LONG_TEXT_BYTES_MAX, "mcp.resource.uri";
    /// How the request ended.
    outcome: Outcome = Name 32, "";
    /// JSON-RPC error code of the answer.
    rpc_code: i64 = Code 0, "rpc.response.status_code";
    /// Class of the error, such as `tool_error` or `timeout`.
    error_type: String = Name TEXT_BYTES_MAX, "error.type";
    /// What the policy said.
    decision: Decision = Name 16, "";
    /// Why it said so: a reason code.
    reason: String = Name TEXT_BYTES_MAX, "";
    /// Schema version of the policy document.
    policy_version: String = Name TEXT_BYTES_MAX, "";
    /// Revision of the policy document, `sha256:` and hex.
    policy_revision: String = Name TEXT_BYTES_MAX, "";
    /// Grant that decided.
    matched_grant: String = Name TEXT_BYTES_MAX, "";
    /// Namespace of the grant that decided.
    matched_grant_namespace: String = Name TEXT_BYTES_MAX, "";
    /// Session object that decided.
    matched_session: String = Name TEXT_BYTES_MAX, "";
    /// Namespace of the session object that decided.
    matched_session_namespace: String = Name TEXT_BYTES_MAX, "";
    /// Trust the tool asks for.
    required_trust: String = Name 64, "";
    /// Side effect the tool has.
    required_side_effect: String = Name 64, "";
    /// Risk the tool is rated with.
    risk_level: String = Name 64, "";
    /// Trust the grant allows at most.
    admin_trust: String = Name 64, "";
    /// Trust the person consented to.
    consented_trust: String = Name 64, "";
    /// Trust that counted.
    effective_trust: String = Name 64, "";
    /// From the first byte of the request to the last byte of the answer, in microseconds.
    latency_us: u64 = Count 0, "mcp.server.operation.duration";
    /// The part of it spent waiting for the server, in microseconds.
    upstream_us: u64 = Count 0, "mcp.client.operation.duration";
    /// From the first byte of the request to the first byte of the answer, in microseconds.
    ttfb_us: u64 = Count 0, "";
    /// Bytes of the request's body.
    bytes_in: u64 = Count 0, "http.request.body.size";
    /// Bytes of the answer's body.
    bytes_out: u64 = Count 0, "http.response.body.size";
    /// MCP protocol revision of the request.
    protocol_version: String = Name 64, "mcp.protocol.version";
    /// Which of the two incompatible wire forms the request spoke.
    era: Era = Name 16, "";
    /// Name the client gave itself.
    client_name: String = Name TEXT_BYTES_MAX, "user_agent.name";
    /// Version the client gave itself.
    client_version: String = Name TEXT_BYTES_MAX, "user_agent.version";
    /// How the answer travelled.
    response_kind: ResponseKind = Name 16, "";
    /// Events in the answer's stream.
    sse_events: u32 = Count 0, "";
    /// Progress notifications in the answer's stream.
    progress_count: u32 = Count 0, "";
    /// Hash of the tool's definition as last listed.
    tool_schema_hash: String = Name TEXT_BYTES_MAX, "";
    /// JSON-RPC id of the request, as JSON; repeats across clients.
    request_id: String = Text TEXT_BYTES_MAX, "jsonrpc.request.id";
}

struct PayloadVisitor;

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PayloadVisitor)
    }
}

impl Payload {
    /// A key that is no column: the predecessor's milliseconds, our own `attributes`, or something to keep as it is.
    fn read_other<'de, M: MapAccess<'de>>(&mut self, key: &str, map: &mut M) -> Result<(), M::Error> {
        match key {
            "latency_ms" => {
                let millis: Option<f64> = map.next_value().map_err(|error| in_field(key, &error))?;
                if self.latency_us.is_none() {
                    self.latency_us = millis
                        .map(|millis| {
                            micros_of(millis).ok_or_else(|| in_field::<M::Error>(key, &"expected milliseconds, not negative"))
                        })
                        .transpose()?;
                }
                Ok(())
            }
            "attributes" => {
                let attributes: Option<BTreeMap<String, serde_json::Value>> =
                    map.next_value().map_err(|error| in_field(key, &error))?;
                for (name, value) in attributes.into_iter().flatten() {
                    self.keep(&name, value);
                }
                Ok(())
            }
            _ => {
                let value = map.next_value().map_err(|error| in_field(key, &error))?;
                self.keep(key, value);
                Ok(())
            }
        }
    }

    /// Keeps what is no column as an attribute; `null` says nothing and is left out.
    pub(super) fn keep(&mut self, name: &str, value: serde_json::Value) {
        let text = match value {
            serde_json::Value::Null => return,
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        self.attributes.insert(name.to_owned(), text);
    }
}

fn micros_of(millis: f64) -> Option<u64> {
    let micros = millis * 1_000.0;
    // The bound keeps the conversion exact to the microsecond and is 285 years long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within 0 and 2^53"
    )]
    let whole = (0.0..9_007_199_254_740_992.0)
        .contains(&micros)
        .then(|| micros.round() as u64);
    whole
}

fn given_twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format!("payload.{key} is given twice"))
}

fn in_field<E: serde::de::Error>(key: &str, error: &dyn fmt::Display) -> E {
    E::custom(format!("payload.{key}: {error}"))
}
