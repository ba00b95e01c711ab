//! Logging in with an identity provider: through a browser, on a device without one, or with an ID token that one has already.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use service_kit::Problem;
use service_kit::problem::JsonBody;
use subtle::ConstantTimeEq as _;

use super::auth::{begin, granted, unfit, visit};
use super::{Call, Visitor};
use crate::api::{Api, json};
use crate::audit::{Ended, Topic};
use crate::control::{Control, SignUp};
use crate::identity::federated::{self, Admission};
use crate::identity::password::Password;
use crate::identity::secret::{Purpose, Secret};
use crate::oidc::provider::Provider;
use crate::oidc::{Flow, Person, may_return_to};

fn provider(control: &Control) -> Result<&Provider, Problem> {
    control.provider().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "no_identity_provider",
            "no identity provider is set up here",
        )
        .with_hint("log in with e-mail address and password: mcp-runtime auth login --email ADDRESS")
    })
}

#[derive(Serialize)]
struct Methods<'a> {
    password: bool,
    /// `invited` or `open`.
    sign_up: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcMethod<'a>>,
}

#[derive(Serialize)]
struct OidcMethod<'a> {
    issuer: &'a str,
    client_id: &'a str,
}

/// How one can log in here.
pub(super) async fn methods(State(api): State<Api>) -> Result<Response, Problem> {
    let control = api.control()?;
    Ok(json(Methods {
        password: true,
        sign_up: match control.config().sign_up {
            SignUp::Invited => "invited",
            SignUp::Open => "open",
        },
        oidc: control.provider().map(|provider| OidcMethod {
            issuer: provider.config().issuer.address(),
            client_id: &provider.config().client_id,
        }),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// Where the provider sends the browser back to.
    redirect_uri: String,
    login_hint: Option<String>,
}

#[derive(Serialize)]
struct Started<'a> {
    /// To be opened in a browser.
    authorization_url: String,
    /// A secret that only whoever started the login has; to be sent with what the browser brings back.
    flow: &'a str,
}

pub(super) async fn start(State(api): State<Api>, JsonBody(wish): JsonBody<Start>) -> Result<Response, Problem> {
    let provider = provider(api.control()?)?;
    if !may_return_to(&provider.config().redirects, &wish.redirect_uri) {
        return Err(
            unfit("`redirect_uri` is neither a page of this platform nor an address of your own machine")
                .with_hint("use http://127.0.0.1:PORT/callback; administrators add pages with `--oidc-redirects`"),
        );
    }
    let secret = Secret::fresh(Purpose::Device).map_err(Problem::internal)?;
    let flow = Flow::of(secret.reveal());
    let hint = wish.login_hint.as_deref();
    Ok(json(Started {
        authorization_url: provider.authorization_url(&flow, &wish.redirect_uri, hint).await?,
        flow: secret.reveal(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finish {
    flow: Password,
    state: String,
    code: Password,
    redirect_uri: String,
    invitation: Option<Password>,
}

/// Who came back from the provider. What was started by somebody else is refused before the provider is asked.
async fn returned(control: &Control, finish: &Finish) -> Result<Person, Problem> {
    let provider = provider(control)?;
    let flow = Flow::of(&finish.flow);
    if !bool::from(flow.state.as_bytes().ct_eq(finish.state.as_bytes())) {
        return Err(
            Problem::unauthorized("the login was started by somebody else, or in another window")
                .with_code("auth_failed")
                .with_hint("start it again: mcp-runtime auth login"),
        );
    }
    Ok(provider.redeem(&flow, &finish.code, &finish.redirect_uri).await?)
}

pub(super) async fn finish(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(finish): JsonBody<Finish>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let person = returned(control, &finish).await?;
    admit(control, &visitor, person, finish.invitation.as_deref(), "oidc").await
}

/// From now on one also logs in with the provider.
pub(super) async fn link(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(finish): JsonBody<Finish>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    provider(control)?;
    let account = call.person()?.account.clone();
    let person = returned(control, &finish).await?;
    let mut transaction = control.database().write().await?;
    if let Some(other) = federated::known(&mut transaction, &person).await?
        && other.id != account.id
    {
        return Err(Problem::conflict("somebody else logs in with this identity already"));
    }
    federated::link(&mut transaction, &person, &account, control.now()).await?;
    let mut fact = call.fact(Topic::Audit, "identity_link", format!("account/{}", account.id));
    fact.details.push(("issuer", person.issuer));
    control.commit(transaction, fact).await?;
    Ok(json(Linked { done: true }))
}

#[derive(Serialize)]
struct Linked {
    done: bool,
}

pub(super) async fn device(State(api): State<Api>) -> Result<Response, Problem> {
    let device = provider(api.control()?)?.device().await?;
    Ok(json(device))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Poll {
    device_code: Password,
    invitation: Option<Password>,
}

pub(super) async fn poll(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(poll): JsonBody<Poll>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let person = provider(control)?.poll(&poll.device_code).await?;
    admit(control, &visitor, person, poll.invitation.as_deref(), "device").await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdToken {
    id_token: Password,
    invitation: Option<Password>,
}

pub(super) async fn token(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    JsonBody(given): JsonBody<IdToken>,
) -> Result<Response, Problem> {
    let control = api.control()?;
    let person = provider(control)?.person(&given.id_token, None).await?;
    admit(control, &visitor, person, given.invitation.as_deref(), "oidc").await
}

/// Begins a login for whom the provider named, if they may have one.
async fn admit(
    control: &Control,
    visitor: &Visitor,
    person: Person,
    invitation: Option<&str>,
    method: &str,
) -> Result<Response, Problem> {
    let now = control.now();
    let mut transaction = control.database().write().await?;
    let admission = federated::admit(&mut transaction, &person, invitation, control.config().sign_up, now).await?;
    let (mut account, is_new) = match admission {
        Admission::Admitted(account, is_new) => (account, is_new),
        refused => {
            drop(transaction);
            return Err(turn_away(control, visitor, &person, refused).await);
        }
    };
    let changes = federated::settle(&mut transaction, &mut account, &person.mapped, now).await?;
    let action = if is_new { "signup" } else { "oidc_login" };
    let mut fact = visit(visitor, action, Ended::Done, &account.id, &account.email);
    fact.details.push(("issuer", person.issuer));
    if !changes.is_empty() {
        fact.details.push(("groups", changes.join(" ")));
    }
    control.commit(transaction, fact).await?;
    let tokens = begin(control, visitor, &account, method, "login").await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(granted(status, &tokens, &account))
}

async fn turn_away(control: &Control, visitor: &Visitor, person: &Person, refused: Admission) -> Problem {
    let told = told(refused);
    let email = person.email.as_deref().unwrap_or_default();
    let mut fact = visit(visitor, "oidc_login", Ended::Refused, &person.subject, email);
    fact.details
        .extend([("issuer", person.issuer.clone()), ("reason", told.code.to_owned())]);
    let kept = async { control.commit(control.database().write().await?, fact).await };
    kept.await.err().unwrap_or(told)
}

fn told(refused: Admission) -> Problem {
    match refused {
        Admission::Admitted(account, _) | Admission::Disabled(account) => {
            Problem::forbidden(format!("the account of `{}` is kept out", account.email))
                .with_code("account_disabled")
                .with_hint("ask an administrator")
        }
        Admission::NoEmail => Problem::forbidden("the identity provider does not say that your e-mail address is yours")
            .with_code("email_not_verified")
            .with_hint("have the address verified there, and log in again"),
        Admission::HasPassword(email) => Problem::conflict(format!("there is an account for `{email}` with a password"))
            .with_code("account_exists")
            .with_hint("log in with the password once, and send the same to `POST /api/v1/auth/oidc/link`"),
        Admission::NotInvited(email) => Problem::forbidden(format!("nobody has invited `{email}`"))
            .with_code("invitation_needed")
            .with_hint("ask an administrator for an invitation, and send its secret as `invitation`"),
        Admission::WrongInvitation => {
            Problem::forbidden("the invitation is not known, was used, has ended, or is for another address")
                .with_code("invitation_needed")
                .with_hint("ask for a new one")
        }
    }
}
