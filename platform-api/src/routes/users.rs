//! Accounts, for administrators: who there is, invitations, roles, letting in and keeping out.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use service_kit::problem::{JsonBody, PathParams};
use service_kit::{Problem, parse_duration};

use super::Call;
use super::auth::{taken, unfit};
use crate::api::{Api, json};
use crate::audit::Topic;
use crate::database::{Database, Transaction};
use crate::identity::invitations::{self, Invitation};
use crate::identity::password::{self, Password};
use crate::identity::secret::{Purpose, Secret};
use crate::identity::{Account, Role, TeamRole, accounts, teams};

const INVITATION_LIFETIME: &str = "7d";

#[derive(Serialize)]
pub(super) struct UserAnswer {
    pub(super) user: Account,
}

#[derive(Serialize)]
struct UserList {
    users: Vec<Account>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let limit = call.params.count("limit");
    let after = call.params.text("after").unwrap_or_default();
    let mut users = accounts::list(api.control()?.database(), after, limit + 1).await?;
    let more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let last = users.last().filter(|_| more);
    Ok(json(UserList {
        next: last.map(|last| call.params.link("/api/v1/users", "after", &last.email)),
        users,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    email: String,
    password: Password,
    #[serde(default = "user")]
    role: Role,
}

fn user() -> Role {
    Role::User
}

pub(super) async fn create(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): JsonBody<NewUser>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let email = accounts::parse_email(&wish.email).map_err(unfit)?;
    password::check(&wish.password, &email)?;
    let hash = password::hash(wish.password).await?;
    let mut transaction = control.database().write().await?;
    let made = accounts::create(&mut transaction, &email, wish.role, Some(&hash), control.now()).await?;
    let user = made.ok_or_else(|| taken(&email))?;
    finish(&api, transaction, &call, "user_create", &user).await?;
    Ok((StatusCode::CREATED, axum::Json(UserAnswer { user })).into_response())
}

/// Records what was done to an account, and makes it so.
async fn finish(api: &Api, transaction: Transaction, call: &Call, action: &'static str, user: &Account) -> Result<(), Problem> {
    let control = api.control()?;
    let mut fact = call.fact(Topic::Audit, action, format!("account/{}", user.id));
    fact.details.push(("email", user.email.clone()));
    fact.details.push(("role", user.role.as_str().to_owned()));
    control.commit(transaction, fact).await?;
    Ok(())
}

pub(super) async fn find(database: &Database, id: &str) -> Result<Account, Problem> {
    let found = accounts::find(database, id).await?;
    found
        .map(|(account, _)| account)
        .ok_or_else(|| Problem::not_found("there is no such account"))
}

pub(super) async fn get(State(api): State<Api>, PathParams(id): PathParams<String>) -> Result<Response, Problem> {
    let user = find(api.control()?.database(), &id).await?;
    Ok(json(UserAnswer { user }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChange {
    role: Option<Role>,
    disabled: Option<bool>,
    password: Option<Password>,
}

pub(super) async fn change(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): PathParams<String>,
    JsonBody(change): JsonBody<UserChange>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let mut user = find(control.database(), &id).await?;
    let hash = match change.password {
        None => None,
        Some(password) => {
            password::check(&password, &user.email)?;
            Some(password::hash(password).await?)
        }
    };
    let mut transaction = control.database().write().await?;
    if change.role == Some(Role::User) || change.disabled == Some(true) {
        keep_an_admin(&mut transaction, &user).await?;
    }
    if let Some(role) = change.role {
        accounts::set_role(&mut transaction, &user.id, role).await?;
        user.role = role;
    }
    if let Some(disabled) = change.disabled {
        user.disabled_at = disabled.then(|| user.disabled_at.unwrap_or(control.now()));
        accounts::set_disabled(&mut transaction, &user.id, user.disabled_at).await?;
    }
    if let Some(hash) = hash {
        accounts::set_password(&mut transaction, &user.id, &hash).await?;
        crate::identity::logins::end_others(&mut transaction, &user.id, "", control.now()).await?;
    }
    finish(&api, transaction, &call, "user_change", &user).await?;
    if change.disabled == Some(true) {
        super::adapter::end_all(control, &call, &user.id, None).await?;
    }
    Ok(json(UserAnswer { user }))
}

/// Somebody must be able to undo whatever is done here.
async fn keep_an_admin(transaction: &mut Transaction, user: &Account) -> Result<(), Problem> {
    if user.role == Role::Admin && user.disabled_at.is_none() && accounts::is_last_admin(transaction, &user.id).await? {
        return Err(Problem::conflict("this is the last administrator").with_hint("make another account administrator first"));
    }
    Ok(())
}

pub(super) async fn remove(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): PathParams<String>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let user = find(control.database(), &id).await?;
    let mut transaction = control.database().write().await?;
    keep_an_admin(&mut transaction, &user).await?;
    accounts::remove(&mut transaction, &user.id).await?;
    finish(&api, transaction, &call, "user_remove", &user).await?;
    super::adapter::end_all(control, &call, &user.id, None).await?;
    Ok(json(UserAnswer { user }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationWish {
    email: String,
    #[serde(default = "user")]
    role: Role,
    /// Slug of a team that the account joins.
    team: Option<String>,
    team_role: Option<TeamRole>,
    /// Such as `7d`.
    expires_in: Option<String>,
}

#[derive(Serialize)]
struct InvitationAnswer {
    invitation: Invitation,
    /// Told once.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

pub(super) async fn invite(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): JsonBody<InvitationWish>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let now = control.now();
    let email = accounts::parse_email(&wish.email).map_err(unfit)?;
    let lifetime = wish.expires_in.as_deref().unwrap_or(INVITATION_LIFETIME);
    let lifetime = parse_duration(lifetime).map_err(|error| unfit(format!("`expires_in`: {error}")))?;
    let team = match &wish.team {
        None if wish.team_role.is_some() => return Err(unfit("`team_role` needs a `team`")),
        None => None,
        Some(slug) => {
            let team = teams::find(control.database(), slug).await?;
            let team = team.ok_or_else(|| unfit(format!("there is no team `{slug}`")))?;
            Some((team.id, wish.team_role.unwrap_or(TeamRole::Member)))
        }
    };
    let secret = Secret::fresh(Purpose::Invitation).map_err(Problem::internal)?;
    let wish = invitations::Wish {
        email,
        role: wish.role,
        team,
        created_by: call.caller.name.clone(),
        expires_at: now.plus(lifetime),
    };
    let mut transaction = control.database().write().await?;
    let invitation = invitations::create(&mut transaction, wish, &secret, now).await?;
    let mut fact = call.fact(Topic::Audit, "invitation_create", format!("invitation/{}", invitation.id));
    fact.details.push(("email", invitation.email.clone()));
    control.commit(transaction, fact).await?;
    let answer = InvitationAnswer {
        invitation,
        secret: Some(secret.reveal().to_owned()),
    };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response())
}

#[derive(Serialize)]
struct InvitationList {
    invitations: Vec<Invitation>,
}

pub(super) async fn invitations(State(api): State<Api>) -> Result<Response, Problem> {
    let control = api.control()?;
    let invitations = invitations::list(control.database(), control.now()).await?;
    Ok(json(InvitationList { invitations }))
}

pub(super) async fn withdraw(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): PathParams<String>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let mut transaction = control.database().write().await?;
    let found = invitations::withdraw(&mut transaction, &id).await?;
    let invitation = found.ok_or_else(|| Problem::not_found("there is no such invitation, or it was used"))?;
    let fact = call.fact(Topic::Audit, "invitation_withdraw", format!("invitation/{id}"));
    control.commit(transaction, fact).await?;
    Ok(json(InvitationAnswer {
        invitation,
        secret: None,
    }))
}
