//! Grants and sessions as answers.

use axum::response::Response;
use domain::Timestamp;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::control::Control;
use crate::objects::Object;
use crate::routes::objects::tagged;

/// A grant or session, whole: what is read can be sent back.
#[derive(Serialize)]
pub(super) struct View {
    name: String,
    namespace: String,
    uid: String,
    owner: String,
    age: Timestamp,
    updated_at: Timestamp,
    revision: i64,
    /// `Active`, `Disabled`, `Revoked` or `Expired`.
    phase: &'static str,
    /// The fields of the spec, as manifests name them.
    #[serde(flatten)]
    spec: Map<String, Value>,
}

pub(super) fn view(object: Object, now: Timestamp) -> View {
    let mut spec = match object.spec {
        Value::Object(spec) => spec,
        _ => Map::new(),
    };
    // A hash helps nobody but whoever wants to guess what it is of.
    spec.remove("tokenHash");
    let phase = phase(&spec, now);
    View {
        phase,
        name: object.name,
        namespace: object.namespace,
        uid: object.uid,
        owner: object.owner,
        age: object.created_at,
        updated_at: object.updated_at,
        revision: object.revision,
        spec,
    }
}

pub(super) fn shown(control: &Control, status: StatusCode, object: Object) -> Response {
    let (kind, revision) = (object.kind, object.revision);
    let body: Map<String, Value> = [(
        kind.word().to_owned(),
        serde_json::to_value(view(object, control.now())).unwrap_or_default(),
    )]
    .into_iter()
    .collect();
    tagged(status, revision, &body)
}

/// What a grant or session amounts to now.
pub(in crate::routes) fn phase(spec: &Map<String, Value>, now: Timestamp) -> &'static str {
    let is = |name: &str| spec.get(name) == Some(&Value::Bool(true));
    let ends = spec
        .get("expiresAt")
        .and_then(Value::as_str)
        .and_then(|text| Timestamp::parse(text).ok());
    if is("disabled") {
        "Disabled"
    } else if is("revoked") {
        "Revoked"
    } else if ends.is_some_and(|end| end <= now) {
        "Expired"
    } else {
        "Active"
    }
}
