//! The policy document of a server, as its gateways read it.

use std::sync::Arc;
use std::time::Duration;

use crds::render::Occasion;
use crds::{McpAccessGrant, McpAgentSession, McpServer};
use domain::Timestamp;

use crate::build::policy_name;
use crate::object::{Key, Kind, annotation};
use crate::validate::{Fault, Reason};
use crate::world::{AccessObject, Facts};
use crate::{POLICY_REVISION, POLICY_TIME};

/// Largest document, in bytes. A `ConfigMap` holds a mebibyte, and has more to carry than this.
const BYTES_MAX: usize = 1_000_000;
/// How long what ended is still told, so that callers learn why they are refused.
pub const GRACE: Duration = Duration::from_hours(24);

/// A document as gateways read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub text: String,
    pub revision: String,
    /// When this revision was first rendered, RFC 3339. Grows from revision to revision, so that gateways never go back.
    pub generated_at: String,
    /// Authorities that gateways believe an operator by, as PEM.
    pub authorities: Option<Arc<str>>,
    pub grants: u32,
    pub sessions: u32,
}

/// Renders the document. Whoever may not speak about the server is left out; so is what cannot be read, which then grants nothing.
pub fn render(facts: &Facts, server: &McpServer, cluster: &str, now: Timestamp) -> Result<Policy, Fault> {
    let (grants, sessions): (Vec<&McpAccessGrant>, Vec<&McpAgentSession>) =
        (readable(&facts.grants), readable(&facts.sessions));
    let occasion = |grace| Occasion { cluster, now, grace };
    let render = |grace| crds::render(server, grants.iter().copied(), sessions.iter().copied(), &occasion(grace));
    let mut document = render(GRACE);
    if document.to_json().len() > BYTES_MAX {
        // A session that is not listed is refused like one that has ended, only with less of a reason.
        document = render(Duration::ZERO);
    }
    document.generated_at = generated_at(facts, &document.revision, now);
    let text = document.to_json();
    if text.len() > BYTES_MAX {
        return Err(Fault::new(
            Reason::PolicyTooLarge,
            format!(
                "the policy of {} grants and {} sessions has {} bytes, at most {BYTES_MAX} can be published; the last one stays in force. Delete what is not needed",
                document.grants.len(),
                document.sessions.len(),
                text.len()
            ),
        ));
    }
    let count = |list: usize| u32::try_from(list).unwrap_or(u32::MAX);
    Ok(Policy {
        text,
        generated_at: document.generated_at,
        authorities: None,
        grants: count(document.grants.len()),
        sessions: count(document.sessions.len()),
        revision: document.revision,
    })
}

/// That of the revision while it stays the same; then a later one, whatever the clock says.
fn generated_at(facts: &Facts, revision: &str, now: Timestamp) -> String {
    let live = facts.live.get(&(Kind::ConfigMap, policy_name(&facts.key.name)));
    let (known, since) = live.map_or(("", ""), |live| {
        (annotation(live, POLICY_REVISION), annotation(live, POLICY_TIME))
    });
    match Timestamp::parse(since) {
        Ok(_) if known == revision => since.to_owned(),
        Ok(since) => now.max(since.plus(Duration::from_millis(1))).to_string(),
        Err(_) => now.to_string(),
    }
}

/// Whether objects of a namespace may speak about a server of another.
pub fn is_admitted(object: &Key, server: &McpServer) -> bool {
    let (from, to) = (&object.namespace, server.metadata.namespace.as_str());
    from == to || server.spec.allow_references_from.iter().any(|allowed| allowed == from)
}

fn readable<T>(objects: &[Arc<AccessObject<T>>]) -> Vec<&T> {
    objects.iter().filter_map(|object| object.access.as_ref().ok()).collect()
}
