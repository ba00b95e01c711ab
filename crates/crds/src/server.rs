//! `MCPServer`: one MCP server, how it runs and how it is reached.

use domain::{Namespace, ServerName};
use serde::{Deserialize, Serialize};

/// An `MCPServer` object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpServer {
    /// `mcpruntime.org/v1alpha1`.
    pub api_version: String,
    /// `MCPServer`.
    pub kind: String,
    /// Name and namespace.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: McpServerSpec,
    /// What is; written by the operator, ignored when read from a file.
    #[serde(default, skip_serializing)]
    pub status: Option<serde_json::Value>,
}

/// The part of Kubernetes' object metadata that we read; the rest is ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name within the namespace.
    pub name: ServerName,
    /// Namespace; `mcp-servers` when absent.
    #[serde(default = "default_namespace")]
    pub namespace: Namespace,
}

fn default_namespace() -> Namespace {
    // The literal is a label, as a test shows.
    Namespace::parse("mcp-servers").expect("a literal that is a DNS label")
}

/// What is wanted of an `MCPServer`. Blocks that only the operator reads are kept as they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct McpServerSpec {
    /// Owning team.
    #[serde(rename = "teamID", skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// One sentence for the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Image repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Image tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Port the server listens on; 8088 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The route is `/<prefix>/mcp`; the name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_path_prefix: Option<String>,
    /// The gateway before the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
    /// Recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analytics: Option<AnalyticsSpec>,
    /// Policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<serde_json::Value>,
    /// Identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<serde_json::Value>,
    /// Sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<serde_json::Value>,
    /// Tools with side effect and trust.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<serde_json::Value>,
    /// Prompts of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<serde_json::Value>,
    /// Resources of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mcp_resources: Vec<serde_json::Value>,
    /// Tasks of the catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<serde_json::Value>,
    /// Registry host to use instead of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_override: Option<String>,
    /// Whether the image is in the platform's own registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_provisioned_registry: Option<bool>,
    /// Secrets to pull the image with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Pods wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Port of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_port: Option<u16>,
    /// Path of the Ingress; kept for old manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_path: Option<String>,
    /// Host of the Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_host: Option<String>,
    /// Class of the Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_class: Option<String>,
    /// Annotations of the Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_annotations: Option<serde_json::Value>,
    /// Requests and limits of the server's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<serde_json::Value>,
    /// Environment of the server's container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_vars: Vec<serde_json::Value>,
    /// Environment from Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_env_vars: Vec<serde_json::Value>,
    /// How new revisions come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<serde_json::Value>,
}

/// The gateway before a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewaySpec {
    /// Whether calls pass a gateway at all.
    pub enabled: bool,
    /// Where the gateway reaches the server; `http://127.0.0.1:<port>` when absent.
    #[serde(rename = "upstreamURL", skip_serializing_if = "Option::is_none")]
    pub upstream_url: Option<String>,
    /// Image of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Port of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path prefix taken off before forwarding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Requests and limits of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<serde_json::Value>,
}

/// Recording of calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnalyticsSpec {
    /// Opts out.
    pub disabled: bool,
    /// Where events go.
    #[serde(rename = "ingestURL", skip_serializing_if = "Option::is_none")]
    pub ingest_url: Option<String>,
    /// Source that events name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Type that events name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Secret with the ingest key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<serde_json::Value>,
}

/// Port a server listens on when its spec names none.
pub const DEFAULT_PORT: u16 = 8088;

impl McpServer {
    /// First segment of the public route.
    pub fn prefix(&self) -> &str {
        let prefix = self.spec.public_path_prefix.as_deref().map(|prefix| prefix.trim_matches('/'));
        prefix
            .filter(|prefix| !prefix.is_empty())
            .unwrap_or_else(|| self.metadata.name.as_str())
    }

    /// Where a gateway on the same machine reaches the server.
    pub fn upstream(&self) -> String {
        let named = self.spec.gateway.as_ref().and_then(|gateway| gateway.upstream_url.clone());
        named.unwrap_or_else(|| format!("http://127.0.0.1:{}/mcp", self.spec.port.unwrap_or(DEFAULT_PORT)))
    }

    /// Whether calls are recorded.
    pub fn is_recorded(&self) -> bool {
        !self.spec.analytics.as_ref().is_some_and(|analytics| analytics.disabled)
    }
}
