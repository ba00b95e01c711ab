//! `/config/status`: which policy is in force for which server. On the admin port only, for it tells what is governed how.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::route::RouteTable;

/// One server's policy.
#[derive(Debug, Serialize)]
struct Governed {
    server: String,
    namespace: String,
    mode: &'static str,
    schema_version: &'static str,
    /// Absent without a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    grants: usize,
    sessions: usize,
}

/// The routes, to be merged into those of the admin port.
pub(crate) fn routes(table: &RouteTable) -> Router {
    Router::new().route("/config/status", get(status)).with_state(table.clone())
}

async fn status(State(table): State<RouteTable>) -> Json<Vec<Governed>> {
    let governed = table.routes().into_iter().map(|route| {
        let policy = route.policy.current();
        let (grants, sessions) = policy.size();
        Governed {
            server: route.server,
            namespace: route.namespace,
            mode: policy.mode(),
            schema_version: domain::policy::document::SCHEMA_VERSION,
            revision: Some(policy.revision().to_owned()).filter(|revision| !revision.is_empty()),
            grants,
            sessions,
        }
    });
    Json(governed.collect())
}
