//! The table of routes, and the guard before each of them.

mod adapter;
mod auth;
mod grants;
mod keys;
mod objects;
mod oidc;
mod policy;
mod registry;
mod servers;
mod teams;
mod tools;
mod users;

mod events;
mod follow;
mod sql;
mod system;
mod table;
mod usage;

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sentinel_store::query::Filter;
use service_kit::Problem;
use service_kit::problem::with_fallbacks;

use crate::access::{Caller, Credentials, Denied, LOCAL};
use crate::api::Api;
use crate::audit::{Ended, Fact, Topic};
use crate::identity::{Principal, Right, SHARED_NAMESPACE};
use crate::openapi::{Answer, Body};
use crate::params::{Param, Params};

pub use table::ROUTES;

/// Most characters kept of what a client calls itself.
const AGENT_CHARS_MAX: usize = 120;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anybody: nothing of the system is told.
    Nobody,
    /// Anybody with a name; answers are confined to what they may see.
    Caller,
    /// Administrators.
    Admin,
}

/// Whether a route takes every column of an event as a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filters {
    All,
    None,
}

/// One route: a path with one method.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET` includes `HEAD`.
    pub method: Verb,
    /// With parameters in braces.
    pub path: &'static str,
    pub need: Need,
    /// What it does, in one sentence without its full stop.
    pub summary: &'static str,
    /// Groups of parameters after `?`.
    pub params: &'static [&'static [Param]],
    pub filters: Filters,
    pub(crate) body: Body,
    pub(crate) answer: Answer,
    handler: fn() -> MethodRouter<Api>,
}

/// The methods that routes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Route {
    /// What a key needs to be used here: one of these.
    fn rights(&self) -> &'static [Right] {
        match (self.method, self.path) {
            (Verb::Get, path) if path.starts_with("/api/v1/runtime/adapter/") => &[Right::Adapter, Right::Read],
            (_, path) if path.starts_with("/api/v1/runtime/adapter/") => &[Right::Adapter, Right::Write],
            // Where to go and who one is may be known to every key.
            (_, "/api/v1/auth/me" | "/api/v1/registry/authz") => &[Right::Read, Right::Pull, Right::Push],
            // Asking by `POST` is still asking.
            (Verb::Get, _) | (_, "/api/v1/query" | "/api/v1/runtime/policy/explain" | "/api/v1/runtime/policy/diff") => {
                &[Right::Read]
            }
            _ => &[Right::Write],
        }
    }

    /// A parameter after `?` that is no filter.
    pub(crate) fn param(&self, name: &str) -> Option<&'static Param> {
        self.params
            .iter()
            .flat_map(|group| group.iter())
            .find(|param| param.name == name)
    }
}

/// A request that passed the guard.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) params: Params,
    pub(crate) visitor: Visitor,
    /// The revision that `If-Match` names.
    pub(crate) if_match: Option<i64>,
}

/// Where a request came from, also when nobody is named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor {
    pub(crate) address: Option<IpAddr>,
    /// What the client calls itself.
    pub(crate) agent: String,
}

impl Visitor {
    fn of(request: &Parts) -> Self {
        let agent = request.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        Self {
            address: peer(request).map(|peer| peer.ip().to_canonical()),
            agent: agent.unwrap_or_default().chars().take(AGENT_CHARS_MAX).collect(),
        }
    }
}

impl Call {
    /// Which events the request is about, as far as the caller may see them.
    pub(crate) fn filter(&self) -> Result<Filter, Problem> {
        self.params.filter(&self.caller)
    }

    /// A fact about what this caller does.
    pub(crate) fn fact(&self, topic: Topic, action: &'static str, resource: impl Into<String>) -> Fact {
        let address = self.visitor.address.map(|address| ("address", address.to_string()));
        Fact {
            topic,
            action,
            ended: Ended::Done,
            actor: self.caller.name.clone(),
            actor_email: self.caller.email().map(str::to_owned),
            namespace: None,
            server: None,
            team_id: None,
            resource: resource.into(),
            details: address.into_iter().collect(),
        }
    }

    /// The namespace that is meant when none is named.
    pub(crate) fn default_namespace(&self) -> &str {
        match (self.caller.namespaces.as_deref(), &self.caller.principal) {
            (Some([only]), _) => only,
            (_, Some(principal)) => principal.namespace(),
            (_, None) => SHARED_NAMESPACE,
        }
    }

    /// The person who asks, for what only people have.
    pub(crate) fn person(&self) -> Result<&Principal, Problem> {
        self.caller.principal.as_deref().ok_or_else(|| {
            Problem::forbidden("this is for people with an account, and the credential is a program's or this machine's")
                .with_hint("log in with `mcp-runtime auth login --email ADDRESS`")
        })
    }
}

/// The API's router, with problem bodies for unknown paths and wrong methods.
pub fn router(api: Api) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guarded = (route.handler)().route_layer(from_fn_with_state((api.clone(), route), guard));
        router = router.route(route.path, guarded);
    }
    with_fallbacks(router).with_state(api)
}

/// Names the caller, checks that they may, and reads the parameters.
async fn guard(State((api, route)): State<(Api, &'static Route)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if route.need == Need::Nobody {
        let visitor = Visitor::of(&parts);
        drop(parts.extensions.insert(visitor));
    } else {
        match admit(&api, route, &parts).await {
            Ok(call) => drop(parts.extensions.insert(call)),
            Err(problem) => return problem.into_response(),
        }
    }
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Answers are of one moment and one caller.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn admit(api: &Api, route: &'static Route, request: &Parts) -> Result<Call, Problem> {
    let credentials = Credentials {
        headers: &request.headers,
        peer: peer(request),
    };
    let caller = api.0.access.caller(credentials).await.map_err(|denied| {
        api.0.metrics.denied.inc();
        denial(denied)
    })?;
    if route.need == Need::Admin && !caller.admin {
        api.0.metrics.denied.inc();
        return Err(Problem::forbidden("this is for administrators").with_hint("use a key with `admin`"));
    }
    if !route.rights().iter().any(|right| caller.has(*right)) {
        api.0.metrics.denied.inc();
        if caller.name == LOCAL {
            return Err(
                Problem::unauthorized("changes need a credential, also from this machine").with_hint(
                    "the command `mcp-runtime` finds this machine's key; others send what is in `owner.key` of the data folder as `x-api-key`",
                ),
            );
        }
        let words: Vec<_> = route.rights().iter().map(|right| format!("`{}`", right.as_str())).collect();
        return Err(
            Problem::forbidden(format!("the key has none of the rights this needs: {}", words.join(", ")))
                .with_code("forbidden_right")
                .with_hint("make a key with that right: mcp-runtime auth key create NAME --right write"),
        );
    }
    let params = Params::read(route, request.uri.query(), api.now())?;
    Ok(Call {
        caller,
        params,
        visitor: Visitor::of(request),
        if_match: if_match(&request.headers)?,
    })
}

fn peer(request: &Parts) -> Option<SocketAddr> {
    request
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| *peer)
}

/// The revision a caller expects: what `ETag` told them, with or without quotes. `*` means any that is there, which every change of
/// something that is there means anyway.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.trim_matches('"').parse();
    revision.map(Some).map_err(|_| {
        Problem::bad_request("`If-Match` expects the `ETag` of an object, such as `\"17\"`").with_code("invalid_header")
    })
}

fn denial(denied: Denied) -> Problem {
    match denied {
        Denied::Missing => Problem::unauthorized("no credential came with the request")
            .with_hint("send a key as `x-api-key` or `Authorization: Bearer`"),
        Denied::Unknown => {
            Problem::unauthorized("the credential is not known").with_hint("check that the key is whole and not revoked")
        }
        Denied::ForeignHost => {
            Problem::forbidden("this API answers only for this machine: the request was made for another host")
                .with_code("forbidden_host")
                .with_hint("use http://127.0.0.1 or http://localhost")
        }
        Denied::ForeignOrigin => Problem::forbidden("pages of another origin may not call this API")
            .with_code("forbidden_origin")
            .with_hint("add the origin to `--origins-allowed` if the page is yours"),
        Denied::Unavailable => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "credentials cannot be checked right now",
        )
        .with_retry_after(std::time::Duration::from_secs(5)),
    }
}
