//! Keys of people, of programs, and for registries.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use domain::{Namespace, Timestamp};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use service_kit::problem::{JsonBody, PathParams};
use service_kit::{Problem, parse_duration};

use super::Call;
use super::auth::unfit;
use crate::access::Standing;
use crate::api::{Api, json};
use crate::audit::Topic;
use crate::identity::Right;
use crate::identity::keys::{self, Key, KeyKind, Wish};
use crate::identity::secret::Secret;

const NAME_BYTES_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyWish {
    name: String,
    /// `read` and `write` when absent.
    rights: Option<Vec<Right>>,
    #[serde(default)]
    namespaces: Vec<String>,
    expires_at: Option<Timestamp>,
    /// A duration such as `90d`, instead of `expires_at`.
    expires_in: Option<String>,
}

impl KeyWish {
    fn ends_at(&self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let at = match (self.expires_at, &self.expires_in) {
            (Some(_), Some(_)) => {
                return Err(unfit(
                    "`expires_at` and `expires_in` both say when the key ends; give one of them",
                ));
            }
            (at, None) => at,
            (None, Some(text)) => {
                Some(now.plus(parse_duration(text).map_err(|error| unfit(format!("`expires_in`: {error}")))?))
            }
        };
        match at {
            Some(end) if end <= now => Err(unfit("the key would end before it begins")),
            at => Ok(at),
        }
    }

    fn check(&self, kind: KeyKind) -> Result<Vec<Right>, Problem> {
        if self.name.trim().is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(unfit(format!(
                "`name` says what the key is for, in 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
        for namespace in &self.namespaces {
            Namespace::parse(namespace).map_err(|error| unfit(format!("`namespaces`: {error}")))?;
        }
        let usual = match kind {
            KeyKind::User | KeyKind::Service => vec![Right::Read, Right::Write],
            KeyKind::Registry => vec![Right::Pull, Right::Push],
        };
        let rights = self.rights.clone().unwrap_or(usual);
        if rights.is_empty() {
            return Err(unfit("`rights` is empty, so the key would be of no use"));
        }
        if kind == KeyKind::Registry && rights.iter().any(|right| !matches!(right, Right::Pull | Right::Push)) {
            return Err(unfit("a registry credential has the rights `pull` and `push`"));
        }
        Ok(rights)
    }
}

/// A key with its secret, under the predecessor's names too.
#[derive(Serialize)]
struct MadeKey<'a> {
    key: &'a Key,
    api_key: &'a str,
    one_time_key: &'a str,
}

#[derive(Serialize)]
struct MadeCredential<'a> {
    credential: &'a Key,
    username: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
struct KeyAnswer {
    key: Key,
}

#[derive(Serialize)]
struct CredentialAnswer {
    credential: Key,
}

#[derive(Serialize)]
struct KeyList {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct CredentialList {
    credentials: Vec<Key>,
}

/// Whose keys are meant: the caller's own, or programs'.
fn holder(call: &Call, kind: KeyKind) -> Result<Option<&str>, Problem> {
    match kind {
        KeyKind::User | KeyKind::Registry => Ok(Some(&call.person()?.account.id)),
        KeyKind::Service => Ok(None),
    }
}

/// Makes a key of at most the caller's own rights: a key must not be a way to more.
async fn make(api: &Api, call: &Call, kind: KeyKind, wish: KeyWish) -> Result<(Key, Secret), Problem> {
    let control = api.control()?;
    let now = control.now();
    let rights = wish.check(kind)?;
    if let Some(missing) = rights.iter().find(|right| !call.caller.has(**right)) {
        let word = missing.as_str();
        return Err(Problem::forbidden(format!(
            "your own credential has not the right `{word}`, so it cannot give it"
        )));
    }
    let mut namespaces = wish.namespaces.clone();
    if let Some(foreign) = namespaces
        .iter()
        .find(|namespace| call.caller.standing(namespace) == Standing::Stranger)
    {
        return Err(
            Problem::forbidden(format!("the namespace `{foreign}` is not one of yours")).with_code("forbidden_namespace")
        );
    }
    if namespaces.is_empty() {
        namespaces = call.caller.namespaces.clone().unwrap_or_default();
    }
    let secret = Secret::fresh(kind.purpose()).map_err(Problem::internal)?;
    let expires_at = wish.ends_at(now)?;
    let wish = Wish {
        kind,
        account: holder(call, kind)?.map(str::to_owned),
        name: wish.name,
        rights,
        namespaces,
        expires_at,
    };
    let mut transaction = control.database().write().await?;
    let key = keys::create(&mut transaction, wish, &secret, now).await?;
    let action = match kind {
        KeyKind::User => "api_key_create",
        KeyKind::Service => "service_key_create",
        KeyKind::Registry => "registry_credential_create",
    };
    let mut fact = call.fact(Topic::Audit, action, format!("key/{}", key.id));
    fact.details.push(("name", key.name.clone()));
    control.commit(transaction, fact).await?;
    Ok((key, secret))
}

async fn end(api: &Api, call: &Call, kind: KeyKind, id: &str) -> Result<Key, Problem> {
    let control = api.control()?;
    let mut transaction = control.database().write().await?;
    let ended = keys::revoke(&mut transaction, kind, holder(call, kind)?, id, control.now()).await?;
    let key = ended.ok_or_else(|| Problem::not_found("there is no such key"))?;
    let action = match kind {
        KeyKind::User => "api_key_revoke",
        KeyKind::Service => "service_key_revoke",
        KeyKind::Registry => "registry_credential_revoke",
    };
    control
        .commit(transaction, call.fact(Topic::Audit, action, format!("key/{id}")))
        .await?;
    Ok(key)
}

async fn listed(api: &Api, call: &Call, kind: KeyKind) -> Result<Vec<Key>, Problem> {
    Ok(keys::list(api.control()?.database(), kind, holder(call, kind)?).await?)
}

fn once(body: &impl Serialize) -> Response {
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

type Wished = JsonBody<KeyWish>;

pub(super) async fn create_user_key(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): Wished,
) -> Result<Response, Problem> {
    made(&api, &call, KeyKind::User, wish).await
}

pub(super) async fn create_service_key(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): Wished,
) -> Result<Response, Problem> {
    made(&api, &call, KeyKind::Service, wish).await
}

async fn made(api: &Api, call: &Call, kind: KeyKind, wish: KeyWish) -> Result<Response, Problem> {
    let (key, secret) = make(api, call, kind, wish).await?;
    Ok(once(&MadeKey {
        key: &key,
        api_key: secret.reveal(),
        one_time_key: secret.reveal(),
    }))
}

pub(super) async fn create_credential(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(wish): Wished,
) -> Result<Response, Problem> {
    let (credential, secret) = make(&api, &call, KeyKind::Registry, wish).await?;
    let username = &call.person()?.account.email;
    Ok(once(&MadeCredential {
        credential: &credential,
        username,
        password: secret.reveal(),
    }))
}

pub(super) async fn list_user_keys(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    Ok(json(KeyList {
        keys: listed(&api, &call, KeyKind::User).await?,
    }))
}

pub(super) async fn list_service_keys(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    Ok(json(KeyList {
        keys: listed(&api, &call, KeyKind::Service).await?,
    }))
}

pub(super) async fn list_credentials(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    Ok(json(CredentialList {
        credentials: listed(&api, &call, KeyKind::Registry).await?,
    }))
}

type Named = PathParams<String>;

pub(super) async fn revoke_user_key(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): Named,
) -> Result<Response, Problem> {
    Ok(json(KeyAnswer {
        key: end(&api, &call, KeyKind::User, &id).await?,
    }))
}

pub(super) async fn revoke_service_key(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): Named,
) -> Result<Response, Problem> {
    Ok(json(KeyAnswer {
        key: end(&api, &call, KeyKind::Service, &id).await?,
    }))
}

pub(super) async fn revoke_credential(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(id): Named,
) -> Result<Response, Problem> {
    Ok(json(CredentialAnswer {
        credential: end(&api, &call, KeyKind::Registry, &id).await?,
    }))
}
