//! What senders are told, in one place.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use domain::FaultCode;
use http::{HeaderValue, StatusCode, header};
use sentinel_queue::AppendError;
use serde::Serialize;
use service_kit::error::Chain;
use service_kit::{Problem, trace};

use crate::budget::NoRoom;

/// Longest list of refused events in an answer; the rest is a number.
pub(crate) const REJECTIONS_MAX: usize = 100;
/// Longest sentence about a refused event, in characters: it may repeat what the sender sent.
const MESSAGE_CHARS_MAX: usize = 300;
/// When to come again after a fault that passes by itself.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to come again once the queue is full: the processor has to catch up first.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);

const TYPES: &str = "application/json, application/x-ndjson";
const CODINGS: &str = "gzip, zstd, identity";

/// Why a body as a whole was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body has more than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the body decompresses to more than {bytes_max} bytes")]
    TooLargeDecompressed { bytes_max: usize },
    #[error("the body holds more than {events_max} events")]
    TooManyEvents { events_max: usize },
    #[error("the body is not whole {coding}")]
    Coding { coding: &'static str },
    #[error("{0}")]
    Json(String),
    #[error("{0}")]
    Protobuf(String),
    #[error("the body took too long to arrive")]
    Paused,
    #[error("the body ended before its announced length")]
    CutOff,
    #[error("the key is over its rate")]
    OverRate(Duration),
    #[error("too much is in flight at this moment")]
    NoRoom,
    #[error("the body could not be read for a reason on our side")]
    Internal,
}

impl From<NoRoom> for BodyFault {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl From<BodyFault> for Problem {
    fn from(fault: BodyFault) -> Self {
        let message = fault.to_string();
        match fault {
            BodyFault::TooLarge { .. } | BodyFault::TooLargeDecompressed { .. } => {
                Self::payload_too_large(message).with_hint("send fewer events per request")
            }
            BodyFault::TooManyEvents { .. } => Self::payload_too_large(message)
                .with_code("too_many_events")
                .with_hint("send fewer events per request"),
            BodyFault::Coding { .. } => Self::bad_request(message)
                .with_code("invalid_encoding")
                .with_hint("check that `content-encoding` says how the body is packed, and that all of it is sent"),
            BodyFault::Json(_) => Self::bad_request(message).with_code(FaultCode::InvalidJson.as_str()),
            BodyFault::Protobuf(_) => Self::bad_request(message).with_code("invalid_protobuf"),
            BodyFault::Paused => Self::request_timeout(message).with_hint("send the whole body without pauses"),
            BodyFault::CutOff => Self::bad_request(message).with_code("incomplete_body"),
            BodyFault::OverRate(wait) => over_rate(wait),
            BodyFault::NoRoom => Self::unavailable(message, RETRY_AFTER).with_code("overloaded"),
            BodyFault::Internal => Self::internal(fault),
        }
    }
}

pub(crate) fn over_rate(wait: Duration) -> Problem {
    Problem::too_many_requests("this key sends more events per second than it may", wait)
        .with_code("rate_limited")
        .with_hint("wait as long as `retry-after` says and send the same events again")
}

pub(crate) fn unknown_content_type(sent: &str) -> Problem {
    Problem::unsupported_media_type(format!("events do not come as `{sent}`"))
        .with_hint(format!("send UTF-8 JSON with one of these content types: {TYPES}"))
}

pub(crate) fn unknown_telemetry_type(sent: &str) -> Problem {
    let shown: String = sent.chars().take(100).collect();
    Problem::unsupported_media_type(format!("OTLP does not come as `{shown}`"))
        .with_hint("send `application/x-protobuf` or `application/json`")
}

pub(crate) fn unknown_coding(sent: &str) -> Problem {
    Problem::unsupported_media_type(format!("a body packed as `{sent}` cannot be read"))
        .with_hint(format!("pack it once, with one of these content encodings: {CODINGS}"))
}

/// The queue did not take the events, or did not say so in time.
pub(crate) fn not_durable(error: &AppendError) -> Problem {
    tracing::warn!(error = %Chain(error), "events not made durable");
    match error {
        AppendError::Full { .. } => Problem::unavailable("the queue is full until events are processed", RETRY_AFTER_FULL)
            .with_code("queue_full")
            .with_hint(AGAIN),
        AppendError::TooLarge { bytes_max, .. } => {
            Problem::payload_too_large(format!("an event exceeds the {bytes_max} bytes that the queue takes"))
                .with_hint("send the events one by one to find it")
        }
        AppendError::Unavailable(_) | AppendError::Closed => queue_unavailable(),
    }
}

pub(crate) fn queue_unavailable() -> Problem {
    Problem::unavailable("the queue cannot make events durable at this moment", RETRY_AFTER)
        .with_code("queue_unavailable")
        .with_hint(AGAIN)
}

const AGAIN: &str = "send the same events, with the same ids, again";

/// One refused event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rejection {
    /// Its place among the events of the body, from 0.
    pub(crate) index: usize,
    pub(crate) code: FaultCode,
    pub(crate) message: String,
}

/// The refused events of a body: all counted, the first ones told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejections {
    pub(crate) first: Vec<Rejection>,
    pub(crate) by_code: Vec<(FaultCode, usize)>,
}

impl Rejections {
    pub(crate) fn add(&mut self, index: usize, fault: domain::EventFault) {
        match self.by_code.iter_mut().find(|(code, _)| *code == fault.code) {
            Some((_, count)) => *count += 1,
            None => self.by_code.push((fault.code, 1)),
        }
        if self.first.len() < REJECTIONS_MAX {
            self.first.push(Rejection {
                index,
                code: fault.code,
                message: shortened(fault.message),
            });
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.by_code.iter().map(|(_, count)| count).sum()
    }
}

fn shortened(message: String) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some(_) => message.chars().take(MESSAGE_CHARS_MAX).chain(['…']).collect(),
        None => message,
    }
}

/// The body of 202.
#[derive(Serialize)]
struct Receipt<'a> {
    ok: bool,
    accepted: usize,
    duplicates: usize,
    rejected: &'a [Rejection],
    rejected_total: usize,
}

/// 202: what is durable now, and what was refused beside it.
pub(crate) fn accepted(accepted: usize, duplicates: usize, rejections: &Rejections) -> Response {
    let body = Receipt {
        ok: true,
        accepted,
        duplicates,
        rejected: &rejections.first,
        rejected_total: rejections.total(),
    };
    // Numbers and texts cannot fail to become JSON.
    let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Nothing in the body could be taken: the answer to all of it, with the first faults.
pub(crate) fn all_rejected(rejections: &Rejections) -> Response {
    let [only_code] = rejections.by_code.as_slice() else {
        return with_rejections(
            &Problem::bad_request(summary(rejections)).with_code(first_code(rejections).as_str()),
            rejections,
        );
    };
    let problem = match only_code.0 {
        FaultCode::NamespaceMismatch => Problem::forbidden(summary(rejections)),
        FaultCode::TooLarge => Problem::payload_too_large(summary(rejections)),
        FaultCode::InvalidField => Problem::unprocessable(summary(rejections)),
        FaultCode::InvalidJson | FaultCode::MissingFields | FaultCode::TimestampOutOfRange => {
            Problem::bad_request(summary(rejections))
        }
    };
    with_rejections(&problem.with_code(only_code.0.as_str()), rejections)
}

fn first_code(rejections: &Rejections) -> FaultCode {
    rejections
        .first
        .first()
        .map_or(FaultCode::InvalidJson, |rejection| rejection.code)
}

fn summary(rejections: &Rejections) -> String {
    match (rejections.total(), rejections.first.first()) {
        (1, Some(only)) => only.message.clone(),
        (total, _) => format!("none of the {total} events can be taken"),
    }
}

/// A problem body with the list beside it.
fn with_rejections(problem: &Problem, rejections: &Rejections) -> Response {
    let (parts, body) = problem
        .to_response(trace::current().map(|context| context.trace_id))
        .into_parts();
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&body).unwrap_or_default();
    fields.insert(
        "rejected".to_owned(),
        serde_json::to_value(&rejections.first).unwrap_or_default(),
    );
    fields.insert("rejected_total".to_owned(), rejections.total().into());
    Response::from_parts(parts, Body::from(serde_json::Value::Object(fields).to_string()))
}

/// A refusal of the whole request, with the headers that help the sender.
pub(crate) fn refused(problem: Problem) -> Response {
    let unsupported = problem.status == StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let mut response = problem.into_response();
    if unsupported {
        response.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(TYPES));
        response
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static(CODINGS));
    }
    response
}
