//! `MCPAccessGrant`: who may call which tools of a server.

use domain::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::{Condition, Metadata, ObjectName, ServerRef, Subject};
use crate::text::DurationText;
use crate::word::{PolicyDecision, RateScope, ToolSideEffect, TrustLevel, Weekday};

/// An `MCPAccessGrant` object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpAccessGrant {
    /// `mcpruntime.org/v1alpha1`.
    pub api_version: String,
    /// `MCPAccessGrant`.
    pub kind: String,
    /// Name and namespace.
    pub metadata: Metadata<ObjectName>,
    /// What is granted.
    pub spec: McpAccessGrantSpec,
    /// What is; written by the operator, ignored when read from a file.
    #[serde(default, skip_serializing)]
    pub status: Option<serde_json::Value>,
}

/// What is granted, to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "mcpruntime.org",
        version = "v1alpha1",
        kind = "MCPAccessGrant",
        root = "McpAccessGrantResource",
        plural = "mcpaccessgrants",
        shortname = "mcpg",
        category = "mcp",
        namespaced,
        status = "AccessStatus",
        derive = "PartialEq",
        doc = "A grant: who may call which tools of an MCP server.",
        printcolumn(name = "Server", type_ = "string", json_path = ".spec.serverRef.name"),
        printcolumn(name = "Human", type_ = "string", json_path = ".spec.subject.humanID"),
        printcolumn(name = "Agent", type_ = "string", json_path = ".spec.subject.agentID"),
        printcolumn(name = "Team", type_ = "string", json_path = ".spec.subject.teamID"),
        printcolumn(name = "Trust", type_ = "string", json_path = ".spec.maxTrust"),
        printcolumn(name = "Disabled", type_ = "boolean", json_path = ".spec.disabled"),
        printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpAccessGrantSpec {
    /// The server.
    pub server_ref: ServerRef,
    /// Who is meant; an empty subject is any identified caller.
    pub subject: Subject,
    /// Most trust the grant gives; `low` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_trust: Option<TrustLevel>,
    /// What granted calls may do to the world; nothing when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_side_effects: Vec<ToolSideEffect>,
    /// A name of this grant that events carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub policy_version: Option<String>,
    /// Whether the grant is switched off.
    #[serde(default)]
    pub disabled: bool,
    /// Rules for single tools; any tool when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tool_rules: Vec<ToolRule>,
    /// Rules for prompts, by glob over their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub prompt_rules: Vec<PromptRule>,
    /// Rules for resources, by glob over their URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uri"]))]
    pub resource_rules: Vec<ResourceRule>,
    /// First moment the grant is in force; at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub valid_from: Option<Timestamp>,
    /// First moment the grant is no longer in force; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub valid_until: Option<Timestamp>,
    /// Hours of the week in which the grant is in force; always when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub windows: Vec<Window>,
    /// Calls per time; no bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// What a grant says about one tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolRule {
    /// Name of the tool.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"\S"))]
    pub name: String,
    /// Whether it may be called; a denial beats every allowance.
    pub decision: PolicyDecision,
    /// Least trust that a call needs by this rule; `low` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<TrustLevel>,
    /// A CEL condition over `arguments`; the rule holds where it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub when: Option<String>,
}

/// What a grant says about prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromptRule {
    /// Glob over names of prompts.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Whether they may be got; a denial beats every allowance.
    pub decision: PolicyDecision,
    /// Least trust that getting them needs by this rule; `low` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<TrustLevel>,
    /// A CEL condition over `arguments`; the rule holds where it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub when: Option<String>,
}

/// What a grant says about resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceRule {
    /// Glob over URIs: `*` is any text without `/`, `**` any text.
    #[schemars(length(min = 1, max = 1024))]
    pub uri: String,
    /// Whether they may be read; a denial beats every allowance.
    pub decision: PolicyDecision,
    /// Least trust that reading them needs by this rule; `low` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<TrustLevel>,
}

/// Hours of the week.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Window {
    /// Days on which it opens; every day when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<Weekday>,
    /// When it opens, `HH:MM`; midnight when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: Option<String>,
    /// When it closes, `HH:MM`; the next midnight when absent. Before `from` it is a time of the next day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: Option<String>,
    /// Offset of these clock times from UTC, such as `+01:00`; `+00:00` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = r"^[+-]([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub utc_offset: Option<String>,
}

/// How many calls in how much time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Calls.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub calls: u32,
    /// Time, such as `1m`.
    pub per: DurationText,
    /// Who shares the count; `caller` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RateScope>,
}

/// What is, of a grant or a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessStatus {
    /// Generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Active`, `Inactive` or `Error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Statements, one of each type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl McpAccessGrantSpec {
    /// Most trust the grant gives.
    pub fn max_trust(&self) -> TrustLevel {
        self.max_trust.unwrap_or(TrustLevel::Low)
    }
}

impl ToolRule {
    /// Least trust that a call needs by this rule.
    pub fn required_trust(&self) -> TrustLevel {
        self.required_trust.unwrap_or(TrustLevel::Low)
    }
}
