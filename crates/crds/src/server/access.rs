//! Who may call: identity, policy, sessions, and the catalogue the rules speak of.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::named;
use crate::text::DurationText;
use crate::word::{
    AuthMode, IdentityAssurance, KindRule, ListFilter, PolicyDecision, PolicyMode, SessionVerification, ToolRiskLevel,
    ToolSideEffect, TrustLevel,
};

/// Header with the caller's human when the spec names none.
pub const DEFAULT_HUMAN_ID_HEADER: &str = "X-MCP-Human-ID";
/// Header with the caller's agent when the spec names none.
pub const DEFAULT_AGENT_ID_HEADER: &str = "X-MCP-Agent-ID";
/// Header with the caller's team when the spec names none.
pub const DEFAULT_TEAM_ID_HEADER: &str = "X-MCP-Team-ID";
/// Header with the caller's session when the spec names none.
pub const DEFAULT_SESSION_ID_HEADER: &str = "X-MCP-Agent-Session";
/// Header with the caller's bearer token when the spec names none.
pub const DEFAULT_TOKEN_HEADER: &str = "Authorization";

/// What header names look like.
macro_rules! header_field {
    () => {
        r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+)?$"
    };
}

/// How callers are identified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthSpec {
    /// `header` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<AuthMode>,
    /// Header with the person; `X-MCP-Human-ID` when absent.
    #[serde(rename = "humanIDHeader", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub human_id_header: Option<String>,
    /// Header with the agent; `X-MCP-Agent-ID` when absent.
    #[serde(rename = "agentIDHeader", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub agent_id_header: Option<String>,
    /// Header with the team; `X-MCP-Team-ID` when absent.
    #[serde(rename = "teamIDHeader", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub team_id_header: Option<String>,
    /// Header with the session; `X-MCP-Agent-Session` when absent.
    #[serde(rename = "sessionIDHeader", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub session_id_header: Option<String>,
    /// Header with the bearer token; `Authorization` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub token_header: Option<String>,
    /// Issuer of bearer tokens; needed by mode `oauth`.
    #[serde(rename = "issuerURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub issuer_url: Option<String>,
    /// Audience that bearer tokens must name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub audience: Option<String>,
    /// SPIFFE trust domain of client certificates; needed by mode `mtls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub trust_domain: Option<String>,
    /// Scopes that every judged call needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub required_scopes: Vec<String>,
}

impl AuthSpec {
    /// How callers are identified.
    pub fn mode(&self) -> AuthMode {
        self.mode.unwrap_or(AuthMode::Header)
    }

    /// Header with the person.
    pub fn human_id_header(&self) -> &str {
        named(self.human_id_header.as_deref()).unwrap_or(DEFAULT_HUMAN_ID_HEADER)
    }

    /// Header with the agent.
    pub fn agent_id_header(&self) -> &str {
        named(self.agent_id_header.as_deref()).unwrap_or(DEFAULT_AGENT_ID_HEADER)
    }

    /// Header with the team.
    pub fn team_id_header(&self) -> &str {
        named(self.team_id_header.as_deref()).unwrap_or(DEFAULT_TEAM_ID_HEADER)
    }

    /// Header with the session.
    pub fn session_id_header(&self) -> &str {
        named(self.session_id_header.as_deref()).unwrap_or(DEFAULT_SESSION_ID_HEADER)
    }

    /// Header with the bearer token.
    pub fn token_header(&self) -> &str {
        named(self.token_header.as_deref()).unwrap_or(DEFAULT_TOKEN_HEADER)
    }
}

/// What is decided where no grant decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicySpec {
    /// `allow-list` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<PolicyMode>,
    /// `deny` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_decision: Option<PolicyDecision>,
    /// Kept for old manifests: what is judged does not depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub enforce_on: Option<String>,
    /// A name of this policy that events carry; `v1` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub policy_version: Option<String>,
    /// Which identities are accepted; `asserted` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_identity: Option<IdentityAssurance>,
    /// What reading and watching resources needs; `granted` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<KindRule>,
    /// What getting prompts needs; `granted` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<KindRule>,
    /// What asking for tasks needs; `identified` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<KindRule>,
    /// What methods need that the gateway does not know; `identified` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<KindRule>,
    /// Whether lists show only what the caller may use; `filtered` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListFilter>,
}

impl PolicySpec {
    /// Enforce or observe.
    pub fn mode(&self) -> PolicyMode {
        self.mode.unwrap_or(PolicyMode::AllowList)
    }

    /// What is decided where no grant decides.
    pub fn default_decision(&self) -> PolicyDecision {
        self.default_decision.unwrap_or(PolicyDecision::Deny)
    }

    /// Kept for old manifests.
    pub fn enforce_on(&self) -> &str {
        named(self.enforce_on.as_deref()).unwrap_or("call_tool")
    }

    /// The name that events carry.
    pub fn policy_version(&self) -> &str {
        named(self.policy_version.as_deref()).unwrap_or("v1")
    }
}

/// Sessions of callers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SessionSpec {
    /// Whether a call without a session is refused.
    pub required: bool,
    /// What proves that a caller holds the session it names; `token` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<SessionVerification>,
    /// Kept for old manifests: sessions are objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub store: Option<String>,
    /// Kept for old manifests: `auth.sessionIDHeader` names the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub header_name: Option<String>,
    /// Longest life of a session, whatever it says itself; `24h` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<DurationText>,
    /// Longest pause between two calls of a session; `1h` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<DurationText>,
    /// Header in which the server gets an upstream credential; `Authorization` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = header_field!()))]
    pub upstream_token_header: Option<String>,
}

impl SessionSpec {
    /// What proves that a caller holds the session it names.
    pub fn verification(&self) -> SessionVerification {
        self.verification.unwrap_or(SessionVerification::Token)
    }

    /// Kept for old manifests.
    pub fn store(&self) -> &str {
        named(self.store.as_deref()).unwrap_or("kubernetes")
    }

    /// Kept for old manifests.
    pub fn header_name(&self) -> &str {
        named(self.header_name.as_deref()).unwrap_or(DEFAULT_SESSION_ID_HEADER)
    }

    /// Longest life of a session, as text.
    pub fn max_lifetime(&self) -> &str {
        self.max_lifetime.as_ref().map_or("24h", DurationText::as_str)
    }

    /// Longest pause between two calls, as text.
    pub fn idle_timeout(&self) -> &str {
        self.idle_timeout.as_ref().map_or("1h", DurationText::as_str)
    }

    /// Header in which the server gets an upstream credential.
    pub fn upstream_token_header(&self) -> &str {
        named(self.upstream_token_header.as_deref()).unwrap_or(DEFAULT_TOKEN_HEADER)
    }
}

/// A tool, and what it takes to call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolSpec {
    /// Name, as the server lists it.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"\S"))]
    pub name: String,
    /// One sentence for the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Least trust that a call needs; `low` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<TrustLevel>,
    /// What the tool does to the world.
    pub side_effect: ToolSideEffect,
    /// How much harm a call may do; derived from trust and side effect when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<ToolRiskLevel>,
    /// Labels for the catalogue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Hash of the approved definition; another definition is refused until it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^(sha256:[0-9a-f]{64})?$"))]
    pub pin: Option<String>,
    /// Scopes a call needs, beside those of `auth`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub required_scopes: Vec<String>,
}

impl ToolSpec {
    /// Least trust that a call needs.
    pub fn required_trust(&self) -> TrustLevel {
        self.required_trust.unwrap_or(TrustLevel::Low)
    }
}

/// A prompt, resource or task of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CatalogEntry {
    /// Name, as the server lists it.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"\S"))]
    pub name: String,
    /// One sentence for the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Labels for the catalogue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
}
