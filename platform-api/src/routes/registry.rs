//! Logging in to a registry: tokens as the distribution specification has them, and answers for a proxy in front of one.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::Timestamp;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use service_kit::Problem;

use super::Visitor;
use super::auth::check_password;
use super::objects::may_change;
use crate::access::{Caller, Standing};
use crate::api::{Api, json};
use crate::control::Control;
use crate::identity::password::Password;
use crate::identity::secret::Purpose;
use crate::identity::{Right, accounts, fresh_id};
use crate::objects::ObjectKind;
use crate::registry::token::{Access, LIFE, RegistryTokens};
use crate::registry::{Action, Asked, SCOPES_MAX, parse_request, parse_scope, place};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"mcp-runtime-registry\", charset=\"UTF-8\"");

/// Who asks: by name and password, as container tools send them, where the password may be any credential of ours.
async fn caller(control: &Control, visitor: &Visitor, headers: &HeaderMap) -> Result<Caller, Problem> {
    let refused = || {
        Problem::unauthorized("the registry needs a name and a password")
            .with_hint("use your e-mail address and a key: mcp-runtime auth key create NAME --right pull --right push")
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (kind, given) = given.and_then(|given| given.split_once(' ')).ok_or_else(refused)?;
    let (name, secret) = match kind.to_ascii_lowercase().as_str() {
        "basic" => {
            let pair = STANDARD
                .decode(given.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = pair.ok_or_else(refused)?;
            let (name, secret) = pair.split_once(':').ok_or_else(refused)?;
            (Some(name.trim().to_lowercase()), Password::from(secret.to_owned()))
        }
        "bearer" => (None, Password::from(given.trim().to_owned())),
        _ => return Err(refused()),
    };
    if let Some(purpose) = Purpose::of(&secret) {
        let found = control.resolve(purpose, &secret).await?.ok_or_else(refused)?;
        // A credential for the registry is of one name; with others the name is what people happen to type.
        let is_theirs = purpose != Purpose::RegistryKey || name.is_none() || name.as_deref() == found.email();
        return if is_theirs { Ok(found) } else { Err(refused()) };
    }
    let Some(email) = name else { return Err(refused()) };
    let account = check_password(control, visitor, &email, secret).await?;
    Ok(Caller::of_principal(
        accounts::principal(control.database(), account, None).await?,
    ))
}

/// With a challenge, so that container tools ask again with a password.
fn challenged(problem: Problem) -> Response {
    let is_unknown = problem.status == StatusCode::UNAUTHORIZED;
    let mut response = problem.into_response();
    if is_unknown {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}

/// What the caller may do of what is asked of a repository.
async fn allowed(control: &Control, caller: &Caller, repository: &str, asked: &[Action]) -> Result<Vec<Action>, Problem> {
    let (namespace, server) = place(repository);
    let standing = caller.standing(&namespace);
    let pulls = standing > Standing::Stranger && caller.has(Right::Pull);
    let mut pushes = standing >= Standing::Member && caller.has(Right::Push);
    if pushes && !server.is_empty() {
        let owner = control.objects().find(ObjectKind::Server, &namespace, server).await?;
        pushes = owner.is_none_or(|owner| may_change(caller, &owner));
    }
    let may = |action: &&Action| match action {
        Action::Pull => pulls,
        Action::Push => pushes,
        // What runs somewhere is not taken away from under it.
        Action::Delete => pushes && standing == Standing::Owner,
    };
    Ok(asked.iter().filter(may).copied().collect())
}

#[derive(Serialize)]
struct TokenAnswer<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: u64,
    issued_at: Timestamp,
}

fn tokens(control: &Control) -> Result<&RegistryTokens, Problem> {
    control.config().registry_tokens.as_ref().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "no_registry",
            "no registry is set up here whose tokens this platform signs",
        )
    })
}

/// A token with whatever part of the scopes the caller may have; with none of it, the registry says no.
pub(super) async fn token(
    State(api): State<Api>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let granted = async {
        let control = api.control()?;
        let tokens = tokens(control)?;
        let caller = caller(control, &visitor, &headers).await?;
        let mut access = Vec::new();
        let query = query.unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let scopes = pairs.filter(|(name, _)| name == "scope");
        let scopes: Vec<String> = scopes
            .flat_map(|(_, scopes)| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        for scope in scopes.iter().take(SCOPES_MAX) {
            match parse_scope(scope) {
                Some(Asked::Repository { name, actions }) => {
                    let actions = allowed(control, &caller, &name, &actions).await?;
                    access.push(Access {
                        kind: "repository",
                        name,
                        actions: actions.into_iter().map(Action::as_str).collect(),
                    });
                }
                Some(Asked::Catalog) if caller.admin => access.push(Access {
                    kind: "registry",
                    name: "catalog".to_owned(),
                    actions: vec!["*"],
                }),
                Some(Asked::Catalog | Asked::Ping) | None => {}
            }
        }
        let now = control.now();
        let subject = caller.email().unwrap_or(&caller.name);
        let token = tokens.sign(subject, &access, &fresh_id(), now).map_err(Problem::internal)?;
        Ok::<_, Problem>(json(TokenAnswer {
            token: &token,
            access_token: &token,
            expires_in: LIFE.as_secs(),
            issued_at: now,
        }))
    };
    granted.await.unwrap_or_else(challenged)
}

/// The key that tokens are signed with, for the registry.
pub(super) async fn keys(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(json(tokens(api.control()?)?.jwks()))
}

/// Whether a proxy in front of a registry may let a request pass.
pub(super) async fn authorize(State(api): State<Api>, Extension(visitor): Extension<Visitor>, headers: HeaderMap) -> Response {
    let decided = async {
        let control = api.control()?;
        let caller = caller(control, &visitor, &headers).await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let uri = text("x-forwarded-uri").or_else(|| text("x-forwarded-url")).unwrap_or("/v2/");
        let method = text("x-forwarded-method").unwrap_or("GET");
        let asked = parse_request(method, uri);
        let asked = asked.ok_or_else(|| Problem::forbidden(format!("`{method} {uri}` is no request to a registry")))?;
        for asked in asked {
            let passes = match &asked {
                Asked::Ping => true,
                Asked::Catalog => caller.admin,
                Asked::Repository { name, actions } => allowed(control, &caller, name, actions).await?.len() == actions.len(),
            };
            if !passes {
                return Err(forbidden(&asked));
            }
        }
        Ok::<_, Problem>(StatusCode::NO_CONTENT.into_response())
    };
    decided.await.unwrap_or_else(challenged)
}

fn forbidden(asked: &Asked) -> Problem {
    let problem = match asked {
        Asked::Repository { name, actions } => {
            let words: Vec<_> = actions.iter().map(|action| action.as_str()).collect();
            Problem::forbidden(format!("you may not {} `{name}`", words.join(" and ")))
        }
        Asked::Catalog | Asked::Ping => Problem::forbidden("only administrators list every repository"),
    };
    problem.with_code("forbidden_repository").with_hint(
        "images are under the slug of your team, `org` or `public`; a server's image is for whoever administers the server",
    )
}
