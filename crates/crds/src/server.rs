//! `MCPServer`: one MCP server, how it runs, how it is reached and who may call it.

use std::collections::BTreeMap;

use domain::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::Metadata;

mod access;
mod delivery;
mod rules;
mod status;
mod workload;

pub use access::{
    AuthSpec, CatalogEntry, DEFAULT_AGENT_ID_HEADER, DEFAULT_HUMAN_ID_HEADER, DEFAULT_SESSION_ID_HEADER,
    DEFAULT_TEAM_ID_HEADER, DEFAULT_TOKEN_HEADER, PolicySpec, SessionSpec, ToolSpec,
};
pub use delivery::{
    AnalyticsSpec, DEFAULT_EVENT_TYPE, DEFAULT_GATEWAY_PORT, GATEWAY_ADMIN_PORT, GatewaySpec, HttpRouteSpec, ParentRef,
};
pub use status::{McpServerStatus, PolicyStatus};
pub use workload::{EnvVar, ResourceAmounts, Resources, RolloutSpec, SecretEnvVar};

/// An `MCPServer` object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpServer {
    /// `mcpruntime.org/v1alpha1`.
    pub api_version: String,
    /// `MCPServer`.
    pub kind: String,
    /// Name and namespace.
    pub metadata: Metadata<ServerName>,
    /// What is wanted.
    pub spec: McpServerSpec,
    /// What is; written by the operator, ignored when read from a file.
    #[serde(default, skip_serializing)]
    pub status: Option<serde_json::Value>,
}

/// What is wanted of an MCP server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "mcpruntime.org",
        version = "v1alpha1",
        kind = "MCPServer",
        root = "McpServerResource",
        plural = "mcpservers",
        shortname = "mcps",
        category = "mcp",
        namespaced,
        status = "McpServerStatus",
        derive = "PartialEq",
        doc = "An MCP server: how it runs, how it is reached and who may call it.",
        printcolumn(name = "Team", type_ = "string", json_path = ".spec.teamID"),
        printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
        printcolumn(name = "Policy", type_ = "boolean", json_path = ".status.policyReady"),
        printcolumn(name = "Gateway", type_ = "boolean", json_path = ".status.gatewayReady"),
        printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.deploymentReady"),
        printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
        printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = rules::of_server()))]
pub struct McpServerSpec {
    /// Stable id of the owning team.
    #[serde(rename = "teamID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[^ \t\r\n]*$"))]
    pub team_id: Option<String>,
    /// One sentence for the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Image repository, with or without registry, tag and digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^ \t\r\n]+$"))]
    pub image: Option<String>,
    /// Image tag, used when the image names neither tag nor digest; `latest` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$"))]
    pub image_tag: Option<String>,
    /// Registry to take the image from instead of the one it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub registry_override: Option<String>,
    /// Whether the image is in the platform's own registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_provisioned_registry: Option<bool>,
    /// Secrets to pull the image with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub image_pull_secrets: Vec<String>,
    /// Command of the server's container; the image's own when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub command: Vec<String>,
    /// Arguments of the server's container; the image's own when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args: Vec<String>,
    /// Folder the command runs in; the image's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub working_dir: Option<String>,
    /// User id the server's container runs as, never root; 65532 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_user: Option<u32>,
    /// Labels of the nodes the pods may run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Pods wanted; 1 when absent, and left to whoever scales the Deployment when `autoscaled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub replicas: Option<u32>,
    /// Whether an autoscaler of yours sets the number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaled: Option<bool>,
    /// Port the server listens on; 8088 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Port of the Service; 80 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub service_port: Option<u16>,
    /// The route is `/<prefix>/mcp`; the name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r"^/*[A-Za-z0-9_~-][A-Za-z0-9._~-]*(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/*$")
    )]
    pub public_path_prefix: Option<String>,
    /// Kept for old manifests; the route follows `publicPathPrefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub ingress_path: Option<String>,
    /// Host of the route; the operator's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
    )]
    pub ingress_host: Option<String>,
    /// Class of the Ingress; `traefik` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub ingress_class: Option<String>,
    /// Annotations of the Ingress. Those that could take another server's route are refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub ingress_annotations: BTreeMap<String, String>,
    /// Secret with the certificate of `ingressHost`.
    #[serde(rename = "ingressTLSSecret", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub ingress_tls_secret: Option<String>,
    /// Asks for an `HTTPRoute` of the Gateway API instead of an Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteSpec>,
    /// Requests and limits of the server's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Environment of the server's container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env_vars: Vec<EnvVar>,
    /// Environment of the server's container, from Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secret_env_vars: Vec<SecretEnvVar>,
    /// The gateway before the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
    /// Recording of calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analytics: Option<AnalyticsSpec>,
    /// How callers are identified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// What is decided where no grant decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySpec>,
    /// Sessions of callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionSpec>,
    /// Namespaces whose grants and sessions may name this server, beside its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub allow_references_from: Vec<String>,
    /// Tools with side effect and trust.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tools: Vec<ToolSpec>,
    /// Prompts of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub prompts: Vec<CatalogEntry>,
    /// Resources of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub mcp_resources: Vec<CatalogEntry>,
    /// Tasks of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tasks: Vec<CatalogEntry>,
    /// How new revisions come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
}

/// Port a server listens on when its spec names none.
pub const DEFAULT_PORT: u16 = 8088;
/// Port of the Service when the spec names none.
pub const DEFAULT_SERVICE_PORT: u16 = 80;
/// Class of the Ingress when the spec names none.
pub const DEFAULT_INGRESS_CLASS: &str = "traefik";
/// Image tag when neither the image nor the spec names one.
pub const DEFAULT_IMAGE_TAG: &str = "latest";

impl McpServer {
    /// First part of the public route, without slashes around it.
    pub fn prefix(&self) -> &str {
        let prefix = self.spec.public_path_prefix.as_deref().map(|prefix| prefix.trim_matches('/'));
        prefix
            .filter(|prefix| !prefix.is_empty())
            .unwrap_or_else(|| self.metadata.name.as_str())
    }

    /// Where a gateway on the same machine reaches the server.
    pub fn upstream(&self) -> String {
        let named = self.spec.gateway.as_ref().and_then(|gateway| gateway.upstream_url.clone());
        named.unwrap_or_else(|| format!("http://127.0.0.1:{}/mcp", self.spec.port()))
    }

    /// Whether calls are recorded.
    pub fn is_recorded(&self) -> bool {
        !self.spec.analytics.as_ref().is_some_and(|analytics| analytics.disabled)
    }
}

impl McpServerSpec {
    /// Port the server listens on.
    pub fn port(&self) -> u16 {
        self.port.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT)
    }

    /// Port of the Service.
    pub fn service_port(&self) -> u16 {
        self.service_port.filter(|port| *port != 0).unwrap_or(DEFAULT_SERVICE_PORT)
    }

    /// Whether calls pass a gateway.
    pub fn is_governed(&self) -> bool {
        self.gateway.as_ref().is_some_and(|gateway| gateway.enabled)
    }

    /// The owning team, when one is named.
    pub fn team(&self) -> Option<&str> {
        named(self.team_id.as_deref())
    }

    /// Class of the Ingress.
    pub fn ingress_class(&self) -> &str {
        named(self.ingress_class.as_deref()).unwrap_or(DEFAULT_INGRESS_CLASS)
    }
}

/// A text that is more than blanks, without the blanks around it: what people leave empty counts as left out.
fn named(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}
