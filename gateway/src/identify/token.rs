//! Mode `oauth`: an access token of the policy's issuer, checked on every request (RFC 6750, RFC 8707), and where clients learn whose
//! tokens are taken (RFC 9728).
//!
//! | claim | is |
//! |---|---|
//! | `sub` | the person |
//! | `azp`, else `client_id` | the agent |
//! | `team_id`, else `tenant_id`, else `tid` | the team |
//! | `scope`, else `scp` | the scopes |
//!
//! A session comes in its own header, as in the other modes: `sid` names a browser's session at the issuer, and is none of ours.
//!
//! A token must name an audience of ours: the policy's, else the address of the server where it is certain. The path and the host that a
//! caller writes into its request are not certain.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header, request};
use serde::Serialize;
use service_kit::Problem;
use service_kit::error::Chain;
use service_kit::oidc::{Issuer, IssuerFault, Moment, Refusal as TokenRefusal, Token};

use super::{Caller, IdentityRules, session, unproven};
use crate::exchange::Exchange;
use crate::gateway::Shared;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::route::Site;

/// RFC 9728: the path of a protected resource follows.
const METADATA: &str = "/.well-known/oauth-protected-resource";
/// Most issuers whose keys are held. There are as many as policies name, so no stranger adds one.
const ISSUERS_MAX: usize = 256;

/// Issuers by their address. They outlast policies, and what they fetched is shared by all servers.
#[derive(Debug, Default)]
pub(crate) struct Issuers(ArcSwap<HashMap<String, Issuer>>);

impl Issuers {
    fn of(&self, address: &str) -> Result<Issuer, IssuerFault> {
        if let Some(issuer) = self.0.load().get(address) {
            return Ok(issuer.clone());
        }
        let made = Issuer::new(address)?;
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() >= ISSUERS_MAX {
                known.clear();
            }
            known.entry(address.to_owned()).or_insert_with(|| made.clone());
            known
        });
        // Another request may have been first; its issuer is the one that all share.
        Ok(self.0.load().get(address).cloned().unwrap_or(made))
    }
}

pub(super) async fn identify(exchange: &Exchange, head: &request::Parts) -> Result<Caller, Box<Refusal>> {
    let (headers, path) = (&head.headers, head.uri.path());
    let (policy, shared) = (&exchange.policy, &exchange.shared);
    let challenged = |refusal: Box<Refusal>, error: Option<&str>| {
        let challenge = exchange.challenge(error);
        refusal.with_challenge(challenge)
    };
    let presented = presented(policy, headers).map_err(|refusal| challenged(refusal, Some("invalid_request")))?;
    let Some(presented) = presented else {
        let refusal = unproven(
            "missing_bearer_token",
            "this server takes access tokens, and none was sent",
            "get a token from the authorization server that the challenge leads to, and send it as `authorization: Bearer …`",
        );
        return Err(challenged(refusal, None));
    };
    let issuer = shared
        .issuers
        .of(policy.auth().issuer_url.trim())
        .map_err(|fault| misconfigured(exchange, &fault))?;
    let named = policy.auth().audience.trim();
    let own = if named.is_empty() {
        resources(&shared.limits.identity, &exchange.site, path)
    } else {
        Vec::new()
    };
    let audiences: Vec<&str> = if named.is_empty() {
        own.iter().map(String::as_str).collect()
    } else {
        vec![named]
    };
    if audiences.is_empty() {
        let problem = Problem::unavailable("the policy of this server names no audience for access tokens", RETRY_AFTER)
            .with_hint("its owner has to set `auth.audience`");
        return Err(Refusal::denied("oauth_config_missing", problem));
    }
    let verified = issuer.verify(presented, &audiences, Moment::from(&shared.clock)).await;
    match verified {
        Ok(token) => Ok(caller(&token, policy, headers)),
        Err(refusal) => Err(match refusal.retry_after() {
            None => {
                let hint = "get a new token from the authorization server that the challenge leads to, for this server";
                challenged(unproven("invalid_token", &refusal, hint), Some("invalid_token"))
            }
            Some(wait) => {
                away(exchange, &refusal);
                let problem =
                    Problem::unavailable("the authorization server cannot be asked for its keys at this moment", wait)
                        .with_hint("try again soon; the token itself may be fine");
                Refusal::denied("oauth_provider_unavailable", problem)
            }
        }),
    }
}

const RETRY_AFTER: std::time::Duration = std::time::Duration::from_mins(1);

fn misconfigured(exchange: &Exchange, fault: &IssuerFault) -> Box<Refusal> {
    tracing::error!(
        server = exchange.site.route.server,
        namespace = exchange.site.route.namespace,
        error = %Chain(fault),
        "the policy names an issuer that cannot be used"
    );
    let problem = Problem::unavailable("the policy of this server names an issuer that cannot be used", RETRY_AFTER)
        .with_hint("its owner has to set `auth.issuer_url` to an https address");
    Refusal::denied("oauth_issuer_missing", problem)
}

fn away(exchange: &Exchange, refusal: &TokenRefusal) {
    tracing::debug!(
        server = exchange.site.route.server,
        namespace = exchange.site.route.namespace,
        error = %Chain(refusal),
        "a token could not be checked"
    );
}

/// The token as it was sent; `None` when none was. Twice is once too often: which one counts is for two programs to disagree about.
fn presented<'h>(policy: &Policy, headers: &'h HeaderMap) -> Result<Option<&'h str>, Box<Refusal>> {
    let name = policy.token_header().unwrap_or(&header::AUTHORIZATION);
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let problem = Problem::bad_request(format!("the header `{name}` is given twice")).with_hint("send it once");
        return Err(Refusal::denied("invalid_token", problem));
    }
    let text = value.to_str().unwrap_or_default().trim();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    Ok(if scheme.eq_ignore_ascii_case("bearer") {
        Some(token.trim_start()).filter(|token| !token.is_empty())
    } else if *name == header::AUTHORIZATION {
        // Some other scheme: no bearer token.
        None
    } else {
        Some(text).filter(|text| !text.is_empty())
    })
}

fn caller(token: &Token, policy: &Policy, headers: &HeaderMap) -> Caller {
    let first = |names: &[&str]| names.iter().find_map(|name| token.text(name)).map(str::to_owned);
    let scopes = ["scope", "scp"].map(|claim| token.texts(claim).join(" "));
    let scopes = scopes.into_iter().find(|scopes| !scopes.is_empty()).unwrap_or_default();
    Caller {
        human: first(&["sub"]),
        agent: first(&["azp", "client_id"]),
        team: first(&["team_id", "tenant_id", "tid"]),
        session: session(policy, headers),
        is_verified: true,
        scopes: Some(scopes.into()),
        expires_at: Some(Timestamp::from_nanos(token.expires_at_ns())),
        certified: None,
    }
}

/// The addresses of the server that are certain: the base that was configured, and paths that are the server's alone.
fn resources(rules: &IdentityRules, site: &Site, path: &str) -> Vec<String> {
    let mount = site.mount();
    let Some(base) = rules.external_base_url.as_deref().filter(|_| !mount.is_empty()) else {
        return Vec::new();
    };
    let base = base.trim_end_matches('/');
    let below = path
        .strip_prefix(mount)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let paths = [Some(mount), below.map(|_| path.trim_end_matches('/'))];
    paths.into_iter().flatten().map(|path| format!("{base}{path}")).collect()
}

/// What `WWW-Authenticate` says, and where the metadata is: `base` is the address that the client used, `path` the one it asked for.
pub(crate) fn challenge(metadata_url: &str, scopes: &[String], error: Option<&str>) -> HeaderValue {
    let error = error.map(|error| format!(", error=\"{error}\"")).unwrap_or_default();
    let scope = if scopes.is_empty() {
        String::new()
    } else {
        format!(", scope=\"{}\"", scopes.join(" "))
    };
    let text = format!("Bearer resource_metadata=\"{metadata_url}\"{error}{scope}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// Where the metadata of the server is that a request was made to.
pub(crate) fn metadata_url(rules: &IdentityRules, host: Option<&HeaderValue>, site: &Site, path: &str) -> String {
    // A server that owns every path is where its client called it; the others are at one path, whatever is asked for below it.
    let path = if site.route.prefix.is_empty() { path } else { site.mount() };
    format!("{}{METADATA}{}", base(rules, host), path.trim_end_matches('/'))
}

/// The address that clients use. A host that is no host is not repeated.
fn base(rules: &IdentityRules, host: Option<&HeaderValue>) -> String {
    if let Some(base) = &rules.external_base_url {
        return base.trim_end_matches('/').to_owned();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let host = host
        .and_then(|host| host.to_str().ok())
        .filter(|host| host.bytes().all(plain));
    format!("http://{}", host.unwrap_or("localhost"))
}

#[derive(Serialize)]
struct Metadata<'a> {
    resource: String,
    authorization_servers: [&'a str; 1],
    bearer_methods_supported: [&'static str; 1],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    scopes_supported: &'a [String],
    resource_name: &'a str,
}

/// The metadata of the server whose path follows in this one; `None` when nobody asks for it, or the server takes no tokens.
pub(crate) fn metadata<B>(shared: &Shared, request: &Request<B>) -> Option<Response<bytes::Bytes>> {
    let path = request.uri().path().strip_prefix(METADATA)?;
    if !(path.is_empty() || path.starts_with('/')) {
        return None;
    }
    let site = shared.routes.find(if path.is_empty() { "/" } else { path })?;
    let policy: Arc<Policy> = site.route.policy.current();
    if policy.auth_mode() != domain::policy::AuthMode::OAuth {
        return None;
    }
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        let problem = Problem::method_not_allowed(&[Method::GET, Method::HEAD, Method::OPTIONS]);
        return Some(problem.to_response(None));
    }
    let host = request.headers().get(header::HOST);
    let auth = policy.auth();
    let metadata = Metadata {
        resource: format!("{}{}", base(&shared.limits.identity, host), path.trim_end_matches('/')),
        authorization_servers: [auth.issuer_url.trim()],
        bearer_methods_supported: ["header"],
        scopes_supported: &auth.required_scopes,
        resource_name: &site.route.server,
    };
    let mut response = Response::new(serde_json::to_vec(&metadata).unwrap_or_default().into());
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=60"),
        // Clients in browsers read it before they have a token; it holds nothing that is not public.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::{IdentityRules, metadata_url, resources};
    use crate::route::{Route, RouteTable};

    #[test]
    fn the_metadata_is_told_for_the_address_that_the_client_used() {
        let rules = IdentityRules {
            external_base_url: Some("https://mcp.example.com/".to_owned()),
            trusted_proxy: None,
        };
        let route = || Route::new("payments", "acme", "http://127.0.0.1:1".parse().unwrap());
        let stripped = Route {
            strip_prefix: "/payments".to_owned(),
            ..route()
        };
        let url = "https://mcp.example.com/.well-known/oauth-protected-resource/payments/mcp";
        for (route, path) in [
            (stripped, "/payments/mcp"),
            (route(), "/payments/mcp/"),
            (route().at("payments"), "/payments/mcp/.endpoint/messages"),
        ] {
            let site = RouteTable::new(vec![route]).unwrap().find(path).unwrap();
            assert_eq!(metadata_url(&rules, None, &site, path), url);
            let is_certain = !site.mount().is_empty();
            let own = resources(&rules, &site, "/payments/mcp");
            assert_eq!(
                own.contains(&"https://mcp.example.com/payments/mcp".to_owned()),
                is_certain,
                "{own:?}"
            );
            assert!(!resources(&rules, &site, "/other/mcp").contains(&"https://mcp.example.com/other/mcp".to_owned()));
        }
    }
}
