//! What the operator found: written by it alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::Condition;

/// What is, of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each part, as scripts and printer columns read them"
)]
pub struct McpServerStatus {
    /// Generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Pending`, `PartiallyReady`, `Ready` or `Error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The most important sentence of the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where clients reach the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Image that the stable pods run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The policy in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Whether as many pods as wanted are ready, all of the newest revision.
    pub deployment_ready: bool,
    /// Whether the Service has an address.
    pub service_ready: bool,
    /// Whether the route is accepted.
    pub ingress_ready: bool,
    /// Whether the gateways are ready.
    pub gateway_ready: bool,
    /// Whether the policy is rendered and published.
    pub policy_ready: bool,
    /// Whether the canary pods are ready.
    pub canary_ready: bool,
    /// Statements, one of each type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// Revision of the document that was published last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Gateways that have acknowledged this revision; absent while none has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_replicas: Option<u32>,
    /// Grants in the document.
    pub grants: u32,
    /// Sessions in the document.
    pub sessions: u32,
}
