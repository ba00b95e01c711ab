//! Servers, grants and sessions: the seam behind which they are kept. In standalone that is the embedded database; on a cluster it is the
//! API server of Kubernetes.

pub mod embedded;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod manifests;

use std::collections::BTreeMap;
use std::fmt::Debug;

use domain::Timestamp;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

use crate::audit::Fact;

/// What kind of object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    Server,
    Grant,
    Session,
}

impl ObjectKind {
    /// As manifests call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "MCPServer",
            Self::Grant => "MCPAccessGrant",
            Self::Session => "MCPAgentSession",
        }
    }

    /// As people call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Grant => "grant",
            Self::Session => "session",
        }
    }
}

/// One object as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub kind: ObjectKind,
    pub namespace: String,
    pub name: String,
    /// Another one after the object was removed and made again.
    pub uid: String,
    /// Grows with every write of any object.
    pub revision: i64,
    /// Grows with every change of the spec.
    pub generation: i64,
    /// Id of the account that made it, or the name of a program.
    pub owner: String,
    pub labels: BTreeMap<String, String>,
    /// As a manifest's `spec`.
    pub spec: Value,
    /// As a manifest's `status`: what is, as far as whoever runs it has told.
    pub status: Option<Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Object {
    /// Whether the object only makes sense with a server.
    pub(crate) fn depends_on(&self, server: &Self) -> bool {
        let text = |pointer| self.spec.pointer(pointer).and_then(Value::as_str);
        server.kind == ObjectKind::Server
            && self.kind != ObjectKind::Server
            && text("/serverRef/name") == Some(&server.name)
            && text("/serverRef/namespace").is_none_or(|namespace| namespace.is_empty() || namespace == server.namespace)
    }
}

/// What must be so for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No such object.
    Absent,
    /// Exactly this revision.
    Revision(i64),
    /// Whatever is there.
    Anything,
}

/// The most objects of one kind that somebody may own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub max: u32,
}

/// An object to be written.
#[derive(Clone, Debug)]
pub struct Write {
    pub kind: ObjectKind,
    pub namespace: String,
    pub name: String,
    /// Kept by an object that is there already.
    pub owner: String,
    pub labels: BTreeMap<String, String>,
    pub spec: Value,
    pub expected: Expected,
    /// Holds for objects that are not there yet.
    pub quota: Option<Quota>,
    pub now: Timestamp,
}

/// Which objects are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub kind: ObjectKind,
    /// Only in these; in any when absent.
    pub namespaces: Option<Vec<String>>,
    /// Only those after this namespace and name.
    pub after: Option<(String, String)>,
    pub limit: u32,
}

/// An object was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It is there already, or is not what the caller saw.
    #[error("the object was changed meanwhile")]
    Conflict {
        /// Its revision now; none when it is gone.
        revision: Option<i64>,
    },
    /// The owner has as many as they may.
    #[error("the owner has {count} objects of this kind, at most {max} are allowed")]
    Quota { count: u32, max: u32 },
    /// Whoever keeps objects does not take this one; the text says why.
    #[error("the object is refused: {0}")]
    Refused(String),
    #[error("keeping objects")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps objects.
pub trait Objects: Debug + Send + Sync + 'static {
    /// One object.
    fn find(&self, kind: ObjectKind, namespace: &str, name: &str) -> BoxFuture<'_, Result<Option<Object>, ObjectError>>;

    /// Objects in order of namespace and name.
    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<Object>, ObjectError>>;

    /// Makes or replaces an object, and records the fact with it. `Ok`: both survive this process.
    fn put(&self, write: Write, fact: AuditFact) -> BoxFuture<'_, Result<Object, ObjectError>>;

    /// Removes an object with the grants and sessions that only make sense with it, and records the fact; gives what was removed.
    fn remove(&self, object: &Object, fact: AuditFact, now: Timestamp) -> BoxFuture<'_, Result<Vec<Object>, ObjectError>>;

    /// The number of the last write; changes with every one.
    fn changes(&self) -> watch::Receiver<i64>;
}

/// A fact to be recorded with a write. Only this crate makes them.
#[derive(Clone, Debug)]
pub struct AuditFact(pub(crate) Fact);
