//! How calls reach the server and where their records go: gateway, analytics, Gateway API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{named, workload::Resources};
use crate::object::SecretKeyRef;

/// Port of the sidecar when the spec names none.
pub const DEFAULT_GATEWAY_PORT: u16 = 8091;
/// Port of the sidecar's health and metrics.
pub const GATEWAY_ADMIN_PORT: u16 = 9103;
/// Type that events name when the spec names none.
pub const DEFAULT_EVENT_TYPE: &str = "mcp.request";

/// The gateway before a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewaySpec {
    /// Whether calls pass a gateway at all.
    pub enabled: bool,
    /// Where the gateway reaches the server; `http://127.0.0.1:<port>` when absent. On a cluster only the pod itself.
    #[serde(rename = "upstreamURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub upstream_url: Option<String>,
    /// Kept for old manifests: the image of the sidecar belongs to the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Port of the sidecar; 8091 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024))]
    pub port: Option<u16>,
    /// Path prefix taken off before forwarding.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub strip_prefix: Option<String>,
    /// Requests and limits of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

impl GatewaySpec {
    /// Port of the sidecar.
    pub fn port(&self) -> u16 {
        self.port.filter(|port| *port != 0).unwrap_or(DEFAULT_GATEWAY_PORT)
    }

    /// Path prefix taken off before forwarding, when one is named.
    pub fn strip_prefix(&self) -> Option<&str> {
        named(self.strip_prefix.as_deref())
    }
}

/// Recording of calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnalyticsSpec {
    /// Opts out.
    pub disabled: bool,
    /// Where events go; the operator's address when absent.
    #[serde(rename = "ingestURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub ingest_url: Option<String>,
    /// Source that events name; `<name>-gateway` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub source: Option<String>,
    /// Type that events name; `mcp.request` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub event_type: Option<String>,
    /// Secret with the ingest key of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
}

/// A route of the Gateway API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteSpec {
    /// Gateways to attach to; the operator's default when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub parent_refs: Vec<ParentRef>,
}

/// A Gateway to attach to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the server's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Its listener; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub section_name: Option<String>,
}
