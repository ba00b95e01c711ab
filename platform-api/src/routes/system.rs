//! The running system: components, status, keys, dead letters, and the description of this API.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use domain::operations::{ComponentState, ComponentStatus, DeadLetter, KeyView};
use domain::{Namespace, Timestamp};
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use service_kit::Problem;
use service_kit::parse_duration;
use service_kit::problem::{JsonBody, PathParams, RawBody};

use super::Call;
use crate::api::{Api, json};
use crate::audit::Topic;
use crate::operations::KeySpec;

/// Longest note of a key, in bytes.
const NOTE_BYTES_MAX: usize = 1_024;
/// How long an old key works beside its successor, when not told.
const OVERLAP: Duration = Duration::from_hours(24);
/// Longest overlap: two keys for ever are no rotation.
const OVERLAP_MAX: Duration = Duration::from_hours(24 * 90);

/// A component under the predecessor's keys.
#[derive(Debug, Serialize)]
struct ComponentRow<'a> {
    key: &'a str,
    display: &'a str,
    namespace: &'static str,
    kind: &'static str,
    resource: &'a str,
    status: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
}

impl<'a> ComponentRow<'a> {
    fn of(component: &'a ComponentStatus) -> Self {
        Self {
            key: &component.key,
            display: &component.display,
            namespace: "",
            kind: "process",
            resource: &component.key,
            status: match component.state {
                ComponentState::Ready => "Ready",
                ComponentState::Degraded => "Degraded",
                ComponentState::NotReady => "NotReady",
            },
            ready: component.state == ComponentState::Ready,
            message: &component.detail,
            address: component.address.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Components<'a> {
    components: Vec<ComponentRow<'a>>,
    as_of: Timestamp,
}

pub(super) async fn components(State(api): State<Api>) -> Result<Response, Problem> {
    let status = api.operate(api.0.operations.system_status()).await?;
    Ok(json(Components {
        components: status.components.iter().map(ComponentRow::of).collect(),
        as_of: status.as_of,
    }))
}

/// The component that answers. It is restarted last, and never while another one is not well.
const OWN: &str = "platform-api";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restart {
    component: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Restarted {
    success: bool,
    restarted: Vec<String>,
}

/// Restarts one component, or all in turn. Each must be ready before the next one: a fault stops the round.
pub(super) async fn restart(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): JsonBody<Restart>,
) -> Result<Response, Problem> {
    let status = api.operate(api.0.operations.system_status()).await?;
    let mut known: Vec<String> = status.components.into_iter().map(|component| component.key).collect();
    known.sort_by_key(|key| key == OWN);
    let wanted = match (wish.component, wish.all) {
        (Some(component), false) if known.contains(&component) => vec![component],
        (Some(component), false) => {
            return Err(unfit(format!(
                "there is no component `{component}`; there are {}",
                known.join(", ")
            )));
        }
        (None, true) => known,
        _ => return Err(unfit("name a `component`, or say `\"all\": true`".to_owned())),
    };
    let mut restarted = Vec::new();
    for component in wanted {
        api.operate(api.0.operations.restart(&component)).await?;
        tracing::info!(component, caller = call.caller.name, "component restarted");
        if let Ok(control) = api.control() {
            let fact = call.fact(Topic::Audit, "component_restart", format!("component/{component}"));
            control.commit(control.database().write().await?, fact).await?;
        }
        restarted.push(component);
    }
    Ok(json(Restarted {
        success: true,
        restarted,
    }))
}

pub(super) async fn status(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(json(api.operate(api.0.operations.system_status()).await?))
}

pub(super) async fn alerts(State(api): State<Api>) -> Response {
    json(api.0.alerts.report(api.now()))
}

#[derive(Debug, Serialize)]
struct KeyList {
    keys: Vec<KeyView>,
}

pub(super) async fn keys(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(json(KeyList {
        keys: api.operate(api.0.operations.keys()).await?,
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyWish {
    namespace: String,
    server: Option<String>,
    expires_at: Option<Timestamp>,
    /// A duration such as `90d`, instead of `expires_at`.
    expires_in: Option<String>,
    events_per_second_max: Option<u32>,
    #[serde(default)]
    note: String,
}

pub(super) async fn create_key(State(api): State<Api>, JsonBody(wish): JsonBody<KeyWish>) -> Result<Response, Problem> {
    let spec = key_spec(wish, api.now())?;
    let made = api.operate(api.0.operations.create_key(spec)).await?;
    tracing::info!(key = made.view.id, namespace = made.view.namespace, "ingest key made");
    Ok(secret(&made))
}

fn key_spec(wish: KeyWish, now: Timestamp) -> Result<KeySpec, Problem> {
    if wish.namespace != "*" {
        Namespace::parse(&wish.namespace).map_err(|error| unfit(format!("`namespace`: {error}, or `*` for any namespace")))?;
    }
    if let Some(server) = &wish.server {
        if wish.namespace == "*" {
            return Err(unfit(
                "`server` needs one `namespace`: a server's name means nothing without it".to_owned(),
            ));
        }
        domain::ServerName::parse(server).map_err(|error| unfit(format!("`server`: {error}")))?;
    }
    let expires_at = match (wish.expires_at, wish.expires_in) {
        (Some(_), Some(_)) => {
            return Err(unfit(
                "`expires_at` and `expires_in` both say when the key ends; give one of them".to_owned(),
            ));
        }
        (at, None) => at,
        (None, Some(text)) => Some(now.plus(parse_duration(&text).map_err(|error| unfit(format!("`expires_in`: {error}")))?)),
    };
    if expires_at.is_some_and(|end| end <= now) {
        return Err(unfit("the key would end before it begins".to_owned()));
    }
    if wish.events_per_second_max == Some(0) {
        return Err(unfit(
            "`events_per_second_max` must be at least 1; leave it out for no limit".to_owned(),
        ));
    }
    if wish.note.len() > NOTE_BYTES_MAX {
        return Err(unfit(format!("`note` is longer than {NOTE_BYTES_MAX} bytes")));
    }
    Ok(KeySpec {
        namespace: wish.namespace,
        server: wish.server,
        expires_at,
        events_per_second_max: wish.events_per_second_max,
        note: wish.note,
    })
}

pub(super) async fn revoke_key(State(api): State<Api>, PathParams(id): PathParams<String>) -> Result<Response, Problem> {
    let revoked = api.operate(api.0.operations.revoke_key(&id)).await?;
    tracing::info!(key = revoked.id, "ingest key revoked");
    Ok(json(revoked))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// How long the old key works beside the new one, such as `24h`.
    overlap: Option<String>,
}

pub(super) async fn rotate_key(
    State(api): State<Api>,
    PathParams(id): PathParams<String>,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let rotation: Rotation = optional_body(&body)?;
    let overlap = rotation.overlap.map_or(Ok(OVERLAP), |text| {
        parse_duration(&text).map_err(|error| unfit(format!("`overlap`: {error}")))
    })?;
    if overlap > OVERLAP_MAX {
        return Err(unfit(format!(
            "`overlap` is longer than {} days",
            OVERLAP_MAX.as_secs() / 86_400
        )));
    }
    let made = api.operate(api.0.operations.rotate_key(&id, api.now().plus(overlap))).await?;
    tracing::info!(old_key = id, key = made.view.id, "ingest key rotated");
    Ok(secret(&made))
}

/// An answer with a secret in it, which nobody on the way may keep.
fn secret(body: &impl Serialize) -> Response {
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

/// No body at all is the same as an empty object.
pub(super) fn optional_body<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| unfit(format!("the body cannot be read: {error}")))
}

fn unfit(message: String) -> Problem {
    Problem::unprocessable(message).with_code("invalid")
}

#[derive(Debug, Serialize)]
struct DeadLettersAnswer {
    dead_letters: Vec<DeadLetter>,
    has_more: bool,
    /// Path and parameters of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn dead_letters(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let params = &call.params;
    let page = api
        .operate(api.0.operations.dead_letters(params.number("after"), params.count("limit")))
        .await?;
    let last = page.dead_letters.last().filter(|_| page.has_more);
    let next = last.map(|last| params.link("/api/v1/sentinel/dlq", "after", &last.id.to_string()));
    Ok(json(DeadLettersAnswer {
        has_more: page.has_more,
        next,
        dead_letters: page.dead_letters,
    }))
}

pub(super) async fn dead_letter(State(api): State<Api>, PathParams(id): PathParams<u64>) -> Result<Response, Problem> {
    Ok(json(api.operate(api.0.operations.dead_letter(id)).await?))
}

/// What became of a dead letter.
#[derive(Debug, Serialize)]
struct DeadLetterDone {
    id: u64,
    done: &'static str,
}

pub(super) async fn replay(State(api): State<Api>, PathParams(id): PathParams<u64>) -> Result<Response, Problem> {
    api.operate(api.0.operations.replay_dead_letter(id)).await?;
    tracing::info!(dead_letter = id, "dead letter replayed");
    Ok(json(DeadLetterDone { id, done: "replayed" }))
}

pub(super) async fn discard(State(api): State<Api>, PathParams(id): PathParams<u64>) -> Result<Response, Problem> {
    api.operate(api.0.operations.discard_dead_letter(id)).await?;
    tracing::info!(dead_letter = id, "dead letter discarded");
    Ok(json(DeadLetterDone { id, done: "discarded" }))
}

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::openapi::document()).into_response()
}
