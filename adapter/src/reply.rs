//! Answers of the adapter itself: JSON-RPC errors that say what happened and what to try.
//!
//! Codes are HTTP statuses, far from the ranges that the protocol reserves; programs read `data.reason`.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

/// Why a request got no answer of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

#[derive(Serialize)]
struct Wire<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    error: ErrorWire<'a>,
}

#[derive(Serialize)]
struct ErrorWire<'a> {
    code: i64,
    message: &'a str,
    data: DataWire<'a>,
}

#[derive(Serialize)]
struct DataWire<'a> {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    origin: &'static str,
}

impl Refusal {
    pub(crate) fn new(code: i64, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The refusal as the answer to a request; `id` is its raw text, `null` when it could not be read.
    pub(crate) fn answer(&self, id: &str) -> Bytes {
        let id = RawValue::from_string(id.to_owned()).unwrap_or_else(|_| null());
        let wire = Wire {
            jsonrpc: "2.0",
            id: &id,
            error: ErrorWire {
                code: self.code,
                message: &self.message,
                data: DataWire {
                    reason: self.reason,
                    hint: self.hint.as_deref(),
                    origin: "adapter",
                },
            },
        };
        // Texts and raw JSON cannot fail to become JSON.
        serde_json::to_vec(&wire).unwrap_or_default().into()
    }
}

fn null() -> Box<RawValue> {
    RawValue::from_string("null".to_owned()).unwrap_or_default()
}

/// `{"jsonrpc":"2.0","id":ID,"<member>":RAW}`: somebody else's result or error under the id of the request it answers.
pub(crate) fn under_id(id: &str, member: &'static str, raw: &RawValue) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{}}}"#, raw.get()).into()
}

/// A message on one line. Inside JSON strings there is no line break, so what stands there is between values.
pub(crate) fn on_one_line(bytes: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &bytes).is_none() {
        return bytes;
    }
    let flat: Vec<u8> = bytes
        .iter()
        .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
        .collect();
    flat.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_under_the_id_of_the_request() {
        let refusal = Refusal::new(503, "unreachable", "no server answers").hint("is it up?");
        assert_eq!(
            refusal.answer("\"a\""),
            r#"{"jsonrpc":"2.0","id":"a","error":{"code":503,"message":"no server answers","data":{"reason":"unreachable","hint":"is it up?","origin":"adapter"}}}"#
        );
        assert!(refusal.answer("nonsense").starts_with(br#"{"jsonrpc":"2.0","id":null"#));
    }

    #[test]
    fn messages_of_many_lines_fit_on_one() {
        assert_eq!(
            on_one_line(Bytes::from_static(b"{\r\n \"a\": \"x\\ny\"\n}")),
            "{   \"a\": \"x\\ny\" }"
        );
    }
}
