//! What became of a grant or a session.

use crds::grant::AccessStatus;
use crds::{McpAccessGrant, McpAgentSession, McpServer};
use domain::Timestamp;

use super::{Statement, dated};
use crate::policy::is_admitted;
use crate::world::{AccessObject, Facts};

/// The status of a grant.
pub fn of_grant(facts: &Facts, grant: &AccessObject<McpAccessGrant>, now: Timestamp) -> AccessStatus {
    let own = |grant: &McpAccessGrant| {
        if grant.spec.disabled {
            return Some(inactive("Disabled", "spec.disabled is set"));
        }
        if grant.spec.valid_until.is_some_and(|end| end <= now) {
            return Some(inactive("Expired", "spec.validUntil has passed"));
        }
        if grant.spec.valid_from.is_some_and(|start| start > now) {
            return Some(inactive("NotYetValid", "spec.validFrom has not come"));
        }
        None
    };
    of(facts, grant, own, now)
}

/// The status of a session.
pub fn of_session(facts: &Facts, session: &AccessObject<McpAgentSession>, now: Timestamp) -> AccessStatus {
    let own = |session: &McpAgentSession| {
        if session.spec.revoked {
            return Some(inactive("Revoked", "spec.revoked is set"));
        }
        if session.spec.expires_at.is_some_and(|end| end <= now) {
            return Some(inactive("Expired", "spec.expiresAt has passed"));
        }
        None
    };
    of(facts, session, own, now)
}

fn inactive(reason: &'static str, message: &str) -> Statement {
    Statement::no("Active", reason, message)
}

fn of<T>(facts: &Facts, object: &AccessObject<T>, own: impl Fn(&T) -> Option<Statement>, now: Timestamp) -> AccessStatus {
    let key = &facts.key;
    let server: Option<&McpServer> = facts.server.as_ref().and_then(|server| server.server.as_ref().ok());
    let (phase, statement) = match (&object.access, &facts.server, server) {
        (Err(error), ..) => (
            "Error",
            inactive(
                "Unreadable",
                &format!("the object cannot be read, and grants nothing: {error}"),
            ),
        ),
        (Ok(_), None, _) => (
            "Error",
            inactive(
                "ServerNotFound",
                &format!("there is no MCPServer {key}; check spec.serverRef"),
            ),
        ),
        (Ok(_), Some(_), None) => (
            "Error",
            inactive(
                "ServerInvalid",
                &format!("MCPServer {key} cannot be used; its own status says why"),
            ),
        ),
        (Ok(_), _, Some(server)) if !is_admitted(&object.key, server) => (
            "Error",
            inactive(
                "ForeignNamespace",
                &format!(
                    "MCPServer {key} does not admit namespace {}; add it to the server's spec.allowReferencesFrom, or make this object in {}",
                    object.key.namespace, key.namespace
                ),
            ),
        ),
        (Ok(_), _, Some(server)) if !server.spec.is_governed() => (
            "Inactive",
            inactive(
                "ServerNotGoverned",
                &format!("MCPServer {key} has no gateway, so nothing is judged; set its spec.gateway.enabled"),
            ),
        ),
        (Ok(access), ..) => match own(access) {
            Some(statement) => ("Inactive", statement),
            None => (
                "Active",
                Statement::yes("Active", "InPolicy", format!("part of the policy of MCPServer {key}")),
            ),
        },
    };
    AccessStatus {
        observed_generation: Some(object.generation),
        phase: Some(phase.to_owned()),
        message: Some(statement.message.clone()),
        conditions: dated(&[statement], &object.status.conditions, object.generation, &seconds(now)),
    }
}

/// RFC 3339 with whole seconds, as conditions have it.
pub(crate) fn seconds(now: Timestamp) -> String {
    let text = now.to_string();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}
