//! From faults to HTTP answers: the only place with status codes.
//!
//! A [`Problem`] is what the client may know: a code for programs, a message for people, a hint what to try, and the trace id
//! under which the log knows the rest. Causes go to the log through [`Problem::internal`], never into the answer.

mod extract;

use std::time::Duration;

use ::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::Router;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Serialize;

pub use extract::{JsonBody, PathParams, QueryParams, RawBody};

use crate::error::Chain;
use crate::trace::{self, TraceId};

/// An answer that says what went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Problem {
    pub status: StatusCode,
    /// What programs match on, such as `not_found`; part of the interface.
    pub code: &'static str,
    /// What people read: what was asked, and why it cannot be. No cause, no secret.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
    /// When to try again, rounded up to whole seconds on the wire.
    pub retry_after: Option<Duration>,
    /// The methods that would be allowed, for 405.
    pub allow: Vec<Method>,
}

/// The JSON form of a [`Problem`].
#[derive(Serialize)]
struct Body<'a> {
    error: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

/// Each helper uses the name of the status as code; [`with_code`](Problem::with_code) gives a more telling one.
impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
            retry_after: None,
            allow: Vec::new(),
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn method_not_allowed(allow: &[Method]) -> Self {
        let problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take that method",
        );
        Self {
            allow: allow.to_vec(),
            ..problem
        }
    }

    pub fn request_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "gone", message)
    }

    pub fn payload_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message).with_retry_after(retry_after)
    }

    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "bad_gateway", message)
    }

    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).with_retry_after(retry_after)
    }

    pub fn gateway_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "gateway_timeout", message)
    }

    /// A fault of ours. The chain goes to the log, with the trace id; the client gets a text that tells nothing of our inside.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let trace_id = trace::current().map(|context| context.trace_id.to_string());
        tracing::error!(trace_id, error = %Chain(&*error), "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request failed for a reason on our side",
        )
        .with_hint("try again; if it stays, look for the trace id in the log of this service")
    }

    pub fn with_code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..self
        }
    }

    /// The answer, for services that do not use axum. Axum handlers return the problem itself and get the trace id of their
    /// request.
    pub fn to_response(&self, trace_id: Option<TraceId>) -> Response<Bytes> {
        let body = Body {
            error: self.code,
            message: &self.message,
            hint: self.hint.as_deref(),
            trace_id: trace_id.map(|id| id.to_string()),
        };
        // Text fields alone cannot fail to become JSON.
        let mut response = Response::new(Bytes::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let allow: Vec<_> = self.allow.iter().map(Method::as_str).collect();
        if let (false, Ok(value)) = (allow.is_empty(), HeaderValue::try_from(allow.join(", "))) {
            headers.insert(header::ALLOW, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.to_response(trace::current().map(|context| context.trace_id))
            .map(axum::body::Body::from)
    }
}

/// Lets handlers use `?` on faults they cannot name better.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::internal(error)
    }
}

/// Gives every unknown path and every wrong method of `app` a problem body. Call it after all routes are added.
pub fn with_fallbacks<S>(app: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    // axum adds the `Allow` header, for it knows the methods of the path.
    app.fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed(&[]))
}

#[cfg(test)]
mod tests;
