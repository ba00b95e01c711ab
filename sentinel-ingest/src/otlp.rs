//! `POST /v1/traces` and `/v1/logs`: OTLP over HTTP, in protobuf or JSON.
//!
//! Same keys, bounds and queue as events; another form of bodies and answers. Spans that cannot be taken are told as a partial
//! success, so that exporters do not send the whole batch again.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use sentinel_queue::EventAppender;
use serde::Serialize;
use service_kit::Problem;

use crate::answer::Rejections;
use crate::body::{self, Form, Layout, Telemetry, Wire};
use crate::intake::Intake;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) async fn post_spans<A: EventAppender>(State(intake): State<Arc<Intake<A>>>, request: Request) -> Response {
    post(&intake, request, Telemetry::Spans, Form::of_spans).await
}

pub(crate) async fn post_records<A: EventAppender>(State(intake): State<Arc<Intake<A>>>, request: Request) -> Response {
    post(&intake, request, Telemetry::Records, Form::of_records).await
}

async fn post<A: EventAppender>(
    intake: &Intake<A>,
    request: Request,
    telemetry: Telemetry,
    form: fn(&HeaderMap) -> Result<Form, Problem>,
) -> Response {
    let _in_flight = intake.metrics.start();
    let (parts, mut body) = request.into_parts();
    // Whoever sends neither reads the other as well as this one.
    let wire = match form(&parts.headers) {
        Ok(Form {
            layout: Layout::Telemetry(_, wire),
            ..
        }) => wire,
        _ => Wire::Json,
    };
    match intake.receive(&parts.headers, &mut body, form).await {
        Ok(decoded) => answer(telemetry, wire, &decoded.rejections),
        Err(problem) => {
            intake.refused(problem.code);
            body::discard(&parts.headers, body).await;
            refused(problem, wire)
        }
    }
}

fn answer(telemetry: Telemetry, wire: Wire, rejections: &Rejections) -> Response {
    let rejected = i64::try_from(rejections.total()).unwrap_or(i64::MAX);
    let message = rejections
        .first
        .first()
        .map(|first| first.message.clone())
        .unwrap_or_default();
    let has_any = rejected > 0;
    match telemetry {
        Telemetry::Spans => encoded(
            wire,
            &ExportTraceServiceResponse {
                partial_success: has_any.then_some(ExportTracePartialSuccess {
                    rejected_spans: rejected,
                    error_message: message,
                }),
            },
        ),
        Telemetry::Records => encoded(
            wire,
            &ExportLogsServiceResponse {
                partial_success: has_any.then_some(ExportLogsPartialSuccess {
                    rejected_log_records: rejected,
                    error_message: message,
                }),
            },
        ),
    }
}

fn encoded<T: Message + Serialize>(wire: Wire, message: &T) -> Response {
    let (kind, bytes) = match wire {
        Wire::Protobuf => (PROTOBUF, message.encode_to_vec()),
        // Numbers and texts cannot fail to become JSON.
        Wire::Json => (JSON, serde_json::to_vec(message).unwrap_or_default()),
    };
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `google.rpc.Status`, which OTLP asks for as the body of refusals in protobuf.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// In JSON our own problem body, which is one with more fields than a status has.
fn refused(problem: Problem, wire: Wire) -> Response {
    let status = Status {
        code: rpc_code(problem.status),
        message: problem.message.clone(),
    };
    let mut response = problem.into_response();
    if wire == Wire::Protobuf {
        *response.body_mut() = Body::from(status.encode_to_vec());
        response.headers_mut().insert(header::CONTENT_TYPE, PROTOBUF);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// The code of gRPC with the meaning of an HTTP status.
fn rpc_code(status: StatusCode) -> i32 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_client_error() => 3,
        _ => 13,
    }
}
