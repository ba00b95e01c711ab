//! Sessions for adapters: a credential that nobody can guess, for one person, agent and server, as far as grants reach.
//!
//! Each answer tells where the server is and which headers to send, so that an adapter needs nothing else. A session is an
//! `MCPAgentSession` like any other: its policy document holds the hash of the credential, and revoking it works at once.

mod view;

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use crds::word::TrustLevel;
use crds::{McpAgentSessionSpec, ServerRef, Subject};
use domain::policy::token_hash;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use service_kit::problem::{JsonBody, PathParams, RawBody};
use service_kit::{Problem, parse_duration};

use super::Call;
use super::auth::unfit;
use super::grants::{Removed, access_fact};
use super::objects::{administers, all, find};
use super::servers::spec_of;
use super::system::optional_body;
use crate::access::Standing;
use crate::adapter::{Asker, Footing, ends, footing};
use crate::api::{Api, json};
use crate::audit::{Ended, Fact};
use crate::control::Control;
use crate::identity::PUBLIC_NAMESPACE;
use crate::identity::secret::{Purpose, Secret};
use crate::objects::manifests::{Governed, every, manifest};
use crate::objects::{AuditFact, Expected, Object, ObjectKind, Write};

/// Marks sessions that this API issued.
const ISSUED_LABEL: &str = "mcpruntime.org/adapter";
/// Sessions that one person may have open for one agent and server.
const LIVE_MAX: usize = 32;
/// Ended sessions that are removed when another one is issued.
const SWEPT_MAX: usize = 20;
/// How long an ended session can still be looked at.
const ENDED_KEPT: Duration = Duration::from_hours(24);
const AGENT_BYTES_MAX: usize = 128;

/// Whether a session was issued to an adapter.
pub(super) fn is_issued(object: &Object) -> bool {
    object.kind == ObjectKind::Session && object.labels.contains_key(ISSUED_LABEL)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Wish {
    server_name: String,
    namespace: Option<String>,
    #[serde(rename = "agentID")]
    agent_id: String,
    /// `low` when absent.
    requested_trust: Option<TrustLevel>,
    /// Such as `1h`, which it is when absent.
    #[serde(rename = "requestedTTL")]
    requested_ttl: Option<String>,
}

pub(super) async fn issue(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): JsonBody<Wish>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    check_agent(&wish.agent_id)?;
    let life = wished_life(wish.requested_ttl.as_deref())?;
    let server = server_named(control, &call, &wish).await?;
    let done = issue_for(control, &call, &server, &wish, life).await;
    if let Err(problem) = &done
        && matches!(problem.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
    {
        refused(control, &call, &server, &wish.agent_id, problem).await?;
    }
    done
}

/// The agent goes into a header as it is.
fn check_agent(agent: &str) -> Result<(), Problem> {
    let fits = !agent.is_empty() && agent.len() <= AGENT_BYTES_MAX && agent.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(())
    } else {
        Err(unfit(format!(
            "`agentID` expects 1 to {AGENT_BYTES_MAX} visible ASCII characters without blanks, such as `cursor`"
        )))
    }
}

fn wished_life(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let life = text.map(parse_duration).transpose();
    let life = life.map_err(|error| unfit(format!("`requestedTTL`: {error}")))?;
    if life.is_some_and(|life| life < Duration::from_secs(1)) {
        return Err(unfit("`requestedTTL` is less than a second"));
    }
    Ok(life)
}

/// The server that is meant. Without a namespace, the one server of that name that the caller may see, their own namespace's first.
async fn server_named(control: &Control, call: &Call, wish: &Wish) -> Result<Object, Problem> {
    let name = wish.server_name.as_str();
    if let Some(namespace) = wish.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        let found = control.objects().find(ObjectKind::Server, namespace, name).await?;
        return found.ok_or_else(|| unknown(namespace, name));
    }
    let mut named = all(control, call, ObjectKind::Server).await?;
    named.retain(|server| server.name == name);
    let home = call.default_namespace();
    if let Some(own) = named.iter().position(|server| server.namespace == home) {
        return Ok(named.swap_remove(own));
    }
    match named.len() {
        0 => Err(unknown(home, name)),
        1 => Ok(named.remove(0)),
        _ => {
            let places: Vec<_> = named.iter().map(|server| server.namespace.as_str()).collect();
            Err(unfit(format!("there are servers `{name}` in {}", places.join(", ")))
                .with_hint("say which one is meant: --namespace NAMESPACE"))
        }
    }
}

fn unknown(namespace: &str, name: &str) -> Problem {
    Problem::not_found(format!(
        "there is no server `{name}` in the namespace `{namespace}` that you may use"
    ))
    .with_hint("list those there are: mcp-runtime server list")
}

async fn issue_for(
    control: &Control,
    call: &Call,
    server: &Object,
    wish: &Wish,
    life: Option<Duration>,
) -> Result<Response, Problem> {
    let governed = Governed::read(control.objects(), server).await?;
    let footing = stand(control, call, &governed, &wish.agent_id)?;
    make_room(control, call, server, &wish.agent_id).await?;
    let now = control.now();
    let secret = Secret::fresh(Purpose::Adapter).map_err(Problem::internal)?;
    let trust = wish.requested_trust.unwrap_or(TrustLevel::Low).min(footing.trust_max);
    let spec = McpAgentSessionSpec {
        server_ref: ServerRef {
            name: server.name.clone(),
            namespace: None,
        },
        subject: Subject {
            human_id: Some(call.caller.name.clone()),
            agent_id: Some(wish.agent_id.clone()),
            team_id: footing.team.clone(),
        },
        consented_trust: Some(trust),
        expires_at: Some(ends(&governed.server, now, life, now)),
        revoked: false,
        revoked_at: None,
        token_hash: Some(token_hash(secret.reveal())),
        upstream_token_secret_ref: None,
        policy_version: Some(footing.policy_version.clone().unwrap_or_else(|| "v1".to_owned())),
    };
    let write = Write {
        kind: ObjectKind::Session,
        namespace: server.namespace.clone(),
        name: fresh_name()?,
        owner: call.caller.name.clone(),
        labels: [(ISSUED_LABEL.to_owned(), "true".to_owned())].into(),
        spec: serde_json::to_value(&spec).map_err(Problem::internal)?,
        expected: Expected::Absent,
        quota: None,
        now,
    };
    let object = put(control, call, write, "adapter_session_issue", &footing).await?;
    view::answer(control, StatusCode::CREATED, &object, &governed, &footing, Some(&secret))
}

/// A name that tells nothing. It is no secret.
fn fresh_name() -> Result<String, Problem> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(Problem::internal)?;
    Ok(format!("adapter-{}", hex::encode(bytes)))
}

async fn put(control: &Control, call: &Call, write: Write, action: &'static str, footing: &Footing) -> Result<Object, Problem> {
    let mut fact = access_fact(call, action, write.kind, (&write.namespace, &write.name), &write.spec);
    fact.team_id.clone_from(&footing.team);
    fact.details.push(("grant", footing.grant.clone()));
    fact.details
        .extend(text_at(&write.spec, "/expiresAt").map(|end| ("expires_at", end.to_owned())));
    let object = control.objects().put(write, AuditFact(fact)).await?;
    control.facts_written();
    Ok(object)
}

/// What the caller's session with an agent stands on. Strangers without a grant that names them are told of no server.
fn stand(control: &Control, call: &Call, governed: &Governed, agent: &str) -> Result<Footing, Problem> {
    let metadata = &governed.server.metadata;
    let (namespace, name) = (metadata.namespace.as_str(), metadata.name.as_str());
    let is_inside = call.caller.standing(namespace) > Standing::Stranger;
    let is_confined = call
        .caller
        .namespaces
        .as_ref()
        .is_some_and(|own| !own.iter().any(|own| own == namespace));
    let memberships = call.caller.principal.as_ref().map_or(&[][..], |principal| &principal.teams);
    let mut teams: Vec<&str> = memberships.iter().map(|team| team.id.as_str()).collect();
    // Keys of programs are members of their namespaces, not of teams.
    let is_program = call.caller.principal.is_none() && call.caller.standing(namespace) >= Standing::Member;
    teams.extend(governed.server.spec.team().filter(|_| is_program));
    let asker = Asker {
        human: &call.caller.name,
        agent,
        teams,
        admin: call.caller.admin,
        is_inside,
    };
    let found = footing(&governed.server, &governed.grants, &asker, control.now()).filter(|_| !is_confined);
    found.ok_or_else(|| {
        if !is_inside {
            return unknown(namespace, name);
        }
        let who = call.caller.email().unwrap_or(&call.caller.name);
        Problem::forbidden(format!("no grant lets {who} use the server `{name}` as the agent `{agent}`"))
            .with_code("no_grant")
            .with_hint(format!(
                "an owner of the server makes one: mcp-runtime access grant init {agent} --namespace {namespace} --server {name} --agent-id {agent}"
            ))
    })
}

/// Refuses while a revoked session of the same person and agent is there, or too many live ones; removes ended ones.
async fn make_room(control: &Control, call: &Call, server: &Object, agent: &str) -> Result<(), Problem> {
    let sessions = every(control.objects(), ObjectKind::Session, Some(vec![server.namespace.clone()])).await?;
    let now = control.now();
    let of_server = |object: &&Object| is_issued(object) && text_at(&object.spec, "/serverRef/name") == Some(&server.name);
    let (mut live, mut swept) = (0, 0);
    for session in sessions.iter().filter(of_server) {
        let is_revoked = session.spec.get("revoked") == Some(&Value::Bool(true));
        let is_theirs = is_holder(call, session) && text_at(&session.spec, "/subject/agentID") == Some(agent);
        match (is_theirs, is_revoked, end_of(session)) {
            (true, true, _) => return Err(revoked(session)),
            (_, false, Some(end)) if now.since(end) > ENDED_KEPT && swept < SWEPT_MAX => {
                swept += 1;
                let fact = fact(call, "adapter_session_sweep", session);
                // Somebody else may sweep at the same moment.
                drop(control.objects().remove(session, AuditFact(fact), now).await);
            }
            (true, false, Some(end)) if end > now => live += 1,
            _ => {}
        }
    }
    if live < LIVE_MAX {
        return Ok(());
    }
    Err(Problem::too_many_requests(
        format!("you have {live} open sessions for the agent `{agent}` and this server, which is the most"),
        Duration::from_mins(1),
    )
    .with_code("too_many_sessions")
    .with_hint("end those that nobody uses: mcp-runtime access session list, mcp-runtime access session delete NAME"))
}

fn revoked(session: &Object) -> Problem {
    Problem::forbidden(format!(
        "the session `{}` of this person and agent was revoked, so no other one is made",
        session.name
    ))
    .with_code("session_revoked")
    .with_hint(format!(
        "whoever administers the server undoes it: mcp-runtime access session unrevoke {}",
        session.name
    ))
}

fn text_at<'a>(spec: &'a Value, pointer: &str) -> Option<&'a str> {
    spec.pointer(pointer).and_then(Value::as_str)
}

fn end_of(session: &Object) -> Option<domain::Timestamp> {
    text_at(&session.spec, "/expiresAt").and_then(|text| domain::Timestamp::parse(text).ok())
}

fn is_holder(call: &Call, session: &Object) -> bool {
    text_at(&session.spec, "/subject/humanID") == Some(&call.caller.name)
}

fn fact(call: &Call, action: &'static str, session: &Object) -> Fact {
    access_fact(call, action, session.kind, (&session.namespace, &session.name), &session.spec)
}

/// Tells of a session that was refused for what the caller may do, not for how it was asked for.
async fn refused(control: &Control, call: &Call, server: &Object, agent: &str, problem: &Problem) -> Result<(), Problem> {
    let mut fact = Fact {
        ended: Ended::Refused,
        namespace: Some(server.namespace.clone()),
        server: Some(server.name.clone()),
        team_id: spec_of(server).team_id,
        ..call.fact(
            crate::audit::Topic::Access,
            "adapter_session_issue",
            format!("server/{}", server.name),
        )
    };
    fact.details
        .extend([("agent", agent.to_owned()), ("reason", problem.code.to_owned())]);
    let transaction = control.database().write().await?;
    control.commit(transaction, fact).await
}

type Named = PathParams<(String, String)>;

/// A session that an adapter of the caller holds.
async fn own(control: &Control, call: &Call, (namespace, name): &(String, String)) -> Result<Object, Problem> {
    let found = control.objects().find(ObjectKind::Session, namespace, name).await?;
    found
        .filter(|session| is_issued(session) && is_holder(call, session))
        .ok_or_else(|| {
            Problem::not_found(format!("you have no session `{name}` in the namespace `{namespace}`"))
                .with_hint("list yours: mcp-runtime access session list")
        })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Refresh {
    #[serde(rename = "requestedTTL")]
    requested_ttl: Option<String>,
}

/// Lets a live session go on. Its credential stays, so that calls under way are not disturbed; grants are looked at again.
pub(super) async fn refresh(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(named): Named,
    RawBody(body): RawBody,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let wish: Refresh = optional_body(&body)?;
    let life = wished_life(wish.requested_ttl.as_deref())?;
    let session = own(control, &call, &named).await?;
    let mut spec: McpAgentSessionSpec = serde_json::from_value(session.spec.clone()).map_err(Problem::internal)?;
    if spec.revoked {
        return Err(revoked(&session));
    }
    let now = control.now();
    if spec.expires_at.is_none_or(|end| end <= now) {
        return Err(Problem::conflict(format!("the session `{}` has ended", session.name))
            .with_code("session_ended")
            .with_hint("ask for another one"));
    }
    let server = control
        .objects()
        .find(ObjectKind::Server, &session.namespace, &spec.server_ref.name)
        .await?;
    let server = server.ok_or_else(|| unknown(&session.namespace, &spec.server_ref.name))?;
    let governed = Governed::read(control.objects(), &server).await?;
    let agent = spec.subject.agent().unwrap_or_default().to_owned();
    let footing = stand(control, &call, &governed, &agent)?;
    spec.consented_trust = Some(spec.consented_trust().min(footing.trust_max));
    spec.subject.team_id.clone_from(&footing.team);
    spec.expires_at = Some(ends(&governed.server, session.created_at, life, now));
    let write = Write {
        kind: ObjectKind::Session,
        namespace: session.namespace.clone(),
        name: session.name.clone(),
        owner: session.owner.clone(),
        labels: session.labels.clone(),
        spec: serde_json::to_value(&spec).map_err(Problem::internal)?,
        expected: Expected::Revision(session.revision),
        quota: None,
        now,
    };
    let object = put(control, &call, write, "adapter_session_refresh", &footing).await?;
    view::answer(control, StatusCode::OK, &object, &governed, &footing, None)
}

/// Ends a session. Its holder may, except for a revoked one: that would undo the revocation.
pub(super) async fn end(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(named): Named,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let session = match own(control, &call, &named).await {
        Ok(session) => session,
        Err(missing) => {
            let other = find(control, &call, ObjectKind::Session, &named.0, &named.1).await;
            other.ok().filter(is_issued).ok_or(missing)?
        }
    };
    let server = text_at(&session.spec, "/serverRef/name").unwrap_or_default();
    let server = control.objects().find(ObjectKind::Server, &session.namespace, server).await?;
    let is_administered = server.is_some_and(|server| administers(&call, &server));
    if !is_administered && !is_holder(&call, &session) {
        return Err(Problem::forbidden(
            "the session is neither yours nor one of a server that you administer",
        ));
    }
    if !is_administered && session.spec.get("revoked") == Some(&Value::Bool(true)) {
        return Err(revoked(&session));
    }
    let fact = fact(&call, "adapter_session_end", &session);
    control.objects().remove(&session, AuditFact(fact), control.now()).await?;
    control.facts_written();
    let (namespace, name) = named;
    Ok(json(Removed {
        success: true,
        namespace,
        name,
    }))
}

/// Ends the sessions of somebody who has lost what they stood on: all of an account, or those that count for a team.
pub(super) async fn end_all(control: &Control, call: &Call, human: &str, team: Option<&str>) -> Result<(), Problem> {
    for session in every(control.objects(), ObjectKind::Session, None).await? {
        let is_theirs = is_issued(&session) && text_at(&session.spec, "/subject/humanID") == Some(human);
        // Leaving a team must not undo a revocation.
        let is_of_team = team.is_none_or(|team| {
            text_at(&session.spec, "/subject/teamID") == Some(team) && session.spec.get("revoked") != Some(&Value::Bool(true))
        });
        if is_theirs && is_of_team {
            let fact = fact(call, "adapter_session_end", &session);
            control.objects().remove(&session, AuditFact(fact), control.now()).await?;
        }
    }
    control.facts_written();
    Ok(())
}

/// The caller's sessions, newest first.
pub(super) async fn list(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let control = api.control()?;
    let wanted = call.params.text("server");
    let mut sessions = every(control.objects(), ObjectKind::Session, None).await?;
    sessions.retain(|session| {
        let server = text_at(&session.spec, "/serverRef/name");
        is_issued(session) && is_holder(&call, session) && wanted.is_none_or(|wanted| server == Some(wanted))
    });
    sessions.sort_by(|one, other| other.created_at.cmp(&one.created_at).then(one.name.cmp(&other.name)));
    sessions.truncate(call.params.count("limit") as usize);
    Ok(json(view::Sessions::of(&sessions, control.now())))
}

/// What everybody may do at a public server without saying who they are: where it is, and which methods pass.
pub(super) async fn anonymous(State(api): State<Api>, PathParams(name): PathParams<String>) -> Result<Response, Problem> {
    let control = api.control()?;
    let found = control.objects().find(ObjectKind::Server, PUBLIC_NAMESPACE, &name).await?;
    let server = found.ok_or_else(|| {
        Problem::not_found(format!("there is no public server `{name}`"))
            .with_hint("log in to use others: mcp-runtime auth login")
    })?;
    let governed = Governed {
        server: manifest(&server).map_err(Problem::internal)?,
        grants: Vec::new(),
        sessions: Vec::new(),
        unread: Vec::new(),
    };
    Ok(json(view::Anonymous::of(control, &governed)))
}

/// A text that may go into a header; what may not is left out rather than sent wrong.
fn header_safe(text: &str) -> Option<&str> {
    HeaderValue::from_str(text).ok().map(|_| text)
}
