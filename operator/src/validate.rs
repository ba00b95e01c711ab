//! From what is known about a server to what should be, or to what is wrong. Pure: no client, no clock.
//!
//! The schema refuses most of this already. It is checked again here, since objects may be older than the schema, and since some
//! rules need to see more than one object.

use std::collections::BTreeMap;

use crds::server::{DEFAULT_EVENT_TYPE, GATEWAY_ADMIN_PORT, GatewaySpec, HttpRouteSpec, Resources};
use crds::word::{AuthMode, CanaryAction, RolloutStrategy};
use crds::{McpServer, SecretKeyRef};

use crate::args::Settings;
use crate::object::Key;
use crate::world::Facts;
use crate::{image, quantity};

mod annotation;
mod fault;

pub use fault::{Fault, Reason};

/// A server that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub key: Key,
    pub uid: String,
    pub team: Option<String>,
    pub stable: Track,
    pub canary: Option<Track>,
    /// Percentage of requests for the canary, when it is not just its share of pods.
    pub canary_weight: Option<u8>,
    /// `None`: an autoscaler decides.
    pub wanted: Option<u32>,
    pub rolling: Option<Rolling>,
    pub port: u16,
    pub service_port: u16,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    pub run_as_user: u32,
    pub node_selector: BTreeMap<String, String>,
    pub env: Vec<Variable>,
    pub resources: Amounts,
    pub pull_secrets: Vec<String>,
    pub gateway: Option<Gateway>,
    /// `Err`: why it has none; the rest of the server runs all the same.
    pub route: Result<Route, Fault>,
}

/// The pods of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    pub image: String,
    /// `None`: an autoscaler decides.
    pub replicas: Option<u32>,
}

/// Bounds of a rolling update, as Kubernetes takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolling {
    pub unavailable_max: serde_json::Value,
    pub surge_max: serde_json::Value,
}

/// One variable of the server's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    Plain { name: String, value: String },
    Secret { name: String, secret: SecretKeyRef },
}

/// Requests and limits of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_request: String,
    pub memory_request: String,
    pub cpu_limit: String,
    pub memory_limit: String,
}

/// The sidecar before the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub port: u16,
    pub upstream: String,
    pub strip_prefix: Option<String>,
    pub resources: Amounts,
    pub recording: Option<Recording>,
}

/// Where the sidecar's events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    pub url: String,
    pub source: String,
    pub event_type: String,
    pub key: SecretKeyRef,
}

/// How clients reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Empty: every host.
    pub host: String,
    pub path: String,
    pub is_oauth: bool,
    pub via: Via,
}

/// What carries the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    Ingress {
        class: String,
        annotations: BTreeMap<String, String>,
        tls_secret: Option<String>,
    },
    HttpRoute {
        parents: Vec<Parent>,
    },
}

/// A Gateway to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub namespace: Option<String>,
    pub name: String,
    pub section: Option<String>,
}

/// The host a server claims; empty means every host.
pub fn host<'a>(server: &'a McpServer, default: &'a str) -> &'a str {
    server
        .spec
        .ingress_host
        .as_deref()
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .unwrap_or(default)
}

/// The path a server claims.
pub fn path(server: &McpServer) -> String {
    format!("/{}/mcp", server.prefix())
}

/// Whether a text looks like an address that HTTP clients take.
pub fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !url.contains(char::is_whitespace))
}

/// Checks a server. All faults are found, not only the first.
pub fn validate(facts: &Facts, server: &McpServer, uid: &str, settings: &Settings) -> Result<Checked, Vec<Fault>> {
    let mut faults = Vec::new();
    check_name(facts, &mut faults);
    check_ports(server, &mut faults);
    check_auth(server, &mut faults);
    let tracks = tracks(server, settings, &mut faults);
    let gateway = gateway(server, settings, &mut faults);
    let resources = amounts("spec.resources", server.spec.resources.as_ref(), &mut faults);
    let rolling = rolling(server, &mut faults);
    let env = environment(server, &mut faults);
    let (Some(tracks), true) = (tracks, faults.is_empty()) else {
        return Err(faults);
    };
    let spec = &server.spec;
    Ok(Checked {
        key: facts.key.clone(),
        uid: uid.to_owned(),
        team: spec.team().map(str::to_owned),
        wanted: tracks.wanted,
        stable: tracks.stable,
        canary: tracks.canary,
        canary_weight: spec.rollout.as_ref().and_then(|rollout| rollout.canary_weight),
        rolling,
        port: spec.port(),
        service_port: spec.service_port(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone().filter(|folder| !folder.is_empty()),
        run_as_user: spec.run_as_user.unwrap_or(65_532),
        node_selector: spec.node_selector.clone(),
        env,
        resources,
        pull_secrets: pull_secrets(server, settings),
        gateway,
        route: route(facts, server, settings),
    })
}

fn check_name(facts: &Facts, faults: &mut Vec<Fault>) {
    let name = &facts.key.name;
    // A Service's name begins with a letter, and `-canary` is appended to some.
    if name.len() > 52 || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        faults.push(Fault::invalid(
            "metadata.name must begin with a letter and have at most 52 characters; it becomes the name of a Service",
        ));
    }
}

fn check_ports(server: &McpServer, faults: &mut Vec<Fault>) {
    let Some(gateway) = server.spec.gateway.as_ref().filter(|gateway| gateway.enabled) else {
        return;
    };
    let (port, gateway_port) = (server.spec.port(), gateway.port());
    if port == gateway_port || port == GATEWAY_ADMIN_PORT || gateway_port == GATEWAY_ADMIN_PORT {
        faults.push(Fault::invalid(format!(
            "spec.port {port}, spec.gateway.port {gateway_port} and the gateway's metrics port {GATEWAY_ADMIN_PORT} must differ"
        )));
    }
}

fn check_auth(server: &McpServer, faults: &mut Vec<Fault>) {
    let Some(auth) = &server.spec.auth else { return };
    let governed = server.spec.is_governed();
    match auth.mode() {
        AuthMode::Oauth if governed && !auth.issuer_url.as_deref().is_some_and(is_http) => {
            faults.push(Fault::invalid(
                "spec.auth.mode oauth needs spec.auth.issuerURL, such as https://issuer.example.com",
            ));
        }
        AuthMode::Mtls if !governed => {
            faults.push(Fault::invalid("spec.auth.mode mtls needs spec.gateway.enabled"));
        }
        AuthMode::Mtls => faults.push(Fault::new(
            Reason::MtlsUnavailable,
            "spec.auth.mode mtls is not available on a cluster yet; use oauth, or header with sessions",
        )),
        _ => {}
    }
}

struct Tracks {
    wanted: Option<u32>,
    stable: Track,
    canary: Option<Track>,
}

fn tracks(server: &McpServer, settings: &Settings, faults: &mut Vec<Fault>) -> Option<Tracks> {
    let spec = &server.spec;
    let Some(own_image) = spec.image.as_deref().map(str::trim).filter(|image| !image.is_empty()) else {
        faults.push(Fault::invalid(
            "spec.image is missing; on a cluster every server runs from an image",
        ));
        return None;
    };
    let registry = if spec.use_provisioned_registry == Some(true) {
        Some(settings.registry.as_str())
    } else {
        spec.registry_override.as_deref()
    };
    let image = image::resolve(own_image, spec.image_tag.as_deref(), registry);
    let wanted = (spec.autoscaled != Some(true)).then(|| spec.replicas.unwrap_or(1));
    let rollout = spec.rollout.clone().unwrap_or_default();
    let plain = |image| Tracks {
        wanted,
        stable: Track { image, replicas: wanted },
        canary: None,
    };
    if rollout.strategy() != RolloutStrategy::Canary {
        return Some(plain(image));
    }
    let named = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let canary_image = image::resolve(
        named(&rollout.canary_image).as_deref().unwrap_or(own_image),
        named(&rollout.canary_image_tag).or(spec.image_tag.clone()).as_deref(),
        registry,
    );
    match (rollout.canary_action(), rollout.canary_replicas, wanted) {
        (CanaryAction::Rollback, ..) => Some(plain(image)),
        (CanaryAction::Promote, ..) => Some(plain(canary_image)),
        (CanaryAction::Hold, Some(canaries), Some(wanted)) if canaries > 0 && canaries < wanted => Some(Tracks {
            wanted: Some(wanted),
            stable: Track {
                image,
                replicas: Some(wanted - canaries),
            },
            canary: Some(Track {
                image: canary_image,
                replicas: Some(canaries),
            }),
        }),
        _ => {
            faults.push(Fault::invalid(
                "spec.rollout.strategy Canary needs spec.replicas, and a spec.rollout.canaryReplicas from 1 to below it",
            ));
            None
        }
    }
}

fn gateway(server: &McpServer, settings: &Settings, faults: &mut Vec<Fault>) -> Option<Gateway> {
    let spec = &server.spec;
    let named = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let Some(gateway) = spec.gateway.as_ref().filter(|gateway| gateway.enabled) else {
        let analytics = spec.analytics.as_ref().filter(|analytics| !analytics.disabled);
        if analytics.is_some_and(|analytics| {
            named(&analytics.ingest_url)
                .or(named(&analytics.source))
                .or(named(&analytics.event_type))
                .is_some()
                || analytics.api_key_secret_ref.is_some()
        }) {
            faults.push(Fault::invalid(
                "spec.analytics records calls that pass the gateway; set spec.gateway.enabled, or remove it",
            ));
        }
        return None;
    };
    let resources = amounts("spec.gateway.resources", gateway.resources.as_ref(), faults);
    Some(Gateway {
        port: gateway.port(),
        upstream: upstream(gateway, spec.port(), faults),
        strip_prefix: gateway.strip_prefix().map(str::to_owned),
        resources,
        recording: recording(server, settings, faults),
    })
}

/// The sidecar guards the server of its own pod, so it forwards nowhere else.
fn upstream(gateway: &GatewaySpec, port: u16, faults: &mut Vec<Fault>) -> String {
    let Some(url) = gateway.upstream_url.as_deref().map(str::trim).filter(|url| !url.is_empty()) else {
        return format!("http://127.0.0.1:{port}");
    };
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let host = authority.map(|authority| authority.rsplit_once(':').map_or(authority, |(host, _)| host));
    if !matches!(host, Some("127.0.0.1" | "localhost" | "[:" | "[::1]")) || url.contains('@') {
        faults.push(Fault::invalid(
            "spec.gateway.upstreamURL must point into the pod itself, such as http://127.0.0.1:8088",
        ));
    }
    url.to_owned()
}

fn recording(server: &McpServer, settings: &Settings, faults: &mut Vec<Fault>) -> Option<Recording> {
    let analytics = server.spec.analytics.clone().unwrap_or_default();
    if analytics.disabled {
        return None;
    }
    let named = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let url = named(analytics.ingest_url).or_else(|| settings.ingest_url.clone())?;
    if !is_http(&url) {
        faults.push(Fault::invalid("spec.analytics.ingestURL must begin with http:// or https://"));
    }
    Some(Recording {
        url,
        source: named(analytics.source).unwrap_or_else(|| format!("{}-gateway", server.metadata.name)),
        event_type: named(analytics.event_type).unwrap_or_else(|| DEFAULT_EVENT_TYPE.to_owned()),
        key: analytics.api_key_secret_ref.unwrap_or_else(|| SecretKeyRef {
            name: settings.ingest_key_secret.clone(),
            key: "api-key".to_owned(),
        }),
    })
}

fn amounts(field: &str, resources: Option<&Resources>, faults: &mut Vec<Fault>) -> Amounts {
    let (limits, requests) = resources.map_or((None, None), |resources| {
        (resources.limits.as_ref(), resources.requests.as_ref())
    });
    let mut amount = |place: &str, given: Option<&String>, default: &str| match given.map(|text| text.trim()) {
        None | Some("") => default.to_owned(),
        Some(text) => {
            if quantity::parse(text).is_none() {
                faults.push(Fault::invalid(format!(
                    "{field}.{place} {text:?} is no amount, such as 500m or 256Mi"
                )));
            }
            text.to_owned()
        }
    };
    let cpu_limit = amount("limits.cpu", limits.and_then(|limits| limits.cpu.as_ref()), "500m");
    let memory_limit = amount("limits.memory", limits.and_then(|limits| limits.memory.as_ref()), "256Mi");
    let cpu_request = amount("requests.cpu", requests.and_then(|requests| requests.cpu.as_ref()), "50m");
    let memory_request = amount(
        "requests.memory",
        requests.and_then(|requests| requests.memory.as_ref()),
        "64Mi",
    );
    for (name, request, limit) in [("cpu", &cpu_request, &cpu_limit), ("memory", &memory_request, &memory_limit)] {
        if let (Some(request_amount), Some(limit_amount)) = (quantity::parse(request), quantity::parse(limit))
            && request_amount > limit_amount
        {
            faults.push(Fault::invalid(format!(
                "{field}.requests.{name} {request} is more than its limit {limit}"
            )));
        }
    }
    Amounts {
        cpu_request,
        memory_request,
        cpu_limit,
        memory_limit,
    }
}

fn rolling(server: &McpServer, faults: &mut Vec<Fault>) -> Option<Rolling> {
    let rollout = server.spec.rollout.clone().unwrap_or_default();
    if rollout.strategy() == RolloutStrategy::Recreate {
        return None;
    }
    let mut bound = |field: &str, text: Option<&str>| {
        let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("25%");
        match (text.parse::<u32>(), text.strip_suffix('%').map(str::parse::<u32>)) {
            (Ok(count), _) => serde_json::json!(count),
            (_, Some(Ok(percent))) if percent <= 100 => serde_json::json!(text),
            _ => {
                faults.push(Fault::invalid(format!(
                    "spec.rollout.{field} {text:?} is neither a number nor a percentage"
                )));
                serde_json::json!("25%")
            }
        }
    };
    let unavailable_max = bound("maxUnavailable", rollout.max_unavailable.as_deref());
    let surge_max = bound("maxSurge", rollout.max_surge.as_deref());
    let is_zero = |bound: &serde_json::Value| *bound == 0 || *bound == "0%";
    if is_zero(&unavailable_max) && is_zero(&surge_max) {
        faults.push(Fault::invalid(
            "spec.rollout.maxUnavailable and maxSurge cannot both be zero: no pod could be replaced",
        ));
    }
    Some(Rolling {
        unavailable_max,
        surge_max,
    })
}

fn environment(server: &McpServer, faults: &mut Vec<Fault>) -> Vec<Variable> {
    let plain = server.spec.env_vars.iter().map(|variable| Variable::Plain {
        name: variable.name.clone(),
        value: variable.value.clone(),
    });
    let secret = server.spec.secret_env_vars.iter().map(|variable| Variable::Secret {
        name: variable.name.clone(),
        secret: variable.secret_key_ref.clone(),
    });
    let mut by_name = BTreeMap::new();
    for variable in plain.chain(secret) {
        let (Variable::Plain { name, .. } | Variable::Secret { name, .. }) = &variable;
        if name.is_empty() || name.contains(['=', '\0']) {
            faults.push(Fault::invalid(format!(
                "{name:?} is no name of a variable in spec.envVars or spec.secretEnvVars"
            )));
        } else if by_name.contains_key(name) {
            faults.push(Fault::invalid(format!(
                "variable {name} is there twice in spec.envVars and spec.secretEnvVars"
            )));
        } else {
            by_name.insert(name.clone(), variable);
        }
    }
    by_name.into_values().collect()
}

fn pull_secrets(server: &McpServer, settings: &Settings) -> Vec<String> {
    let named = server.spec.image_pull_secrets.iter().map(|name| name.trim().to_owned());
    let named: Vec<String> = named.filter(|name| !name.is_empty()).collect();
    if named.is_empty() && server.spec.use_provisioned_registry == Some(true) {
        vec![settings.registry_secret.clone()]
    } else {
        named
    }
}

fn route(facts: &Facts, server: &McpServer, settings: &Settings) -> Result<Route, Fault> {
    let spec = &server.spec;
    let (host, path) = (host(server, &settings.ingress_host).to_owned(), path(server));
    // `/a/mcp` also catches what is below it, so `/a/mcp/b/mcp` would be carved out of another server's route.
    if server.prefix().split('/').skip(1).any(|segment| segment == "mcp") {
        return Err(Fault::new(
            Reason::RouteRefused,
            "spec.publicPathPrefix must not lie below the route of another prefix, such as a/mcp/b",
        ));
    }
    if let Some(holder) = &facts.route_holder {
        let shown = if host.is_empty() { "every host" } else { &host };
        return Err(Fault::new(
            Reason::RouteTaken,
            format!(
                "route {path} on {shown} belongs to MCPServer {holder}, which claimed it first; set spec.publicPathPrefix or spec.ingressHost"
            ),
        ));
    }
    let via = match &spec.http_route {
        Some(wish) => Via::HttpRoute {
            parents: parents(wish, settings)?,
        },
        None => Via::Ingress {
            class: spec.ingress_class().to_owned(),
            annotations: annotation::allowed(&spec.ingress_annotations, &settings.annotations_allowed)?,
            tls_secret: spec.ingress_tls_secret.clone().filter(|name| !name.is_empty()),
        },
    };
    let is_oauth = spec.is_governed() && spec.auth.as_ref().is_some_and(|auth| auth.mode() == AuthMode::Oauth);
    Ok(Route {
        host,
        path,
        is_oauth,
        via,
    })
}

fn parents(wish: &HttpRouteSpec, settings: &Settings) -> Result<Vec<Parent>, Fault> {
    if !settings.gateway_api {
        return Err(Fault::new(
            Reason::RouteRefused,
            "spec.httpRoute needs the Gateway API, which this operator is not told of; remove it, or start the operator with --gateway-api",
        ));
    }
    let named = wish.parent_refs.iter().map(|parent| Parent {
        namespace: parent.namespace.clone(),
        name: parent.name.clone(),
        section: parent.section_name.clone(),
    });
    let mut parents: Vec<Parent> = named.collect();
    if parents.is_empty() {
        let (namespace, name) = settings.default_gateway.clone().ok_or_else(|| {
            Fault::new(
                Reason::RouteRefused,
                "spec.httpRoute.parentRefs names no Gateway, and the operator has no default one",
            )
        })?;
        parents.push(Parent {
            namespace: Some(namespace),
            name,
            section: None,
        });
    }
    Ok(parents)
}

#[cfg(test)]
mod tests;
