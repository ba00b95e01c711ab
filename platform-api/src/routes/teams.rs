//! Teams, their members, and the namespaces there are.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use domain::Namespace;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use service_kit::Problem;
use service_kit::problem::{JsonBody, PathParams};

use super::Call;
use super::auth::{taken, unfit};
use super::users::UserAnswer;
use crate::access::Standing;
use crate::api::{Api, json};
use crate::audit::{Fact, Topic};
use crate::control::Control;
use crate::identity::password::{self, Password};
use crate::identity::teams::{self, Changed, Member, SLUG_BYTES_MAX};
use crate::identity::{ORG_NAMESPACE, PUBLIC_NAMESPACE, Role, SHARED_NAMESPACE, Team, TeamRole, accounts};
use crate::objects::{ObjectKind, Query};

const NAME_BYTES_MAX: usize = 200;

#[derive(Serialize)]
struct TeamAnswer {
    team: Team,
}

#[derive(Serialize)]
struct TeamList {
    teams: Vec<Team>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The caller's teams; all of them for administrators.
pub(super) async fn list(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let limit = call.params.count("limit");
    let after = call.params.text("after").unwrap_or_default();
    let mut teams = teams::list(
        api.control()?.database(),
        after,
        if call.caller.admin { limit + 1 } else { u32::MAX },
    )
    .await?;
    teams.retain(|team| call.caller.standing(&team.namespace) > Standing::Stranger);
    let more = teams.len() > limit as usize;
    teams.truncate(limit as usize);
    let last = teams.last().filter(|_| more);
    Ok(json(TeamList {
        next: last.map(|last| call.params.link("/api/v1/runtime/teams", "after", &last.slug)),
        teams,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTeam {
    slug: String,
    /// For people; the slug when absent.
    name: Option<String>,
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(unfit(format!("`name` has 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

pub(super) async fn create(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): JsonBody<NewTeam>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    if Namespace::parse(&wish.slug).is_err() || wish.slug.len() > SLUG_BYTES_MAX {
        return Err(unfit(format!(
            "`slug` expects 1 to {SLUG_BYTES_MAX} lower-case letters, digits and inner hyphens"
        )));
    }
    let name = wish.name.unwrap_or_else(|| wish.slug.clone());
    check_name(&name)?;
    let mut transaction = control.database().write().await?;
    let made = teams::create(&mut transaction, &wish.slug, &name, control.now()).await?;
    let team = made.ok_or_else(|| Problem::conflict(format!("there is a team `{}` already", wish.slug)))?;
    control.commit(transaction, fact(&call, "team_create", &team)).await?;
    Ok((StatusCode::CREATED, axum::Json(TeamAnswer { team })).into_response())
}

fn fact(call: &Call, action: &'static str, team: &Team) -> Fact {
    Fact {
        namespace: Some(team.namespace.clone()),
        team_id: Some(team.id.clone()),
        ..call.fact(Topic::Audit, action, format!("team/{}", team.slug))
    }
}

/// A team the caller is in, or any for administrators. Others are told that there is none, so that names are not given away.
async fn seen(control: &Control, call: &Call, slug: &str, least: Standing) -> Result<Team, Problem> {
    let found = teams::find(control.database(), slug).await?;
    let standing = found
        .as_ref()
        .map_or(Standing::Stranger, |team| call.caller.standing(&team.namespace));
    match found {
        Some(team) if standing >= least => Ok(team),
        Some(_) if standing > Standing::Stranger => {
            Err(Problem::forbidden("this is for owners of the team").with_hint("ask an owner: mcp-runtime team user list TEAM"))
        }
        _ => Err(Problem::not_found(format!("there is no team `{slug}` that you are in"))),
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(slug): PathParams<String>,
) -> Result<Response, Problem> {
    let team = seen(api.control()?, &call, &slug, Standing::Reader).await?;
    Ok(json(TeamAnswer { team }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamChange {
    name: String,
}

pub(super) async fn rename(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(slug): PathParams<String>,
    JsonBody(change): JsonBody<TeamChange>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    check_name(&change.name)?;
    let mut team = seen(control, &call, &slug, Standing::Owner).await?;
    let mut transaction = control.database().write().await?;
    teams::rename(&mut transaction, &team.id, &change.name).await?;
    team.name = change.name;
    control.commit(transaction, fact(&call, "team_rename", &team)).await?;
    Ok(json(TeamAnswer { team }))
}

/// Removes a team whose namespace is empty: what runs there must be retired by somebody who means it.
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(slug): PathParams<String>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let team = seen(control, &call, &slug, Standing::Owner).await?;
    for kind in [ObjectKind::Server, ObjectKind::Grant, ObjectKind::Session] {
        let query = Query {
            kind,
            namespaces: Some(vec![team.namespace.clone()]),
            after: None,
            limit: 1,
        };
        if let Some(left) = control.objects().list(query).await?.first() {
            return Err(
                Problem::conflict(format!("the team still has the {} `{}`", kind.word(), left.name))
                    .with_hint("retire what is in its namespace first"),
            );
        }
    }
    let mut transaction = control.database().write().await?;
    teams::remove(&mut transaction, &team.id).await?;
    control.commit(transaction, fact(&call, "team_remove", &team)).await?;
    Ok(json(TeamAnswer { team }))
}

#[derive(Serialize)]
struct MemberList {
    members: Vec<Member>,
}

pub(super) async fn members(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(slug): PathParams<String>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let team = seen(control, &call, &slug, Standing::Reader).await?;
    let members = teams::members(control.database(), &team.id).await?;
    Ok(json(MemberList { members }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMember {
    /// Id or e-mail address of an account.
    user: String,
    #[serde(default = "member")]
    role: TeamRole,
}

fn member() -> TeamRole {
    TeamRole::Member
}

pub(super) async fn add_member(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(slug): PathParams<String>,
    JsonBody(wish): JsonBody<NewMember>,
) -> Result<Response, Problem> {
    set_role(&api, &call, &slug, &wish.user, wish.role).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberChange {
    role: TeamRole,
}

pub(super) async fn set_member(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams((slug, user)): PathParams<(String, String)>,
    JsonBody(change): JsonBody<MemberChange>,
) -> Result<Response, Problem> {
    set_role(&api, &call, &slug, &user, change.role).await
}

#[derive(Serialize)]
struct MemberAnswer {
    member: Member,
}

async fn set_role(api: &Api, call: &Call, slug: &str, user: &str, role: TeamRole) -> Result<Response, Problem> {
    let control = api.control()?;
    let team = seen(control, call, slug, Standing::Owner).await?;
    let account = super::users::find(control.database(), user).await?;
    let mut transaction = control.database().write().await?;
    settled(teams::set_member(&mut transaction, &team.id, &account.id, role, control.now()).await?)?;
    let mut fact = fact(call, "team_member_set", &team);
    fact.details
        .extend([("member", account.email.clone()), ("role", role.as_str().to_owned())]);
    control.commit(transaction, fact).await?;
    let member = Member {
        user_id: account.id,
        email: account.email,
        role,
        created_at: control.now(),
    };
    Ok(json(MemberAnswer { member }))
}

fn settled(changed: Changed) -> Result<(), Problem> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Nobody => Err(Problem::not_found("they are not in the team")),
        Changed::LastOwner => {
            Err(Problem::conflict("this is the last owner of the team").with_hint("make another member owner first"))
        }
    }
}

#[derive(Serialize)]
struct Done {
    done: bool,
}

pub(super) async fn remove_member(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams((slug, user)): PathParams<(String, String)>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let account = super::users::find(control.database(), &user).await?;
    // Everybody may leave.
    let least = if call.caller.name == account.id {
        Standing::Member
    } else {
        Standing::Owner
    };
    let team = seen(control, &call, &slug, least).await?;
    let mut transaction = control.database().write().await?;
    settled(teams::remove_member(&mut transaction, &team.id, &account.id).await?)?;
    let mut fact = fact(&call, "team_member_remove", &team);
    fact.details.push(("member", account.email));
    control.commit(transaction, fact).await?;
    super::adapter::end_all(control, &call, &account.id, Some(&team.id)).await?;
    Ok(json(Done { done: true }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamUser {
    email: String,
    /// For a new account; one that is there keeps its own.
    password: Option<Password>,
    #[serde(default = "member")]
    role: TeamRole,
}

/// Makes an account and its membership at once; an account that is there just joins.
pub(super) async fn create_user(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(slug): PathParams<String>,
    JsonBody(wish): JsonBody<TeamUser>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let team = seen(control, &call, &slug, Standing::Owner).await?;
    let email = accounts::parse_email(&wish.email).map_err(unfit)?;
    let found = accounts::find(control.database(), &email).await?;
    let hash = match (&found, wish.password) {
        (Some(_), _) => None,
        (None, None) => return Err(unfit("`password` is missing: there is no account for this address yet")),
        (None, Some(password)) => {
            password::check(&password, &email)?;
            Some(password::hash(password).await?)
        }
    };
    let mut transaction = control.database().write().await?;
    let (user, status) = if let Some((account, _)) = found {
        (account, StatusCode::OK)
    } else {
        let made = accounts::create(&mut transaction, &email, Role::User, hash.as_deref(), control.now()).await?;
        (made.ok_or_else(|| taken(&email))?, StatusCode::CREATED)
    };
    settled(teams::set_member(&mut transaction, &team.id, &user.id, wish.role, control.now()).await?)?;
    let mut fact = fact(&call, "team_user_create", &team);
    fact.details
        .extend([("member", user.email.clone()), ("role", wish.role.as_str().to_owned())]);
    control.commit(transaction, fact).await?;
    Ok((status, axum::Json(UserAnswer { user })).into_response())
}

#[derive(Serialize)]
struct NamespaceRow {
    namespace: String,
    /// `team`, `shared`, `org` or `public`.
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<Team>,
    /// Whether the caller may publish there.
    publish: bool,
}

#[derive(Serialize)]
struct NamespaceList {
    namespaces: Vec<NamespaceRow>,
}

#[derive(Serialize)]
struct NamespaceAnswer {
    namespace: NamespaceRow,
}

async fn rows(control: &Control, call: &Call) -> Result<Vec<NamespaceRow>, Problem> {
    let shared = [
        (SHARED_NAMESPACE, "shared"),
        (ORG_NAMESPACE, "org"),
        (PUBLIC_NAMESPACE, "public"),
    ];
    let mut rows: Vec<_> = shared
        .into_iter()
        .map(|(namespace, scope)| NamespaceRow {
            namespace: namespace.to_owned(),
            scope,
            team: None,
            publish: false,
        })
        .collect();
    rows.extend(
        teams::list(control.database(), "", u32::MAX)
            .await?
            .into_iter()
            .map(|team| NamespaceRow {
                namespace: team.namespace.clone(),
                scope: "team",
                team: Some(team),
                publish: false,
            }),
    );
    rows.retain_mut(|row| {
        let standing = call.caller.standing(&row.namespace);
        row.publish = standing >= Standing::Member;
        standing > Standing::Stranger
    });
    Ok(rows)
}

pub(super) async fn namespaces(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let namespaces = rows(api.control()?, &call).await?;
    Ok(json(NamespaceList { namespaces }))
}

pub(super) async fn namespace(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(name): PathParams<String>,
) -> Result<Response, Problem> {
    let found = rows(api.control()?, &call)
        .await?
        .into_iter()
        .find(|row| row.namespace == name);
    let namespace = found.ok_or_else(|| Problem::not_found(format!("there is no namespace `{name}` that you may see")))?;
    Ok(json(NamespaceAnswer { namespace }))
}
