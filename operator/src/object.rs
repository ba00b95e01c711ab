//! Names of objects: which kind, which namespace, which name.

use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

/// Namespace and name of an object. Orders by namespace first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Of an object as the API server sends it.
    pub fn of(object: &Value) -> Self {
        Self::new(text(object, "/metadata/namespace"), text(object, "/metadata/name"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds the operator reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Server,
    Grant,
    Session,
    Pod,
    ConfigMap,
    Service,
    Deployment,
    Ingress,
    HttpRoute,
    NetworkPolicy,
    PodDisruptionBudget,
    Event,
    Lease,
}

impl Kind {
    /// What the operator makes for a server, in the order in which it is written: what pods mount comes before pods.
    pub const OWNED: [Self; 7] = [
        Self::ConfigMap,
        Self::NetworkPolicy,
        Self::Deployment,
        Self::Service,
        Self::Ingress,
        Self::HttpRoute,
        Self::PodDisruptionBudget,
    ];

    /// Group, version, kind and plural.
    pub const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Server => (crds::GROUP, crds::VERSION, "MCPServer", "mcpservers"),
            Self::Grant => (crds::GROUP, crds::VERSION, "MCPAccessGrant", "mcpaccessgrants"),
            Self::Session => (crds::GROUP, crds::VERSION, "MCPAgentSession", "mcpagentsessions"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::Ingress => ("networking.k8s.io", "v1", "Ingress", "ingresses"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Event => ("events.k8s.io", "v1", "Event", "events"),
            Self::Lease => ("coordination.k8s.io", "v1", "Lease", "leases"),
        }
    }

    /// The kind as manifests spell it.
    pub const fn as_str(self) -> &'static str {
        self.names().2
    }

    /// `apiVersion` as manifests spell it.
    pub fn api_version(self) -> String {
        self.resource().api_version
    }

    /// How `kube` addresses the kind.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text at a JSON pointer; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; zero when there is none.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    entry(object, "/metadata/labels", name)
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    entry(object, "/metadata/annotations", name)
}

fn entry<'a>(object: &'a Value, map: &str, name: &str) -> &'a str {
    let map = object.pointer(map).and_then(Value::as_object);
    map.and_then(|map| map.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// Name and uid of the server that controls an object.
pub fn controller(object: &Value) -> Option<(&str, &str)> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| {
        owner.get("controller") == Some(&Value::Bool(true))
            && text(owner, "/kind") == Kind::Server.as_str()
            && text(owner, "/apiVersion") == crds::API_VERSION
    })?;
    Some((text(owner, "/name"), text(owner, "/uid")))
}
