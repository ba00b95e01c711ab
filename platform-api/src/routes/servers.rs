//! Servers: publishing, looking, retiring.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use crds::McpServerSpec;
use crds::server::{CatalogEntry, McpServerStatus, ToolSpec};
use domain::{ServerName, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::Problem;
use service_kit::problem::{JsonBody, PathParams};

use super::Call;
use super::auth::unfit;
use super::objects::{administers, expected, find, is_dry, not_yours, page, pretended, tagged};
use crate::api::{Api, json as answer};
use crate::audit::{Ended, Fact, Topic};
use crate::control::Control;
use crate::identity::{TEAM_NAMESPACE_PREFIX, teams};
use crate::objects::{AuditFact, Expected, Object, ObjectKind, Query, Quota, Write};
use crate::publish::{self, Scope, complete, strict};

/// Labels that say what we know; callers cannot set them.
const RESERVED_LABELS: [&str; 3] = ["mcpruntime.org/", "platform.mcpruntime.org/", "app.kubernetes.io/managed-by"];
const SCOPE_LABEL: &str = "mcpruntime.org/scope";
const LABELS_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 253;

/// A server under the predecessor's names, and some more.
#[derive(Serialize)]
struct ServerView {
    name: String,
    namespace: String,
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_id: Option<String>,
    owner: String,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(rename = "imageTag", skip_serializing_if = "Option::is_none")]
    image_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Whether the newest revision is up.
    ready: bool,
    /// `Ready`, or what it is doing.
    status: String,
    /// Why, when it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    labels: BTreeMap<String, String>,
    /// When it was made.
    age: Timestamp,
    updated_at: Timestamp,
    /// Where clients connect.
    endpoint: String,
    #[serde(rename = "authMode")]
    auth_mode: &'static str,
    governed: bool,
    #[serde(rename = "servicePort")]
    service_port: u16,
    revision: i64,
    generation: i64,
    /// The generation that `status` is about.
    #[serde(rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    observed_generation: Option<i64>,
    tools: Vec<ToolSpec>,
    prompts: Vec<CatalogEntry>,
    resources: Vec<CatalogEntry>,
    tasks: Vec<CatalogEntry>,
    /// What to paste into a client's configuration.
    access_json: Value,
    /// The whole spec, as it is kept.
    spec: Value,
    /// The whole status, as far as known.
    #[serde(rename = "statusDetail", skip_serializing_if = "Option::is_none")]
    status_detail: Option<Value>,
}

/// The spec of a kept server. What cannot be read any more is shown as it is, with empty fields.
pub(super) fn spec_of(object: &Object) -> McpServerSpec {
    serde_json::from_value(object.spec.clone()).unwrap_or_default()
}

/// Where clients reach a server.
pub(super) fn endpoint(control: &Control, spec: &McpServerSpec, name: &str) -> String {
    let prefix = spec
        .public_path_prefix
        .as_deref()
        .map_or(name, |prefix| prefix.trim_matches('/'));
    let base = control.config().servers_url.trim_end_matches('/');
    match spec.ingress_host.as_deref().filter(|host| !host.is_empty()) {
        Some(host) => format!("https://{host}/{prefix}/mcp"),
        None => format!("{base}/{prefix}/mcp"),
    }
}

fn view(control: &Control, object: Object) -> ServerView {
    let spec = spec_of(&object);
    let endpoint = endpoint(control, &spec, &object.name);
    let status: McpServerStatus = object
        .status
        .clone()
        .and_then(|status| serde_json::from_value(status).ok())
        .unwrap_or_default();
    let current = status.observed_generation.is_some_and(|seen| seen >= object.generation);
    let phase = status.phase.unwrap_or_else(|| "Pending".to_owned());
    ServerView {
        access_json: json!({"mcpServers": {object.name.as_str(): {"type": "http", "url": endpoint}}}),
        endpoint,
        ready: current && phase == "Ready",
        status: if current || phase != "Ready" {
            phase
        } else {
            "Updating".to_owned()
        },
        message: status.message,
        observed_generation: status.observed_generation,
        scope: Scope::of(&object.namespace).as_str(),
        team_id: spec.team_id.clone(),
        auth_mode: spec.auth.clone().unwrap_or_default().mode().as_str(),
        governed: spec.is_governed(),
        service_port: spec.service_port(),
        image: spec.image,
        image_tag: spec.image_tag,
        description: spec.description,
        tools: spec.tools,
        prompts: spec.prompts,
        resources: spec.mcp_resources,
        tasks: spec.tasks,
        name: object.name,
        namespace: object.namespace,
        uid: object.uid,
        owner: object.owner,
        labels: object.labels,
        age: object.created_at,
        updated_at: object.updated_at,
        revision: object.revision,
        generation: object.generation,
        spec: object.spec,
        status_detail: object.status,
    }
}

#[derive(Serialize)]
struct PublishPolicy {
    active_server_limit: Option<u32>,
    active_server_count: usize,
    active_server_limit_enabled: bool,
    can_publish: bool,
    push_cooldown_seconds: u64,
    push_cooldown_enabled: bool,
}

#[derive(Serialize)]
struct ServerList {
    servers: Vec<ServerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    publish_policy: PublishPolicy,
}

pub(super) async fn list(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let control = api.control()?;
    let wanted = call.params.text("q").map(str::to_lowercase);
    let matches = |object: &Object| {
        wanted.as_ref().is_none_or(|wanted| {
            let described = object.spec.get("description").and_then(Value::as_str).unwrap_or_default();
            object.name.contains(wanted) || described.to_lowercase().contains(wanted)
        })
    };
    let (found, next) = page(control, &call, ObjectKind::Server, matches).await?;
    let owned = found.iter().filter(|object| object.owner == call.caller.name).count();
    let config = control.config();
    let limit = config.servers_max.filter(|_| !call.caller.admin);
    Ok(answer(ServerList {
        publish_policy: PublishPolicy {
            active_server_limit: limit,
            active_server_count: owned,
            active_server_limit_enabled: limit.is_some(),
            can_publish: limit.is_none_or(|limit| owned < limit as usize),
            push_cooldown_seconds: config.push_cooldown.as_secs(),
            push_cooldown_enabled: !config.push_cooldown.is_zero(),
        },
        servers: found.into_iter().map(|object| view(control, object)).collect(),
        next: next.map(|next| call.params.link("/api/v1/runtime/servers", "after", &next)),
    }))
}

#[derive(Serialize)]
struct ServerAnswer {
    server: ServerView,
}

fn shown(control: &Control, status: StatusCode, object: Object) -> Response {
    let revision = object.revision;
    tagged(
        status,
        revision,
        &ServerAnswer {
            server: view(control, object),
        },
    )
}

type Named = PathParams<(String, String)>;

pub(super) async fn get(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams((namespace, name)): Named,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let object = find(control, &call, ObjectKind::Server, &namespace, &name).await?;
    Ok(shown(control, StatusCode::OK, object))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publication {
    name: String,
    namespace: Option<String>,
    scope: Option<Scope>,
    /// Whether a server that is there is replaced.
    #[serde(default)]
    update: bool,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    spec: Value,
}

pub(super) async fn publish(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): JsonBody<Publication>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let name = ServerName::parse(&wish.name).map_err(|error| unfit(format!("`name`: {error}")))?;
    let done = put(control, &call, &name, wish).await;
    if let Err(problem) = &done {
        refused(control, &call, &name, problem).await?;
    }
    done
}

/// Tells of a publication that was refused for what the caller may do, not for how it was written.
async fn refused(control: &Control, call: &Call, name: &ServerName, problem: &Problem) -> Result<(), Problem> {
    if !matches!(problem.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return Ok(());
    }
    let mut fact = Fact {
        ended: Ended::Refused,
        ..call.fact(Topic::Audit, "server_publish", format!("server/{name}"))
    };
    fact.details.push(("reason", problem.code.to_owned()));
    let transaction = control.database().write().await?;
    control.commit(transaction, fact).await
}

async fn put(control: &Control, call: &Call, name: &ServerName, wish: Publication) -> Result<Response, Problem> {
    let namespace = publish::target(&call.caller, wish.scope, wish.namespace.as_deref())?;
    domain::Namespace::parse(&namespace).map_err(|error| unfit(format!("`namespace`: {error}")))?;
    let team = teams::find(control.database(), &namespace)
        .await?
        .filter(|team| team.namespace == namespace);
    if team.is_none() && namespace.starts_with(TEAM_NAMESPACE_PREFIX) {
        return Err(unfit(format!("there is no team with the namespace `{namespace}`")));
    }
    let spec: McpServerSpec = strict(wish.spec, "spec")?;
    let team_id = team.as_ref().map(|team| team.id.as_str());
    let spec = complete(name, &namespace, team_id, control.config().registry.as_deref(), spec)?;
    if publish::runs_on_our_machine(&spec) && !call.caller.admin {
        return Err(Problem::forbidden(
            "a server that is a command runs on the platform's own machine, so only administrators publish one",
        )
        .with_code("forbidden_command")
        .with_hint(
            "publish an image, or the address of a server that runs already: mcp-runtime server deploy NAME --upstream URL",
        ));
    }
    let before = control.objects().find(ObjectKind::Server, &namespace, name.as_str()).await?;
    if let Some(before) = &before {
        may_replace(control, call, before, wish.update)?;
    }
    free_route(control, call, &namespace, name.as_str(), &spec).await?;
    let write = Write {
        kind: ObjectKind::Server,
        expected: before.as_ref().map_or(Expected::Absent, |before| expected(call, before)),
        namespace: namespace.clone(),
        name: name.to_string(),
        owner: call.caller.name.clone(),
        labels: labels(wish.labels, before.as_ref(), &namespace)?,
        spec: serde_json::to_value(spec).map_err(Problem::internal)?,
        quota: control
            .config()
            .servers_max
            .filter(|_| !call.caller.admin)
            .map(|max| Quota { max }),
        now: control.now(),
    };
    let status = if before.is_some() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    if is_dry(call) {
        return Ok(shown(control, status, pretended(write, before)));
    }
    let fact = Fact {
        namespace: Some(namespace),
        server: Some(name.to_string()),
        team_id: team.map(|team| team.id),
        details: vec![("update", wish.update.to_string())],
        ..call.fact(Topic::Audit, "server_publish", format!("server/{name}"))
    };
    let object = control.objects().put(write, AuditFact(fact)).await?;
    control.facts_written();
    Ok(shown(control, status, object))
}

fn may_replace(control: &Control, call: &Call, before: &Object, update: bool) -> Result<(), Problem> {
    if !administers(call, before) {
        return Err(not_yours(before));
    }
    if !update {
        return Err(Problem::conflict(format!(
            "there is a server `{}` in `{}` already",
            before.name, before.namespace
        ))
        .with_code("already_exists")
        .with_hint("replace it on purpose: mcp-runtime server deploy NAME --update"));
    }
    let cooldown = control.config().push_cooldown;
    let passed = control.now().since(before.updated_at);
    if passed < cooldown {
        let wait = cooldown.saturating_sub(passed).max(Duration::from_secs(1));
        let next = control.now().plus(wait);
        return Err(Problem::too_many_requests(
            format!("the server was published less than {} s ago", cooldown.as_secs()),
            wait,
        )
        .with_code("server_push_cooldown_active")
        .with_hint(format!("the next publication is allowed at {next}")));
    }
    Ok(())
}

/// One route belongs to one server: the second claimant is told who has it.
async fn free_route(control: &Control, call: &Call, namespace: &str, name: &str, spec: &McpServerSpec) -> Result<(), Problem> {
    let wanted = (
        spec.ingress_host.as_deref().unwrap_or_default(),
        spec.public_path_prefix.as_deref(),
    );
    let mut after = None;
    loop {
        let query = Query {
            kind: ObjectKind::Server,
            namespaces: None,
            after: after.take(),
            limit: 500,
        };
        let read = control.objects().list(query).await?;
        for other in read
            .iter()
            .filter(|other| (other.namespace.as_str(), other.name.as_str()) != (namespace, name))
        {
            let theirs = spec_of(other);
            if (
                theirs.ingress_host.as_deref().unwrap_or_default(),
                theirs.public_path_prefix.as_deref(),
            ) == wanted
            {
                let who = if call.caller.standing(&other.namespace) > crate::access::Standing::Stranger {
                    format!("the server `{}` in `{}`", other.name, other.namespace)
                } else {
                    "a server of another team".to_owned()
                };
                let prefix = wanted.1.unwrap_or(name);
                return Err(Problem::conflict(format!("the route /{prefix}/mcp belongs to {who}"))
                    .with_code("route_taken")
                    .with_hint("choose another `publicPathPrefix`"));
            }
        }
        match read.last().filter(|_| read.len() == 500) {
            Some(last) => after = Some((last.namespace.clone(), last.name.clone())),
            None => return Ok(()),
        }
    }
}

/// The caller's labels, with ours: nobody can pretend to be of another scope or owner.
fn labels(
    wished: BTreeMap<String, String>,
    before: Option<&Object>,
    namespace: &str,
) -> Result<BTreeMap<String, String>, Problem> {
    if wished.len() > LABELS_MAX {
        return Err(unfit(format!(
            "`labels` has {} entries, at most {LABELS_MAX} are kept",
            wished.len()
        )));
    }
    for (name, value) in &wished {
        if name.is_empty() || name.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            return Err(unfit(format!(
                "`labels`: names have 1 to {LABEL_BYTES_MAX} bytes and values at most as many"
            )));
        }
        let ours = RESERVED_LABELS.iter().any(|reserved| name.starts_with(reserved));
        if ours && before.and_then(|before| before.labels.get(name)) != Some(value) {
            return Err(unfit(format!("the label `{name}` is set by the platform alone")));
        }
    }
    let mut labels = wished;
    labels.insert(SCOPE_LABEL.to_owned(), Scope::of(namespace).as_str().to_owned());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "mcp-runtime".to_owned());
    Ok(labels)
}

#[derive(Serialize)]
struct Removed {
    success: bool,
    namespace: String,
    name: String,
    /// Grants and sessions that went with it.
    #[serde(rename = "removed")]
    others: Vec<String>,
}

pub(super) async fn retire(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams((namespace, name)): Named,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let mut object = find(control, &call, ObjectKind::Server, &namespace, &name).await?;
    if !administers(&call, &object) {
        return Err(not_yours(&object));
    }
    object.revision = call.if_match.unwrap_or(object.revision);
    let removed = if is_dry(&call) {
        Vec::new()
    } else {
        let fact = Fact {
            namespace: Some(namespace.clone()),
            server: Some(name.clone()),
            team_id: spec_of(&object).team_id,
            ..call.fact(Topic::Audit, "server_retire", format!("server/{name}"))
        };
        let gone = control.objects().remove(&object, AuditFact(fact), control.now()).await?;
        control.facts_written();
        let others = gone.iter().filter(|gone| gone.kind != ObjectKind::Server);
        others.map(|gone| format!("{}/{}", gone.kind.word(), gone.name)).collect()
    };
    Ok(answer(Removed {
        success: true,
        namespace,
        name,
        others: removed,
    }))
}
