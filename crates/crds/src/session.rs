//! `MCPAgentSession`: what a person has consented to for an agent, for a while.

use domain::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::grant::AccessStatus;
use crate::object::{Metadata, ObjectName, SecretKeyRef, ServerRef, Subject};
use crate::word::TrustLevel;

/// An `MCPAgentSession` object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpAgentSession {
    /// `mcpruntime.org/v1alpha1`.
    pub api_version: String,
    /// `MCPAgentSession`.
    pub kind: String,
    /// Name and namespace.
    pub metadata: Metadata<ObjectName>,
    /// What was consented to.
    pub spec: McpAgentSessionSpec,
    /// What is; written by the operator, ignored when read from a file.
    #[serde(default, skip_serializing)]
    pub status: Option<serde_json::Value>,
}

/// What was consented to, for whom, until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "mcpruntime.org",
        version = "v1alpha1",
        kind = "MCPAgentSession",
        root = "McpAgentSessionResource",
        plural = "mcpagentsessions",
        shortname = "mcpsess",
        category = "mcp",
        namespaced,
        status = "AccessStatus",
        derive = "PartialEq",
        doc = "A session: what a person has consented to for an agent, for a while.",
        printcolumn(name = "Server", type_ = "string", json_path = ".spec.serverRef.name"),
        printcolumn(name = "Human", type_ = "string", json_path = ".spec.subject.humanID"),
        printcolumn(name = "Agent", type_ = "string", json_path = ".spec.subject.agentID"),
        printcolumn(name = "Team", type_ = "string", json_path = ".spec.subject.teamID"),
        printcolumn(name = "Trust", type_ = "string", json_path = ".spec.consentedTrust"),
        printcolumn(name = "Revoked", type_ = "boolean", json_path = ".spec.revoked"),
        printcolumn(name = "Expires", type_ = "date", json_path = ".spec.expiresAt"),
        printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.subject.humanID) && self.subject.humanID != '') || (has(self.subject.agentID) && self.subject.agentID != '') || (has(self.subject.teamID) && self.subject.teamID != '')",
    "message": "a session needs at least one of subject.humanID, subject.agentID and subject.teamID",
    "fieldPath": ".subject"
}]))]
pub struct McpAgentSessionSpec {
    /// The server.
    pub server_ref: ServerRef,
    /// Whose session it is; at least one field.
    pub subject: Subject,
    /// Most trust the person agreed to; `low` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consented_trust: Option<TrustLevel>,
    /// When the session ends; never by itself when absent, though the server's `session.maxLifetime` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// Whether the session was ended before its time.
    #[serde(default)]
    pub revoked: bool,
    /// When it was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub revoked_at: Option<Timestamp>,
    /// Hash of the session's token, `sha256:` and 64 hex digits. The token itself is known to its holder alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^(sha256:[0-9a-f]{64})?$"))]
    pub token_hash: Option<String>,
    /// Secret with a credential for the server, used on behalf of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_token_secret_ref: Option<SecretKeyRef>,
    /// A name of this session that events carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub policy_version: Option<String>,
}

impl McpAgentSessionSpec {
    /// Most trust the person agreed to, when they said so.
    pub fn consented_trust(&self) -> TrustLevel {
        self.consented_trust.unwrap_or(TrustLevel::Low)
    }
}
