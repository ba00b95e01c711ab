//! The admin side of a process: is it alive, is it ready, how is it doing.

use std::io;
use std::net::SocketAddr;

use ::http::{StatusCode, header};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::http::{self, HttpLimits};
use crate::metrics;
use crate::problem::{self, Problem};
use crate::tasks::{Stage, Tasks};

/// [`routes`] with answers for every other path.
pub fn admin_router(tasks: &Tasks) -> Router {
    problem::with_fallbacks(routes(tasks))
}

/// `/live`, `/ready`, `/health` (the same as `/ready`) and `/metrics`, to be merged into other routes.
pub fn routes(tasks: &Tasks) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/health", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(tasks.clone())
}

/// Serves [`admin_router`] until the very end of the process, and gives the bound address.
pub fn serve_admin(listener: TcpListener, tasks: &Tasks) -> io::Result<SocketAddr> {
    http::serve(
        "admin",
        listener,
        admin_router(tasks),
        HttpLimits::default(),
        tasks,
        Stage::Admin,
    )
}

/// Answering at all is the answer: a process that cannot is restarted.
async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

async fn ready(State(tasks): State<Tasks>) -> Response {
    let report = tasks.ready_report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics_text(State(tasks): State<Tasks>) -> Result<Response, Problem> {
    let text = tasks.metrics().encode().map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

#[cfg(test)]
mod tests;
