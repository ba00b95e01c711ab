//! What the policy of a server says: the document, why a call is decided as it is, and who would gain or lose by a change.
//!
//! All of it is made from the objects as they are now, by the same functions that the gateway's document is made and judged with.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use crds::McpServerSpec;
use crds::server::{McpServerStatus, PolicyStatus};
use domain::policy::explain::{Explanation, Step};
use domain::policy::{Arguments, Call as PolicyCall, Claims, Document, Presented, Reason, Target, Verdict, diff, explain};
use domain::{Decision, Identity, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service_kit::Problem;
use service_kit::problem::{JsonBody, PathParams};

use super::Call;
use super::auth::unfit;
use super::grants::apply::grant_of;
use super::objects::{administers, find, not_yours};
use crate::api::{Api, json};
use crate::control::Control;
use crate::identity::{Principal, accounts, teams};
use crate::objects::manifests::Governed;
use crate::objects::{Object, ObjectKind};
use crate::publish::strict;

/// Changes told at most; more of them are counted.
const CHANGES_MAX: usize = 1_000;

#[derive(Serialize)]
struct PolicyAnswer {
    policy: Document,
    revision: String,
    /// `rendered`: made now from the objects.
    source: &'static str,
    /// Objects that could not be read, as `grant/cursor`.
    unread: Vec<String>,
    /// What was handed to the gateways last, and how many have it; absent where nobody tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<PolicyStatus>,
}

/// A server that the caller administers.
async fn administered(control: &Control, call: &Call, namespace: &str, name: &str) -> Result<Object, Problem> {
    let server = find(control, call, ObjectKind::Server, namespace, name).await?;
    if administers(call, &server) {
        Ok(server)
    } else {
        Err(not_yours(&server))
    }
}

async fn shown(api: &Api, call: &Call, namespace: &str, name: &str) -> Result<Response, Problem> {
    let control = api.control()?;
    let server = administered(control, call, namespace, name).await?;
    let status = server.status.clone().unwrap_or_default();
    let status: McpServerStatus = serde_json::from_value(status).unwrap_or_default();
    let governed = Governed::read(control.objects(), &server).await?;
    let mut policy = governed.document("", control.now());
    for session in &mut policy.sessions {
        // A hash helps nobody but whoever wants to guess what it is of.
        session.token_hash.clear();
    }
    Ok(json(PolicyAnswer {
        revision: policy.revision.clone(),
        policy,
        source: "rendered",
        unread: governed.unread,
        published: status.policy,
    }))
}

pub(super) async fn inspect(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams((namespace, name)): PathParams<(String, String)>,
) -> Result<Response, Problem> {
    shown(&api, &call, &namespace, &name).await
}

/// The same, as the predecessor asks.
pub(super) async fn inspect_named(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let namespace = call
        .params
        .text("namespace")
        .filter(|text| !text.is_empty())
        .map_or_else(|| call.default_namespace().to_owned(), str::to_owned);
    let server = call.params.required("server")?.to_owned();
    shown(&api, &call, &namespace, &server).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    namespace: Option<String>,
    server: String,
    /// Id or address of a person: oneself when absent, nobody when empty.
    human: Option<String>,
    agent: Option<String>,
    /// Id or slug of a team; the server's, where the person is in it.
    team: Option<String>,
    /// Name of a session; the newest live one of that person and agent.
    session: Option<String>,
    tool: Option<String>,
    prompt: Option<String>,
    resource: Option<String>,
    method: Option<String>,
    /// Conditions count in the caller's favour when absent.
    arguments: Option<Value>,
    at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Explained {
    decision: Decision,
    reason: &'static str,
    /// What to do about it; empty when it passes.
    hint: &'static str,
    /// What would be decided, where the policy only observes.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_be: Option<Told>,
    human: String,
    agent: String,
    team: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    steps: Vec<Checked>,
    /// The grant with the fewest obstacles, of a refused call.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<NearestGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched_session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_trust: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_trust: Option<&'static str>,
    revision: String,
}

#[derive(Serialize)]
struct Told {
    decision: Decision,
    reason: &'static str,
}

#[derive(Serialize)]
struct Checked {
    check: &'static str,
    finding: String,
    passed: bool,
}

#[derive(Serialize)]
struct NearestGrant {
    grant: String,
    obstacles: Vec<String>,
}

fn told(decision: Decision, reason: Reason) -> Told {
    Told {
        decision,
        reason: reason.as_str(),
    }
}

/// Why a call is decided as it is. Whoever does not administer the server asks about themselves, and learns only of grants that may be
/// theirs.
pub(super) async fn why(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(question): JsonBody<Question>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let namespace = question.namespace.as_deref().filter(|text| !text.is_empty());
    let namespace = namespace.unwrap_or_else(|| call.default_namespace());
    let server = find(control, &call, ObjectKind::Server, namespace, &question.server).await?;
    let is_administered = administers(&call, &server);
    let mut governed = Governed::read(control.objects(), &server).await?;
    let who = who(control, &call, &governed, &question).await?;
    if !is_administered {
        if who.human != call.caller.name {
            return Err(
                Problem::forbidden("only whoever administers the server may ask about somebody else")
                    .with_code("not_owner")
                    .with_hint("leave `human` out to ask about yourself"),
            );
        }
        confine(&mut governed, &who);
    }
    let at = question.at.unwrap_or_else(|| control.now());
    let session = session_of(&governed, &question, &who, at)?;
    let document = governed.document("", control.now());
    let arguments = question.arguments.as_ref().map(Value::to_string);
    let target = target(&question)?;
    let asked = PolicyCall {
        arguments: arguments.as_deref().map_or(Arguments::Any, Arguments::Json),
        claims: Claims {
            human: &who.human,
            agent: &who.agent,
            team: &who.team,
            identity: Identity::Asserted,
            scopes: None,
        },
        presented: session.as_ref().map_or(Presented::Nothing, |name| Presented::Certified {
            namespace: &server.namespace,
            name,
        }),
        ..PolicyCall::of(target)
    };
    let explanation = explain(&document, &asked, at);
    Ok(json(answer(explanation, who, session)))
}

/// Who is asked about, as calls carry it.
struct Who {
    human: String,
    agent: String,
    team: String,
    teams: Vec<String>,
}

async fn who(control: &Control, call: &Call, governed: &Governed, question: &Question) -> Result<Who, Problem> {
    let own = call.caller.principal.as_deref();
    let (human, principal): (String, Option<Principal>) = match question.human.as_deref() {
        None => (call.caller.name.clone(), own.cloned()),
        Some("") => (String::new(), None),
        Some(named) => match accounts::find(control.database(), named).await? {
            Some((account, _)) => {
                let principal = accounts::principal(control.database(), account, None).await?;
                (principal.account.id.clone(), Some(principal))
            }
            None if named.contains('@') => return Err(unfit(format!("`human`: there is no account `{named}`"))),
            None => (named.to_owned(), None),
        },
    };
    let of_person: Vec<String> = principal
        .iter()
        .flat_map(|found| &found.teams)
        .map(|team| team.id.clone())
        .collect();
    let home = governed.server.spec.team().unwrap_or_default();
    let own = || of_person.iter().find(|team| *team == home).cloned().unwrap_or_default();
    let team = if let Some(named) = question.team.as_deref() {
        let found = teams::find(control.database(), named).await?;
        found.map_or_else(|| named.to_owned(), |found| found.id)
    } else {
        own()
    };
    Ok(Who {
        human,
        agent: question.agent.clone().unwrap_or_default(),
        team,
        teams: of_person,
    })
}

/// Leaves what may be about this person; whose the rest is, is not theirs to know.
fn confine(governed: &mut Governed, who: &Who) {
    let is_theirs = |subject: &crds::Subject| {
        subject.human().is_none_or(|human| human == who.human)
            && subject.team().is_none_or(|team| who.teams.iter().any(|own| own == team))
    };
    governed.grants.retain(|grant| is_theirs(&grant.spec.subject));
    governed.sessions.retain(|session| is_theirs(&session.spec.subject));
}

/// The session that the call would present.
fn session_of(governed: &Governed, question: &Question, who: &Who, at: Timestamp) -> Result<Option<String>, Problem> {
    if let Some(name) = &question.session {
        let known = governed
            .sessions
            .iter()
            .any(|session| session.metadata.name.as_str() == name.as_str());
        return if known {
            Ok(Some(name.clone()))
        } else {
            Err(unfit(format!(
                "`session`: the server has no session `{name}` that you may ask about"
            )))
        };
    }
    let live = governed.sessions.iter().filter(|session| {
        let subject = &session.spec.subject;
        !session.spec.revoked
            && session.spec.expires_at.is_none_or(|end| end > at)
            && subject.human() == Some(&who.human)
            && subject.agent() == Some(&who.agent)
    });
    let newest = live.max_by_key(|session| session.metadata.created);
    Ok(newest.map(|session| session.metadata.name.to_string()))
}

fn target(question: &Question) -> Result<Target<'_>, Problem> {
    match (&question.tool, &question.prompt, &question.resource, &question.method) {
        (Some(tool), None, None, None) => Ok(Target::Tool(tool)),
        (None, Some(prompt), None, None) => Ok(Target::Prompt(prompt)),
        (None, None, Some(uri), None) => Ok(Target::Resource(uri)),
        (None, None, None, Some(method)) => Ok(Target::of(method, None, None)),
        (None, None, None, None) => Err(unfit("nothing is called: give `tool`, `prompt`, `resource` or `method`")),
        _ => Err(unfit(
            "a call is about one thing: give only one of `tool`, `prompt`, `resource` and `method`",
        )),
    }
}

fn answer(explanation: Explanation, who: Who, session: Option<String>) -> Explained {
    let Verdict {
        decision,
        reason,
        shadow,
        matched_grant,
        matched_session,
        required_trust,
        effective_trust,
        policy_revision,
        ..
    } = explanation.verdict;
    let decisive = shadow.map_or(reason, |shadow| shadow.reason);
    Explained {
        decision,
        reason: reason.as_str(),
        hint: decisive.hint(),
        would_be: shadow.map(|shadow| told(shadow.decision, shadow.reason)),
        human: who.human,
        agent: who.agent,
        team: who.team,
        session,
        steps: explanation.steps.into_iter().map(checked).collect(),
        nearest: explanation.nearest.map(|nearest| NearestGrant {
            grant: nearest.grant.to_string(),
            obstacles: nearest.obstacles,
        }),
        matched_grant: matched_grant.map(|name| name.to_string()),
        matched_session: matched_session.map(|name| name.to_string()),
        required_trust: required_trust.map(domain::policy::Trust::as_str),
        effective_trust: effective_trust.map(domain::policy::Trust::as_str),
        revision: policy_revision.to_string(),
    }
}

fn checked(step: Step) -> Checked {
    Checked {
        check: step.check,
        finding: step.finding,
        passed: step.failed.is_none(),
    }
}

/// A change that is only thought of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thought {
    namespace: Option<String>,
    server: String,
    /// Grants to make or replace, as `POST …/grants` takes them.
    #[serde(default)]
    grants: Vec<Map<String, Value>>,
    /// Names of grants to remove.
    #[serde(default)]
    remove_grants: Vec<String>,
    /// The server's new spec.
    spec: Option<Value>,
}

#[derive(Serialize)]
struct Compared {
    changes: Vec<Changed>,
    gains: usize,
    losses: usize,
    /// Whether every question was asked and every change told.
    complete: bool,
}

#[derive(Serialize)]
struct Changed {
    caller: String,
    target: String,
    before: Told,
    after: Told,
}

/// Who would gain and who would lose by a change. Changes nothing.
pub(super) async fn compare(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(thought): JsonBody<Thought>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let namespace = thought.namespace.as_deref().filter(|text| !text.is_empty());
    let namespace = namespace.unwrap_or_else(|| call.default_namespace());
    let server = administered(control, &call, namespace, &thought.server).await?;
    let governed = Governed::read(control.objects(), &server).await?;
    let mut after = governed.clone();
    for name in &thought.remove_grants {
        let count = after.grants.len();
        after.grants.retain(|grant| grant.metadata.name.as_str() != name.as_str());
        if after.grants.len() == count {
            return Err(unfit(format!("`remove_grants`: the server has no grant `{name}`")));
        }
    }
    for body in thought.grants {
        let grant = grant_of(control, &server, Value::Object(body)).await?;
        after.grants.retain(|other| other.metadata.name != grant.metadata.name);
        after.grants.push(grant);
    }
    if let Some(spec) = thought.spec {
        let spec: McpServerSpec = strict(spec, "spec")?;
        let team_id = after.server.spec.team_id.take();
        after.server.spec = McpServerSpec { team_id, ..spec };
    }
    let now = control.now();
    let (before, after) = (governed.document("", now), after.document("", now));
    // Up to a million questions take about half a second, which is too long for a thread that answers others.
    let difference = tokio::task::spawn_blocking(move || diff(&before, &after, now)).await;
    let difference = difference.map_err(Problem::internal)?;
    let gains = difference.changes.iter().filter(|change| change.is_gain()).count();
    let losses = difference.changes.len() - gains;
    let is_whole = difference.changes.len() <= CHANGES_MAX;
    let changes = difference.changes.into_iter().take(CHANGES_MAX).map(|change| Changed {
        caller: change.caller.to_string(),
        target: change.target,
        before: told(change.before.0, change.before.1),
        after: told(change.after.0, change.after.1),
    });
    Ok(json(Compared {
        changes: changes.collect(),
        gains,
        losses,
        complete: difference.is_complete && is_whole,
    }))
}
