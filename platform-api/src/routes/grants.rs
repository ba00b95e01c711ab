//! Grants and sessions: who may call what, and what a person has consented to.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use crds::{McpAccessGrantSpec, McpAgentSessionSpec, ObjectName, Subject};
use domain::Timestamp;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service_kit::Problem;
use service_kit::problem::{JsonBody, PathParams};

use super::Call;
use super::auth::unfit;
use super::objects::{administers, expected, find, is_dry, not_yours, page, pretended, tagged};
use super::servers::spec_of;
use crate::access::Standing;
use crate::api::{Api, json};
use crate::audit::{Fact, Topic};
use crate::control::Control;
use crate::identity::{accounts, teams};
use crate::objects::{AuditFact, Expected, Object, ObjectKind, Write};
use crate::publish::strict;

/// A grant or session, whole: what is read can be sent back.
#[derive(Serialize)]
struct View {
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

fn view(object: Object, now: Timestamp) -> View {
    let mut spec = match object.spec {
        Value::Object(spec) => spec,
        _ => Map::new(),
    };
    // A hash helps nobody but whoever wants to guess what it is of.
    spec.remove("tokenHash");
    let is = |name: &str| spec.get(name) == Some(&Value::Bool(true));
    let ends = spec
        .get("expiresAt")
        .and_then(Value::as_str)
        .and_then(|text| Timestamp::parse(text).ok());
    let phase = if is("disabled") {
        "Disabled"
    } else if is("revoked") {
        "Revoked"
    } else if ends.is_some_and(|end| end <= now) {
        "Expired"
    } else {
        "Active"
    };
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

fn shown(control: &Control, status: StatusCode, object: Object) -> Response {
    let (kind, revision) = (object.kind, object.revision);
    let body: Map<String, Value> = [(
        kind.word().to_owned(),
        serde_json::to_value(view(object, control.now())).unwrap_or_default(),
    )]
    .into_iter()
    .collect();
    tagged(status, revision, &body)
}

/// The server an object is about: its own namespace, and the name.
fn server_of(object: &Object) -> &str {
    object
        .spec
        .pointer("/serverRef/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

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

/// A body of fields of the spec, with name and namespace beside them.
fn split(body: Value) -> Result<(String, String, Value), Problem> {
    let Value::Object(mut fields) = body else {
        return Err(unfit("the body is not a JSON object"));
    };
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        None | Some(Value::Null | Value::String(_)) => Ok(None),
        Some(_) => Err(unfit(format!("`{name}` expects a text"))),
    };
    let (name, namespace) = (text("name")?, text("namespace")?);
    let server_namespace = fields
        .get("serverRef")
        .and_then(|server| server.get("namespace"))
        .and_then(Value::as_str);
    let namespace = namespace.or_else(|| server_namespace.map(str::to_owned));
    let name = name.ok_or_else(|| unfit("`name` is missing"))?;
    ObjectName::parse(&name).map_err(|error| unfit(format!("`name`: {error}")))?;
    // What answers tell beside the spec may be sent back, and is ours to say.
    for told in ["uid", "owner", "age", "updated_at", "revision", "phase"] {
        fields.remove(told);
    }
    Ok((name, namespace.unwrap_or_default(), Value::Object(fields)))
}

/// Subjects are written by people: addresses and slugs become the ids that calls carry.
async fn resolve(control: &Control, subject: &mut Subject, server: &Object) -> Result<(), Problem> {
    if subject.is_empty() {
        return Err(unfit("`subject` names nobody").with_hint("give humanID, agentID or teamID"));
    }
    if let Some(human) = subject.human().filter(|human| human.contains('@')).map(str::to_owned) {
        let account = accounts::find(control.database(), &human).await?;
        let (account, _) = account.ok_or_else(|| unfit(format!("`subject.humanID`: there is no account `{human}`")))?;
        subject.human_id = Some(account.id);
    }
    match subject.team().map(str::to_owned) {
        Some(team) => {
            if let Some(found) = teams::find(control.database(), &team).await? {
                subject.team_id = Some(found.id);
            }
        }
        // An agent alone is one of the server's own team.
        None if subject.human().is_none() => subject.team_id = spec_of(server).team_id,
        None => {}
    }
    Ok(())
}

/// What is special about one of the two kinds.
trait Access: DeserializeOwned + Serialize {
    const KIND: ObjectKind;
    const ACTION: &'static str;
    fn subject(&mut self) -> &mut Subject;
    fn server(&self) -> &crds::ServerRef;
    /// Keeps what only its own routes change, and checks the rest.
    fn settle(&mut self, before: Option<&Self>, given: &Value, server: &Object) -> Result<(), Problem>;
}

impl Access for McpAccessGrantSpec {
    const KIND: ObjectKind = ObjectKind::Grant;
    const ACTION: &'static str = "grant_apply";

    fn subject(&mut self) -> &mut Subject {
        &mut self.subject
    }

    fn server(&self) -> &crds::ServerRef {
        &self.server_ref
    }

    fn settle(&mut self, before: Option<&Self>, given: &Value, server: &Object) -> Result<(), Problem> {
        if given.get("disabled").is_none() {
            self.disabled = before.is_some_and(|before| before.disabled);
        }
        if self.allowed_side_effects.is_empty() {
            return Err(
                unfit("`allowedSideEffects` is empty, so the grant would allow nothing").with_hint("give at least `read`")
            );
        }
        self.policy_version.get_or_insert_with(|| "v1".to_owned());
        let tools = spec_of(server).tools;
        for (at, rule) in self.tool_rules.iter().enumerate() {
            if self.tool_rules.iter().take(at).any(|other| other.name == rule.name) {
                return Err(unfit(format!("`toolRules` names `{}` twice", rule.name)));
            }
            if tools.is_empty() || rule.name.contains('*') || tools.iter().any(|tool| tool.name == rule.name) {
                continue;
            }
            let scored = tools
                .iter()
                .map(|tool| (strsim::jaro_winkler(&tool.name, &rule.name), tool.name.as_str()));
            let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).map_or("", |(_, name)| name);
            return Err(unfit(format!(
                "`toolRules`: the server `{}` declares no tool `{}`",
                server.name, rule.name
            ))
            .with_hint(format!("did you mean `{nearest}`? tools are declared with `server deploy`")));
        }
        Ok(())
    }
}

impl Access for McpAgentSessionSpec {
    const KIND: ObjectKind = ObjectKind::Session;
    const ACTION: &'static str = "session_apply";

    fn subject(&mut self) -> &mut Subject {
        &mut self.subject
    }

    fn server(&self) -> &crds::ServerRef {
        &self.server_ref
    }

    fn settle(&mut self, before: Option<&Self>, given: &Value, _: &Object) -> Result<(), Problem> {
        if given.get("revoked").is_none() {
            self.revoked = before.is_some_and(|before| before.revoked);
        }
        if given.get("upstreamTokenSecretRef").is_none() {
            self.upstream_token_secret_ref = before.and_then(|before| before.upstream_token_secret_ref.clone());
        }
        // Never told, so it cannot be sent back.
        if given.get("tokenHash").is_none() {
            self.token_hash = before.and_then(|before| before.token_hash.clone());
        }
        self.policy_version.get_or_insert_with(|| "v1".to_owned());
        Ok(())
    }
}

async fn apply<T: Access>(api: &Api, call: &Call, body: Value) -> Result<Response, Problem> {
    let control = api.control()?;
    let (name, namespace, given) = split(body)?;
    let mut spec: T = strict(given.clone(), T::KIND.word())?;
    let namespace = if namespace.is_empty() {
        call.default_namespace().to_owned()
    } else {
        namespace
    };
    if spec.server().namespace_from(&namespace) != namespace {
        return Err(unfit("`serverRef.namespace` is another namespace than the object's own")
            .with_hint("put the object into the namespace of its server"));
    }
    let server = administered(control, call, &namespace, &spec.server().name.clone()).await?;
    resolve(control, spec.subject(), &server).await?;
    let before = control.objects().find(T::KIND, &namespace, &name).await?;
    let kept: Option<T> = before
        .as_ref()
        .and_then(|before| serde_json::from_value(before.spec.clone()).ok());
    spec.settle(kept.as_ref(), &given, &server)?;
    let write = Write {
        kind: T::KIND,
        namespace,
        name: name.clone(),
        owner: call.caller.name.clone(),
        labels: before.as_ref().map(|before| before.labels.clone()).unwrap_or_default(),
        spec: serde_json::to_value(&spec).map_err(Problem::internal)?,
        expected: before.as_ref().map_or(Expected::Absent, |before| expected(call, before)),
        quota: None,
        now: control.now(),
    };
    if is_dry(call) {
        return Ok(shown(control, StatusCode::OK, pretended(write, before)));
    }
    let object = put(control, call, write, T::ACTION, &server).await?;
    Ok(shown(control, StatusCode::OK, object))
}

async fn put(control: &Control, call: &Call, write: Write, action: &'static str, server: &Object) -> Result<Object, Problem> {
    let fact = access_fact(call, action, write.kind, (&write.namespace, &write.name), &write.spec);
    let object = control
        .objects()
        .put(
            write,
            AuditFact(Fact {
                team_id: spec_of(server).team_id,
                ..fact
            }),
        )
        .await?;
    control.facts_written();
    Ok(object)
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
    let mut spec = object.spec.clone();
    if let Value::Object(fields) = &mut spec {
        fields.insert(flag.to_owned(), Value::Bool(to));
    }
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

#[derive(Serialize)]
struct Removed {
    success: bool,
    namespace: String,
    name: String,
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
