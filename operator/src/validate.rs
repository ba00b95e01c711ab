//! From what is known about a server to what should be, or to what is wrong. Pure: no client, no clock.
//!
//! The schema refuses most of this already. It is checked again here, since objects may be older than the schema, and since some
//! rules need to see more than one object.

use std::collections::BTreeMap;

use crds::server::GATEWAY_ADMIN_PORT;
use crds::word::AuthMode;
use crds::{McpServer, SecretKeyRef};

use crate::args::Settings;
use crate::object::Key;
use crate::world::Facts;

mod annotation;
mod fault;
mod gateway;
mod route;
mod workload;

pub use fault::{Fault, Reason};
pub use route::{host, path};

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
    let tracks = workload::tracks(server, settings, &mut faults);
    let gateway = gateway::gateway(server, settings, &mut faults);
    let resources = workload::amounts("spec.resources", server.spec.resources.as_ref(), &mut faults);
    let rolling = workload::rolling(server, &mut faults);
    let env = workload::environment(server, &mut faults);
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
        route: route::route(facts, server, settings),
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

fn pull_secrets(server: &McpServer, settings: &Settings) -> Vec<String> {
    let named = server.spec.image_pull_secrets.iter().map(|name| name.trim().to_owned());
    let named: Vec<String> = named.filter(|name| !name.is_empty()).collect();
    if named.is_empty() && server.spec.use_provisioned_registry == Some(true) {
        vec![settings.registry_secret.clone()]
    } else {
        named
    }
}

#[cfg(test)]
mod tests;
