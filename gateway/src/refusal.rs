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
    /// Code of the JSON-RPC error; that of HTTP when absent, which is far from the ranges that the protocol reserves.
    rpc_code: Option<i64>,
    /// What `WWW-Authenticate` says.
    challenge: Option<HeaderValue>,
    form: Form,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With the status of its problem; the body is a JSON-RPC error where a request waits for one.
    ByStatus,
    /// As an ordinary answer that carries a JSON-RPC error, where a request waits for one.
    WithinProtocol,
    /// As a problem with the status of its own, whoever waits.
    Plain,
}

/// How clients are told that a policy refuses their call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DenyStatus {
    /// As a JSON-RPC error in an ordinary answer: it ends no client's connection.
    #[default]
    #[value(name = "200")]
    Ok,
    /// By HTTP status, with the reason code in `error`.
    #[value(name = "403")]
    Forbidden,
}

impl Refusal {
    pub(crate) fn new(problem: Problem, ending: Ending) -> Box<Self> {
        Box::new(Self {
            problem,
            ending,
            rpc_code: None,
            challenge: None,
            form: Form::ByStatus,
        })
    }

    /// The client asked for something that it may not have.
    pub(crate) fn denied(reason: &'static str, problem: Problem) -> Box<Self> {
        Self::new(problem.with_code(reason), Ending::Refused(reason))
    }

    /// The server cannot be asked.
    pub(crate) fn unanswered(reason: &'static str, problem: Problem) -> Box<Self> {
        Self::new(problem.with_code(reason), Ending::Unanswered(reason))
    }

    pub(crate) fn because(mut self: Box<Self>, reason: &'static str) -> Box<Self> {
        self.ending = Ending::Refused(reason);
        self
    }

    pub(crate) fn with_rpc_code(mut self: Box<Self>, code: i64) -> Box<Self> {
        self.rpc_code = Some(code);
        self
    }

    pub(crate) fn with_challenge(mut self: Box<Self>, challenge: HeaderValue) -> Box<Self> {
        self.challenge = Some(challenge);
        self
    }

    /// The refusal of a policy, told as configured.
    pub(crate) fn within_protocol(mut self: Box<Self>, deny_status: DenyStatus) -> Box<Self> {
        self.form = match deny_status {
            DenyStatus::Ok => Form::WithinProtocol,
            DenyStatus::Forbidden => Form::Plain,
        };
        self
    }

    /// The answer on the wire. `id` is the id of the request, when it is known.
    pub(crate) fn response(&self, id: Option<&Bytes>, trace: TraceContext) -> Response<Bytes> {
        let mut response = self.problem.to_response(Some(trace.trace_id));
        if let Some(challenge) = &self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        let unreadable = self.rpc_code.map(|_| &b"null"[..]);
        let Some(id) = id.map(AsRef::as_ref).or(unreadable).filter(|_| self.form != Form::Plain) else {
            return response;
        };
        let (mut head, _) = response.into_parts();
        head.status = self.status(Some(id));
        head.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Response::from_parts(head, self.rpc_error(id, trace).into())
    }

    /// The refusal as a JSON-RPC error.
    fn rpc_error(&self, id: &[u8], trace: TraceContext) -> Vec<u8> {
        let code = self.rpc_code.unwrap_or_else(|| i64::from(self.problem.status.as_u16()));
        // Most clients show the message alone.
        let mut message = format!("{} ({})", self.problem.message, self.problem.code);
        if let Some(hint) = &self.problem.hint {
            message = format!("{message}; {hint}");
        }
        let fault = Fault {
            code,
            message: &message,
            reason: self.problem.code,
            hint: self.problem.hint.as_deref(),
        };
        rpc_error(id, &fault, trace)
    }

    /// The status that the client gets.
    pub(crate) fn status(&self, id: Option<&[u8]>) -> StatusCode {
        match self.form {
            Form::WithinProtocol if id.is_some() => StatusCode::OK,
            _ => self.problem.status,
        }
    }
}

/// What a JSON-RPC error of ours says.
#[derive(Debug)]
pub(crate) struct Fault<'a> {
    pub(crate) code: i64,
    pub(crate) message: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) hint: Option<&'a str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// The span of the call's event.
    decision_id: String,
    trace_id: String,
}

/// A JSON-RPC error with the id exactly as it came.
pub(crate) fn rpc_error(id: &[u8], fault: &Fault<'_>, trace: TraceContext) -> Vec<u8> {
    // The id was read as JSON before; `null` says that it was not understood.
    let id = serde_json::from_slice(id).unwrap_or(RawValue::NULL);
    let answer = Answer {
        jsonrpc: "2.0",
        id,
        error: RpcError {
            code: fault.code,
            message: fault.message,
            data: Detail {
                reason: fault.reason,
                hint: fault.hint,
                decision_id: trace.span_id.to_string(),
                trace_id: trace.trace_id.to_string(),
            },
        },
    };
    serde_json::to_vec(&answer).unwrap_or_default()
}
