//! Objects as the manifests they were made from, and the policy that follows from them.

use crds::render::{Occasion, Reference};
use crds::{McpAccessGrant, McpAgentSession, McpServer};
use domain::Timestamp;
use domain::policy::Document;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Object, ObjectError, ObjectKind, Objects, Query};

/// Objects read at once.
const READ_MAX: u32 = 500;
/// How long what ended is still told, so that callers learn why they are refused.
const GRACE: std::time::Duration = std::time::Duration::from_hours(24);

/// The manifest of an object. Fails for one that another version wrote and this one cannot read.
pub fn manifest<T: DeserializeOwned>(object: &Object) -> Result<T, serde_json::Error> {
    serde_json::from_value(json!({
        "apiVersion": crds::API_VERSION,
        "kind": object.kind.as_str(),
        "metadata": {
            "name": object.name,
            "namespace": object.namespace,
            "labels": object.labels,
            "creationTimestamp": object.created_at,
        },
        "spec": object.spec,
    }))
}

/// Every object of a kind in some namespaces, or in all.
pub async fn every(
    objects: &dyn Objects,
    kind: ObjectKind,
    namespaces: Option<Vec<String>>,
) -> Result<Vec<Object>, ObjectError> {
    let mut found: Vec<Object> = Vec::new();
    loop {
        let after = found.last().map(|last| (last.namespace.clone(), last.name.clone()));
        let query = Query {
            kind,
            namespaces: namespaces.clone(),
            after,
            limit: READ_MAX,
        };
        let read = objects.list(query).await?;
        let is_whole = read.len() < READ_MAX as usize;
        found.extend(read);
        if is_whole {
            return Ok(found);
        }
    }
}

/// A server with everything that speaks about it.
#[derive(Clone, Debug)]
pub struct Governed {
    pub server: McpServer,
    pub grants: Vec<McpAccessGrant>,
    pub sessions: Vec<McpAgentSession>,
    /// Objects that could not be read, as `grant/cursor`: they give nobody anything.
    pub unread: Vec<String>,
}

impl Governed {
    /// The server's manifest and those of the grants and sessions that may speak about it.
    pub async fn read(objects: &dyn Objects, server: &Object) -> Result<Self, ObjectError> {
        let server: McpServer = manifest(server).map_err(|error| ObjectError::Failed(Box::new(error)))?;
        let mut namespaces = vec![server.metadata.namespace.to_string()];
        namespaces.extend(server.spec.allow_references_from.iter().cloned());
        let mut read = Self {
            server,
            grants: Vec::new(),
            sessions: Vec::new(),
            unread: Vec::new(),
        };
        for grant in every(objects, ObjectKind::Grant, Some(namespaces.clone())).await? {
            match manifest::<McpAccessGrant>(&grant) {
                Ok(grant) => read.grants.extend(
                    read.admits(&grant.spec.server_ref, &grant.metadata.namespace)
                        .then_some(grant),
                ),
                Err(_) => read.unread.push(format!("grant/{}", grant.name)),
            }
        }
        for session in every(objects, ObjectKind::Session, Some(namespaces)).await? {
            match manifest::<McpAgentSession>(&session) {
                Ok(session) => {
                    let admits = read.admits(&session.spec.server_ref, &session.metadata.namespace);
                    read.sessions.extend(admits.then_some(session));
                }
                Err(_) => read.unread.push(format!("session/{}", session.name)),
            }
        }
        Ok(read)
    }

    fn admits(&self, server_ref: &crds::ServerRef, own: &domain::Namespace) -> bool {
        Reference::of(server_ref, own.as_str(), &self.server) == Reference::Admitted
    }

    /// The policy document, as the server's gateway gets it.
    pub fn document(&self, cluster: &str, now: Timestamp) -> Document {
        let occasion = Occasion {
            cluster,
            now,
            grace: GRACE,
        };
        crds::render(&self.server, &self.grants, &self.sessions, &occasion)
    }
}
