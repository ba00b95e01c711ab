//! `/live`, `/ready` and `/health` on the port of the events, in the predecessor's form: probes of older deployments ask there.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use service_kit::Tasks;
use service_kit::readiness::ReadyReport;

#[derive(Serialize)]
struct Health {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    report: Option<ReadyReport>,
}

pub(crate) fn routes(tasks: &Tasks) -> Router {
    Router::new()
        .route("/live", get(alive))
        .route("/health", get(alive))
        .route("/ready", get(ready))
        .with_state(tasks.clone())
}

async fn alive() -> Response {
    Json(Health {
        ok: true,
        error: None,
        report: None,
    })
    .into_response()
}

async fn ready(State(tasks): State<Tasks>) -> Response {
    let report = tasks.ready_report();
    let (status, error) = if report.ready {
        (StatusCode::OK, None)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Some("not_ready"))
    };
    let body = Health {
        ok: report.ready,
        error,
        report: Some(report),
    };
    (status, Json(body)).into_response()
}
