//! What all kinds share: metadata, references, subjects, conditions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use domain::{Namespace, ServerName, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The part of Kubernetes' object metadata that we read; the rest is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata<N = ServerName> {
    /// Name within the namespace.
    pub name: N,
    /// Namespace; `mcp-servers` when absent.
    #[serde(default = "default_namespace")]
    pub namespace: Namespace,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When the object was made; known on a cluster only.
    #[serde(default, rename = "creationTimestamp", skip_serializing)]
    pub created: Option<Timestamp>,
}

fn default_namespace() -> Namespace {
    // The literal is a label, as a test shows.
    Namespace::parse("mcp-servers").expect("a literal that is a DNS label")
}

/// The name of a grant or a session: a DNS subdomain of at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName(String);

/// The text is no name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a name: 1 to 253 lower-case letters, digits, inner hyphens and inner dots")]
pub struct NotAName;

impl ObjectName {
    /// Checks and keeps a name.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label =
            |label: &str| !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-');
        (text.len() <= 253 && text.split('.').all(label))
            .then(|| Self(text.to_owned()))
            .ok_or(NotAName)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ObjectName {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The server a grant or a session is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace; the object's own when absent. Another one counts only where the server's `allowReferencesFrom` names the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"))]
    pub namespace: Option<String>,
}

impl ServerRef {
    /// The namespace of the server, for an object in `own`.
    pub fn namespace_from<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().filter(|named| !named.is_empty()).unwrap_or(own)
    }
}

/// Whom a grant or a session is about. Every field given must match; case counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Subject {
    /// A person.
    #[serde(rename = "humanID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub human_id: Option<String>,
    /// An agent.
    #[serde(rename = "agentID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub agent_id: Option<String>,
    /// A team.
    #[serde(rename = "teamID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[^ \t\r\n]*$"))]
    pub team_id: Option<String>,
}

impl Subject {
    /// The person, when one is named.
    pub fn human(&self) -> Option<&str> {
        self.human_id.as_deref().filter(|id| !id.is_empty())
    }

    /// The agent, when one is named.
    pub fn agent(&self) -> Option<&str> {
        self.agent_id.as_deref().filter(|id| !id.is_empty())
    }

    /// The team, when one is named.
    pub fn team(&self) -> Option<&str> {
        self.team_id.as_deref().filter(|id| !id.is_empty())
    }

    /// Whether nobody in particular is named.
    pub fn is_empty(&self) -> bool {
        self.human().or(self.agent()).or(self.team()).is_none()
    }
}

/// One entry of a Secret in the object's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// One statement about an object, in the shape all Kubernetes tools know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the statement is about, such as `DeploymentReady`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// One word for programs.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// One sentence for people.
    #[schemars(length(max = 32_768))]
    pub message: String,
    /// When `status` last changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Generation of the object that the statement is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Whether a statement holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_subdomains() {
        for good in ["a", "a.b-c.9", &format!("{}.{}", "a".repeat(126), "b".repeat(126))] {
            assert!(ObjectName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a.-b", "A", "ä", &"a".repeat(254)] {
            assert!(ObjectName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_stays_at_home_unless_it_says_otherwise() {
        let mut server = ServerRef {
            name: "payments".to_owned(),
            namespace: None,
        };
        assert_eq!(server.namespace_from("acme"), "acme");
        server.namespace = Some(String::new());
        assert_eq!(server.namespace_from("acme"), "acme");
        server.namespace = Some("globex".to_owned());
        assert_eq!(server.namespace_from("acme"), "globex");
    }

    #[test]
    fn the_default_namespace_is_a_label() {
        assert_eq!(default_namespace().as_str(), "mcp-servers");
    }
}
