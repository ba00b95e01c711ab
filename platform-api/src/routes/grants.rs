//! Grants and sessions: who may call what, and what a person has consented to.

pub(super) mod apply;
pub(super) mod view;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use crds::{McpAccessGrantSpec, McpAgentSessionSpec};
use domain::Timestamp;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service_kit::Problem;
use service_kit::problem::{JsonBody, PathParams};

use super::Call;
use super::adapter;
use super::auth::unfit;
use super::objects::{administers, expected, find, is_dry, not_yours, page, pretended, server_of};
use super::servers::spec_of;
use crate::access::Standing;
use crate::api::{Api, json};
use crate::audit::{Fact, Topic};
use crate::control::Control;
use crate::objects::{AuditFact, Object, ObjectKind, Write};
use apply::apply;
use view::{View, shown, view};

/// The server of an object, when the caller administers it.
async fn administered(control: &Control, call: &Call, namespace: &str, server: &str) -> Result<Object, Problem> {
    let found = find(control, call, ObjectKind::Server, namespace, server).await;
    let found = found.map_err(|problem| match problem.status {
        StatusCode::NOT_FOUND => unfit(format!(
            "`serverRef`: there is no server `{server}` in the namespace `{namespace}` that you may see"
        ))
        .with_hint("a grant or session is in the namespace of its server; list servers: mcp-runtime server list"),
        _ => problem,
    })?;
    if administers(call, &found) {
        Ok(found)
    } else {
        Err(not_yours(&found))
    }
}

/// Servers that the caller administers are told by ownership of the namespace or of the server.
async fn list(api: &Api, call: &Call, kind: ObjectKind, path: &str) -> Result<Response, Problem> {
    let control = api.control()?;
    let wanted = call.params.text("server");
    let mut names: Vec<(String, String)> = Vec::new();
    if !call.caller.admin {
        let whole = super::objects::all(control, call, ObjectKind::Server).await?;
        names = whole
            .iter()
            .filter(|server| administers(call, server))
            .map(|server| (server.namespace.clone(), server.name.clone()))
            .collect();
    }
    let own = call.caller.principal.as_ref().map(|principal| principal.account.id.clone());
    let keep = |object: &Object| {
        let server = server_of(object);
        if wanted.is_some_and(|wanted| wanted != server) {
            return false;
        }
        // Whoever a grant or session is about may know of it.
        let human = object.spec.pointer("/subject/humanID").and_then(Value::as_str);
        call.caller.admin
            || (human.is_some() && human == own.as_deref())
            || call.caller.standing(&object.namespace) == Standing::Owner
            || names
                .iter()
                .any(|(namespace, name)| *namespace == object.namespace && name == server)
    };
    let (found, next) = page(control, call, kind, keep).await?;
    let rows: Vec<View> = found.into_iter().map(|object| view(object, control.now())).collect();
    let mut body = Map::new();
    body.insert(
        format!("{}s", kind.word()),
        serde_json::to_value(rows).map_err(Problem::internal)?,
    );
    if let Some(next) = next {
        body.insert("next".to_owned(), Value::from(call.params.link(path, "after", &next)));
    }
    Ok(json(body))
}

async fn get(api: &Api, call: &Call, kind: ObjectKind, (namespace, name): (String, String)) -> Result<Response, Problem> {
    let control = api.control()?;
    let object = find(control, call, kind, &namespace, &name).await?;
    let human = object.spec.pointer("/subject/humanID").and_then(Value::as_str);
    let own = call
        .caller
        .principal
        .as_ref()
        .is_some_and(|principal| human == Some(&principal.account.id));
    if !own {
        administered_or_orphan(control, call, &object).await?;
    }
    Ok(shown(control, StatusCode::OK, object))
}

/// As `administered`; objects whose server is gone belong to the namespace's owners.
async fn administered_or_orphan(control: &Control, call: &Call, object: &Object) -> Result<Option<Object>, Problem> {
    let server = control
        .objects()
        .find(ObjectKind::Server, &object.namespace, server_of(object))
        .await?;
    match server {
        Some(server) if administers(call, &server) => Ok(Some(server)),
        None if call.caller.standing(&object.namespace) == Standing::Owner => Ok(None),
        Some(server) => Err(not_yours(&server)),
        None => Err(Problem::forbidden(
            "its server is gone, so only owners of the namespace may look at it",
        )),
    }
}

pub(super) fn access_fact(
    call: &Call,
    action: &'static str,
    kind: ObjectKind,
    (namespace, name): (&str, &str),
    spec: &Value,
) -> Fact {
    let server = spec.pointer("/serverRef/name").and_then(Value::as_str).unwrap_or_default();
    let mut fact = call.fact(Topic::Access, action, format!("{}/{name}", kind.word()));
    for (label, pointer) in [
        ("human", "/subject/humanID"),
        ("agent", "/subject/agentID"),
        ("trust", "/maxTrust"),
        ("trust", "/consentedTrust"),
    ] {
        fact.details.extend(
            spec.pointer(pointer)
                .and_then(Value::as_str)
                .map(|text| (label, text.to_owned())),
        );
    }
    Fact {
        namespace: Some(namespace.to_owned()),
        server: Some(server.to_owned()),
        ..fact
    }
}

/// Switches one flag of the spec.
async fn switch(
    api: &Api,
    call: &Call,
    kind: ObjectKind,
    (namespace, name): (String, String),
    (flag, to, action): (&str, bool, &'static str),
) -> Result<Response, Problem> {
    let control = api.control()?;
    let object = find(control, call, kind, &namespace, &name).await?;
    let server = administered_or_orphan(control, call, &object).await?;
    let spec = switched(&object, flag, to, control.now());
    let write = Write {
        kind,
        namespace: namespace.clone(),
        name: name.clone(),
        owner: object.owner.clone(),
        labels: object.labels.clone(),
        spec,
        expected: expected(call, &object),
        quota: None,
        now: control.now(),
    };
    if is_dry(call) {
        return Ok(shown(control, StatusCode::OK, pretended(write, Some(object))));
    }
    let fact = access_fact(call, action, kind, (&namespace, &name), &write.spec);
    let team_id = server.as_ref().and_then(|server| spec_of(server).team_id);
    let object = control.objects().put(write, AuditFact(Fact { team_id, ..fact })).await?;
    control.facts_written();
    Ok(shown(control, StatusCode::OK, object))
}

/// The spec with one flag switched, and with what follows from a revocation.
fn switched(object: &Object, flag: &str, to: bool, now: Timestamp) -> Value {
    let mut spec = object.spec.clone();
    let Value::Object(fields) = &mut spec else { return spec };
    fields.insert(flag.to_owned(), Value::Bool(to));
    if flag != "revoked" {
        return spec;
    }
    let text = Value::from(now.to_string());
    match (to, adapter::is_issued(object)) {
        (true, _) => drop(fields.entry("revokedAt").or_insert(text)),
        // The credential may be in wrong hands, and gateways remember that it was revoked: the agent may ask for a new one.
        (false, true) => drop((fields.remove("revokedAt"), fields.insert("expiresAt".to_owned(), text))),
        (false, false) => drop(fields.remove("revokedAt")),
    }
    spec
}

#[derive(Serialize)]
pub(super) struct Removed {
    pub(super) success: bool,
    pub(super) namespace: String,
    pub(super) name: String,
}

async fn remove(api: &Api, call: &Call, kind: ObjectKind, (namespace, name): (String, String)) -> Result<Response, Problem> {
    let control = api.control()?;
    let mut object = find(control, call, kind, &namespace, &name).await?;
    administered_or_orphan(control, call, &object).await?;
    object.revision = call.if_match.unwrap_or(object.revision);
    if !is_dry(call) {
        let action = if kind == ObjectKind::Grant {
            "grant_delete"
        } else {
            "session_delete"
        };
        let fact = access_fact(call, action, kind, (&namespace, &name), &object.spec);
        control.objects().remove(&object, AuditFact(fact), control.now()).await?;
        control.facts_written();
    }
    Ok(json(Removed {
        success: true,
        namespace,
        name,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantChange {
    disabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionChange {
    revoked: bool,
}

const ENABLE: (&str, bool, &str) = ("disabled", false, "grant_enable");
const DISABLE: (&str, bool, &str) = ("disabled", true, "grant_disable");
const REVOKE: (&str, bool, &str) = ("revoked", true, "session_revoke");
const UNREVOKE: (&str, bool, &str) = ("revoked", false, "session_unrevoke");

type Named = PathParams<(String, String)>;
type Context = (State<Api>, Extension<Call>);

pub(super) async fn list_grants(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    list(&api, &call, ObjectKind::Grant, "/api/v1/runtime/grants").await
}

pub(super) async fn list_sessions(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    list(&api, &call, ObjectKind::Session, "/api/v1/runtime/sessions").await
}

pub(super) async fn apply_grant(
    (State(api), Extension(call)): Context,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Problem> {
    apply::<McpAccessGrantSpec>(&api, &call, body).await
}

pub(super) async fn apply_session(
    (State(api), Extension(call)): Context,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Problem> {
    apply::<McpAgentSessionSpec>(&api, &call, body).await
}

pub(super) async fn get_grant((State(api), Extension(call)): Context, PathParams(name): Named) -> Result<Response, Problem> {
    get(&api, &call, ObjectKind::Grant, name).await
}

pub(super) async fn get_session((State(api), Extension(call)): Context, PathParams(name): Named) -> Result<Response, Problem> {
    get(&api, &call, ObjectKind::Session, name).await
}

pub(super) async fn change_grant(
    (State(api), Extension(call)): Context,
    PathParams(name): Named,
    JsonBody(change): JsonBody<GrantChange>,
) -> Result<Response, Problem> {
    switch(
        &api,
        &call,
        ObjectKind::Grant,
        name,
        if change.disabled { DISABLE } else { ENABLE },
    )
    .await
}

pub(super) async fn change_session(
    (State(api), Extension(call)): Context,
    PathParams(name): Named,
    JsonBody(change): JsonBody<SessionChange>,
) -> Result<Response, Problem> {
    switch(
        &api,
        &call,
        ObjectKind::Session,
        name,
        if change.revoked { REVOKE } else { UNREVOKE },
    )
    .await
}

pub(super) async fn enable_grant((State(api), Extension(call)): Context, PathParams(name): Named) -> Result<Response, Problem> {
    switch(&api, &call, ObjectKind::Grant, name, ENABLE).await
}

pub(super) async fn disable_grant(
    (State(api), Extension(call)): Context,
    PathParams(name): Named,
) -> Result<Response, Problem> {
    switch(&api, &call, ObjectKind::Grant, name, DISABLE).await
}

pub(super) async fn revoke_session(
    (State(api), Extension(call)): Context,
    PathParams(name): Named,
) -> Result<Response, Problem> {
    switch(&api, &call, ObjectKind::Session, name, REVOKE).await
}

pub(super) async fn unrevoke_session(
    (State(api), Extension(call)): Context,
    PathParams(name): Named,
) -> Result<Response, Problem> {
    switch(&api, &call, ObjectKind::Session, name, UNREVOKE).await
}

pub(super) async fn delete_grant((State(api), Extension(call)): Context, PathParams(name): Named) -> Result<Response, Problem> {
    remove(&api, &call, ObjectKind::Grant, name).await
}

pub(super) async fn delete_session(
    (State(api), Extension(call)): Context,
    PathParams(name): Named,
) -> Result<Response, Problem> {
    remove(&api, &call, ObjectKind::Session, name).await
}
