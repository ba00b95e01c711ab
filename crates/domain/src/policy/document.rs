//! The policy document: how a server's rules, grants and sessions travel, version 1.
//!
//! ```json
//! {"schema_version":"v1","revision":"sha256:…","server":{"name":"payments","namespace":"acme"},
//!  "auth":{"mode":"header"},"policy":{"mode":"allow-list","default_decision":"deny"},
//!  "tools":[{"name":"list_invoices","required_trust":"low","side_effect":"read"}],
//!  "grants":[{"name":"alice","namespace":"acme","human_id":"alice","max_trust":"medium","allowed_side_effects":["read"]}],
//!  "sessions":[{"name":"s1","namespace":"acme","human_id":"alice","consented_trust":"low","token_hash":"sha256:…"}]}
//! ```
//!
//! Every list is a set: its order means nothing, and [`Document::revision_of`] does not see it. What is empty is left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::words::{AuthMode, KindRule, Lists, Mode, RateScope, Risk, SideEffect, Trust, Verification};
use crate::Decision;
use crate::policy::words::Assurance;

/// The only schema version there is.
pub const SCHEMA_VERSION: &str = "v1";
/// Key of the document in its `ConfigMap`, and the name of its file.
pub const FILE_NAME: &str = "policy.json";

/// Everything a gateway needs to know to judge the calls of one server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// `sha256:` and hex over the content; empty before it is stamped.
    pub revision: String,
    /// When it was rendered, RFC 3339; informs only, and is no part of the content.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generated_at: String,
    /// Which server.
    pub server: Server,
    /// How callers say who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// How calls are judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Settings>,
    /// What is asked of sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionSettings>,
    /// The tools the server owner has listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Who may do what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// On whose behalf, and with how much consent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<Session>,
}

/// The server a document is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Name within the namespace.
    pub name: String,
    /// Tenant namespace.
    pub namespace: String,
    /// Owning team.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team_id: String,
    /// Cluster it runs in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
}

/// How callers say who they are. Empty header names mean the usual ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The way; `header` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub mode: Option<AuthMode>,
    /// Header that names the person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub human_id_header: String,
    /// Header that names the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_id_header: String,
    /// Header that names the team.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team_id_header: String,
    /// Header that carries the session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session_id_header: String,
    /// Header that carries the access token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token_header: String,
    /// Issuer of access tokens; needed by `oauth`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer_url: String,
    /// Audience that access tokens must name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// SPIFFE trust domain; needed by `mtls`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
    /// Scopes that every judged call needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_scopes: Vec<String>,
}

/// How calls are judged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether refusals are enforced; `allow-list` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What becomes of calls nobody spoke about; `deny` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub default_decision: Option<Decision>,
    /// Kept for old manifests; the kinds below say what is judged.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub enforce_on: String,
    /// Label that decisions carry when the deciding grant has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_version: String,
    /// Which identities are accepted; `asserted` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub require_identity: Option<Assurance>,
    /// What reading and watching resources needs; `granted` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub resources: Option<KindRule>,
    /// What getting prompts needs; `granted` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub prompts: Option<KindRule>,
    /// What asking for tasks needs; `identified` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub tasks: Option<KindRule>,
    /// What methods need that this gateway does not know; `identified` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub others: Option<KindRule>,
    /// Whether lists show only what the caller may use; `filtered` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub lists: Option<Lists>,
}

/// What is asked of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// Whether judged calls need a session.
    #[serde(skip_serializing_if = "is_false")]
    pub required: bool,
    /// Kept for old manifests: sessions are objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub store: String,
    /// Header that carries the session, when `auth` names none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub header_name: String,
    /// Longest life from `issued_at`, such as `24h`; no bound when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub max_lifetime: String,
    /// Longest pause between two calls, such as `1h`; no bound when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idle_timeout: String,
    /// Header for the upstream's own credential.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream_token_header: String,
    /// What sessions are recognised by; `token` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// One tool of the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tool {
    /// Name, exactly as callers write it.
    pub name: String,
    /// One sentence for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Trust a call needs; `low` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<Trust>,
    /// What a call does; calls are refused when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub side_effect: Option<SideEffect>,
    /// Rating for people; derived when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<Risk>,
    /// Free labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Hash of the approved definition; another definition is refused until it is approved.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pin: String,
    /// Scopes a call needs, beside those of `auth`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_scopes: Vec<String>,
}

/// What somebody may do. Without any rule it covers everything within its side effects; with rules only what they name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// Name within the namespace.
    pub name: String,
    /// Namespace of the object; the server's when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Person it is for; anybody when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub human_id: String,
    /// Agent it is for; any when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_id: String,
    /// Team it is for; any when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team_id: String,
    /// Trust it gives; `low` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub max_trust: Option<Trust>,
    /// Side effects it allows; none when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_side_effects: Vec<SideEffect>,
    /// Label that decisions by this grant carry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_version: String,
    /// Whether it is out of force.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Rules about tools, by exact name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_rules: Vec<Rule>,
    /// Rules about prompts, by glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompt_rules: Vec<Rule>,
    /// Rules about resources, by glob over the URI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_rules: Vec<ResourceRule>,
    /// First moment it is in force, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub valid_from: String,
    /// First moment it is no longer in force, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub valid_until: String,
    /// Hours of the week in which it is in force; always when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Calls per time; no bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// What a grant says about one tool or about prompts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Name of the tool, or glob over names of prompts.
    pub name: String,
    /// `allow` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Trust a call needs when this rule allows it; binds whichever grant allows the call.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<Trust>,
    /// A CEL condition over `arguments`; the rule holds where it is true.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub when: String,
}

/// What a grant says about resources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceRule {
    /// Glob over URIs: `*` is any text without `/`, `**` any text.
    pub uri: String,
    /// `allow` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Trust reading needs when this rule allows it.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub required_trust: Option<Trust>,
}

/// Hours of the week.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Window {
    /// Days on which it opens: `mon` to `sun`; every day when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// When it opens, `HH:MM`; midnight when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// When it closes, `HH:MM`; the next midnight when empty. Before `from` it is a time of the next day.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Offset of these clock times from UTC, such as `+01:00`; `+00:00` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub utc_offset: String,
}

/// How many calls in how much time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Calls.
    pub calls: u32,
    /// Time, such as `1m`.
    pub per: String,
    /// Who shares the count; `caller` when absent.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub by: Option<RateScope>,
}

/// On whose behalf calls are made, and with how much consent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Name within the namespace.
    pub name: String,
    /// Namespace of the object; the server's when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub human_id: String,
    /// Agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_id: String,
    /// Team.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team_id: String,
    /// Trust the person consented to.
    #[serde(deserialize_with = "word", skip_serializing_if = "Option::is_none")]
    pub consented_trust: Option<Trust>,
    /// Whether it was ended by somebody.
    #[serde(skip_serializing_if = "is_false")]
    pub revoked: bool,
    /// When that was, RFC 3339; pruning counts from here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revoked_at: String,
    /// When it ends, RFC 3339; what cannot be read has ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expires_at: String,
    /// When it was made, RFC 3339; `max_lifetime` counts from here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issued_at: String,
    /// Label that refusals for this session carry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_version: String,
    /// `<secret>/<key>` of the upstream's credential.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream_token_ref: String,
    /// `sha256:` and hex over the credential that proves it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token_hash: String,
}

/// A word in any case, with blanks around it, as old writers wrote them; blank is absent.
fn word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = String>,
{
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    match text.trim() {
        "" => Ok(None),
        text => text
            .to_ascii_lowercase()
            .parse()
            .map(Some)
            .map_err(|expected| serde::de::Error::custom(format_args!("{expected}, got {text:?}"))),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's `skip_serializing_if` passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}
