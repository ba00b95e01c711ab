//! Logging in, going on, logging out, and who one is.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use domain::Timestamp;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use service_kit::Problem;
use service_kit::problem::{JsonBody, PathParams};

use super::{Call, Visitor};
use crate::api::{Api, json};
use crate::audit::{Ended, Fact, Topic};
use crate::control::{Control, SignUp};
use crate::identity::lockout::{self, Subject};
use crate::identity::logins::{self, ACCESS_LIFETIME, Exchange, Tokens};
use crate::identity::password::{self, Password};
use crate::identity::{
    Account, Membership, ORG_NAMESPACE, PUBLIC_NAMESPACE, Right, Role, SHARED_NAMESPACE, accounts, invitations, teams,
};

/// Tokens, and whose they are.
#[derive(Serialize)]
struct Granted<'a> {
    access_token: &'a str,
    token_type: &'static str,
    /// Seconds until `access_token` ends.
    expires_in: u64,
    refresh_token: &'a str,
    user: &'a Account,
}

pub(super) fn granted(status: StatusCode, tokens: &Tokens, user: &Account) -> Response {
    let body = Granted {
        access_token: tokens.access.reveal(),
        token_type: "bearer",
        expires_in: ACCESS_LIFETIME.as_secs(),
        refresh_token: tokens.refresh.reveal(),
        user,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    email: String,
    password: Password,
}

/// A fact about somebody who is not a caller yet.
pub(super) fn visit(visitor: &Visitor, action: &'static str, ended: Ended, actor: &str, email: &str) -> Fact {
    let mut details = vec![("client", visitor.agent.clone())];
    details.extend(visitor.address.map(|address| ("address", address.to_string())));
    Fact {
        topic: Topic::Audit,
        action,
        ended,
        actor: actor.to_owned(),
        actor_email: Some(email.to_owned()),
        namespace: None,
        server: None,
        team_id: None,
        resource: format!("account/{actor}"),
        details,
    }
}

pub(super) async fn login(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(given): JsonBody<Credentials>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let account = check_password(control, &visitor, &given.email, given.password).await?;
    let tokens = begin(control, &visitor, &account, "password", "login").await?;
    Ok(granted(StatusCode::OK, &tokens, &account))
}

/// The account of an address, when the password is its own. Failures are counted, told, and answered alike.
pub(super) async fn check_password(
    control: &Control,
    visitor: &Visitor,
    email: &str,
    password: Password,
) -> Result<Account, Problem> {
    let (database, now) = (control.database(), control.now());
    let email = email.trim().to_lowercase();
    let mut counted = vec![Subject::Account(email.clone())];
    counted.extend(visitor.address.map(|address| Subject::Address(address.to_string())));
    if let Some(wait) = lockout::remaining(database, &counted, now).await? {
        return Err(locked(wait));
    }
    let found = accounts::find(database, &email)
        .await?
        .filter(|(account, _)| account.email == email);
    let (account, kept) = found.unzip();
    let right = password::matches(password, kept.flatten()).await?;
    let Some(account) = account.filter(|account| right && account.disabled_at.is_none()) else {
        lockout::failed(database, &counted, now).await?;
        let transaction = database.write().await?;
        control
            .commit(transaction, visit(visitor, "login", Ended::Refused, &email, &email))
            .await?;
        return Err(Problem::unauthorized("the e-mail address or the password is wrong")
            .with_code("auth_failed")
            .with_hint("check both; after several failures the account is locked for a while"));
    };
    lockout::succeeded(database, &Subject::Account(email)).await?;
    Ok(account)
}

fn locked(wait: Duration) -> Problem {
    Problem::too_many_requests("too many failed logins", wait)
        .with_code("locked")
        .with_hint(format!("try again in {} s", wait.as_secs() + 1))
}

/// Begins a login, with its fact.
pub(super) async fn begin(
    control: &Control,
    visitor: &Visitor,
    account: &Account,
    method: &str,
    action: &'static str,
) -> Result<Tokens, Problem> {
    let now = control.now();
    let tokens = logins::fresh_tokens().map_err(Problem::internal)?;
    let mut transaction = control.database().write().await?;
    logins::begin(&mut transaction, account, method, &visitor.agent, &tokens, now).await?;
    let fact = visit(visitor, action, Ended::Done, &account.id, &account.email);
    control.commit(transaction, fact).await?;
    Ok(tokens)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignUpWish {
    /// Needed unless an invitation names it.
    email: Option<String>,
    password: Password,
    /// Secret of an invitation.
    invitation: Option<String>,
}

pub(super) async fn sign_up(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(wish): JsonBody<SignUpWish>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let (database, now) = (control.database(), control.now());
    if wish.invitation.is_none() && control.config().sign_up == SignUp::Invited {
        return Err(Problem::forbidden("accounts are made by invitation here")
            .with_code("invitation_needed")
            .with_hint("ask an administrator for an invitation, and send its secret as `invitation`"));
    }
    let counted: Vec<_> = visitor
        .address
        .map(|address| Subject::Address(address.to_string()))
        .into_iter()
        .collect();
    if let Some(wait) = lockout::remaining(database, &counted, now).await? {
        return Err(locked(wait));
    }
    let email = wish.email.as_deref().map(accounts::parse_email).transpose().map_err(unfit)?;
    password::check(&wish.password, email.as_deref().unwrap_or_default())?;
    let hash = password::hash(wish.password).await?;
    let mut transaction = database.write().await?;
    let invitation = match &wish.invitation {
        None => None,
        Some(secret) => match invitations::take(&mut transaction, secret, now).await? {
            Some(found) if email.as_ref().is_none_or(|email| *email == found.email) => Some(found),
            _ => {
                drop(transaction);
                lockout::failed(database, &counted, now).await?;
                return Err(
                    Problem::forbidden("the invitation is not known, was used, has ended, or is for another address")
                        .with_code("invitation_needed")
                        .with_hint("ask for a new one"),
                );
            }
        },
    };
    let email = email
        .or_else(|| invitation.as_ref().map(|found| found.email.clone()))
        .ok_or_else(|| unfit("`email` is missing"))?;
    let role = invitation.as_ref().map_or(Role::User, |found| found.role);
    let made = accounts::create(&mut transaction, &email, role, Some(&hash), now).await?;
    let account = made.ok_or_else(|| taken(&email))?;
    if let Some((team, role)) = invitation.and_then(|found| found.team_id.zip(found.team_role)) {
        teams::set_member(&mut transaction, &team, &account.id, role, now).await?;
    }
    control
        .commit(transaction, visit(&visitor, "signup", Ended::Done, &account.id, &email))
        .await?;
    let tokens = begin(control, &visitor, &account, "password", "login").await?;
    Ok(granted(StatusCode::CREATED, &tokens, &account))
}

pub(super) fn unfit(message: impl Into<String>) -> Problem {
    Problem::unprocessable(message).with_code("invalid")
}

pub(super) fn taken(email: &str) -> Problem {
    Problem::conflict(format!("there is an account for `{email}` already")).with_hint("log in, or use another address")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    refresh_token: Password,
}

pub(super) async fn refresh(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(given): JsonBody<Refresh>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let now = control.now();
    let next = logins::fresh_tokens().map_err(Problem::internal)?;
    let mut transaction = control.database().write().await?;
    let refused = || {
        Problem::unauthorized("the login has ended")
            .with_code("login_ended")
            .with_hint("log in again: mcp-runtime auth login")
    };
    match logins::exchange(&mut transaction, &given.refresh_token, next, now).await? {
        Exchange::Done(account, tokens) => {
            transaction.commit().await.map_err(Problem::internal)?;
            Ok(granted(StatusCode::OK, &tokens, &account))
        }
        Exchange::Refused => Err(refused()),
        Exchange::Stolen(account) => {
            let fact = visit(&visitor, "refresh_token_reused", Ended::Refused, &account.id, &account.email);
            control.commit(transaction, fact).await?;
            tracing::warn!(
                account = account.id,
                "a refresh token came again after it was exchanged; its login is ended"
            );
            Err(refused())
        }
    }
}

#[derive(Serialize)]
struct Done {
    done: bool,
}

pub(super) async fn logout(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let login = call.caller.principal.as_ref().and_then(|principal| principal.login.clone());
    let Some(login) = login else {
        return Err(unfit("the request came with no login's token, so there is none to end").with_hint("revoke keys instead"));
    };
    end(api.control()?, &call, &login).await
}

pub(super) async fn end_login(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): PathParams<String>,
) -> Result<Response, Problem> {
    end(api.control()?, &call, &id).await
}

async fn end(control: &Control, call: &Call, login: &str) -> Result<Response, Problem> {
    let (account, now) = (call.person()?.account.id.as_str(), control.now());
    let mut transaction = control.database().write().await?;
    if !logins::end(&mut transaction, account, login, now).await? {
        return Err(Problem::not_found("you have no such login, or it has ended"));
    }
    let fact = call.fact(Topic::Audit, "logout", format!("login/{login}"));
    control.commit(transaction, fact).await?;
    Ok(json(Done { done: true }))
}

#[derive(Serialize)]
struct LoginList {
    logins: Vec<logins::Login>,
}

pub(super) async fn list_logins(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let logins = logins::list(api.control()?.database(), call.person()?).await?;
    Ok(json(LoginList { logins }))
}

/// Who one is, under the predecessor's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Me<'a> {
    authenticated: bool,
    shared_catalog_namespace: &'static str,
    catalogs: [&'static str; 2],
    principal: MyPrincipal<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MyPrincipal<'a> {
    role: Role,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// The namespace that is meant when none is named.
    namespace: &'a str,
    /// All when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_namespaces: Option<Vec<String>>,
    teams: &'a [Membership],
    rights: &'a [Right],
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
}

pub(super) async fn me(Extension(call): Extension<Call>) -> Response {
    let caller = &call.caller;
    let principal = caller.principal.as_deref();
    json(Me {
        authenticated: true,
        shared_catalog_namespace: SHARED_NAMESPACE,
        catalogs: [ORG_NAMESPACE, PUBLIC_NAMESPACE],
        principal: MyPrincipal {
            role: if caller.admin { Role::Admin } else { Role::User },
            subject: &caller.name,
            email: caller.email(),
            namespace: principal.map_or(SHARED_NAMESPACE, |principal| principal.namespace()),
            allowed_namespaces: caller.visible_namespaces(),
            teams: principal.map_or(&[], |principal| &principal.teams),
            rights: &caller.rights,
            created_at: principal.map(|principal| principal.account.created_at),
        },
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordChange {
    current: Password,
    new: Password,
}

/// Changes the password, and ends every other login: whoever knew the old one is out.
pub(super) async fn change_password(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(change): JsonBody<PasswordChange>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let (principal, now) = (call.person()?, control.now());
    let account = &principal.account;
    let counted = [Subject::Account(account.email.clone())];
    if let Some(wait) = lockout::remaining(control.database(), &counted, now).await? {
        return Err(locked(wait));
    }
    let kept = accounts::find(control.database(), &account.id)
        .await?
        .and_then(|(_, kept)| kept);
    if !password::matches(change.current, kept).await? {
        lockout::failed(control.database(), &counted, now).await?;
        return Err(Problem::forbidden("the current password is wrong").with_code("auth_failed"));
    }
    password::check(&change.new, &account.email)?;
    let hash = password::hash(change.new).await?;
    let mut transaction = control.database().write().await?;
    accounts::set_password(&mut transaction, &account.id, &hash).await?;
    let own = principal.login.as_deref().unwrap_or_default();
    logins::end_others(&mut transaction, &account.id, own, now).await?;
    let fact = call.fact(Topic::Audit, "password_change", format!("account/{}", account.id));
    control.commit(transaction, fact).await?;
    Ok(json(Done { done: true }))
}
