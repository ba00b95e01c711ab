//! Answers of our own: JSON-RPC errors where a request waits for one, problem bodies elsewhere.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use service_kit::Problem;
use service_kit::trace::TraceContext;

use crate::classify::Ending;

/// An answer of ours, and what the event says about it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    pub(crate) ending: Ending,
}

impl Refusal {
    /// The client asked for something that it may not have.
    pub(crate) fn denied(reason: &'static str, problem: Problem) -> Box<Self> {
        Box::new(Self {
            problem: problem.with_code(reason),
            ending: Ending::Refused(reason),
        })
    }

    /// The server cannot be asked.
    pub(crate) fn unanswered(reason: &'static str, problem: Problem) -> Box<Self> {
        Box::new(Self {
            problem: problem.with_code(reason),
            ending: Ending::Unanswered(reason),
        })
    }

    /// The answer on the wire. `id` is the id of the request, when it is known.
    pub(crate) fn response(&self, id: Option<&Bytes>, trace: TraceContext) -> Response<Bytes> {
        let response = self.problem.to_response(Some(trace.trace_id));
        let Some(id) = id else { return response };
        let (mut head, _) = response.into_parts();
        head.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let code = i64::from(self.problem.status.as_u16());
        Response::from_parts(
            head,
            rpc_error(id, code, &self.problem.message, self.problem.code, trace).into(),
        )
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.problem.status
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    error: RpcError<'a>,
}

#[derive(Serialize)]
struct RpcError<'a> {
    code: i64,
    message: &'a str,
    data: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    reason: &'a str,
    trace_id: String,
}

/// A JSON-RPC error with the id exactly as it came. Codes of ours are those of HTTP, far from the ranges the protocol reserves.
pub(crate) fn rpc_error(id: &[u8], code: i64, message: &str, reason: &str, trace: TraceContext) -> Vec<u8> {
    // The id was read as JSON before; `null` says that it was not understood.
    let id = serde_json::from_slice(id).unwrap_or(RawValue::NULL);
    let answer = Answer {
        jsonrpc: "2.0",
        id,
        error: RpcError {
            code,
            message,
            data: Detail {
                reason,
                trace_id: trace.trace_id.to_string(),
            },
        },
    };
    serde_json::to_vec(&answer).unwrap_or_default()
}
