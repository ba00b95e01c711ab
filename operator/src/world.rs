//! What the API server holds, as far as it concerns us, indexed by server.
//!
//! One change costs a look at the objects of the servers it is about, never at all objects. The world is plain data: watches feed
//! it, workers ask it, and tests do both without a cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crds::server::McpServerStatus;
use crds::{McpAccessGrant, McpAgentSession, McpServer};
use serde_json::Value;

use crate::object::{Key, Kind, controller, label, number, text};
use crate::route::{Claim, Claims};
use crate::{APP, MANAGED_BY, MANAGED_BY_US};

mod access;
mod pod;

pub use access::{Access, AccessObject};
pub use pod::Pod;

/// What a watch says.
#[derive(Debug)]
pub enum Change {
    /// The object is there, like this.
    Set(Value),
    /// The object is gone.
    Gone(Key),
}

/// A server object, decoded once.
#[derive(Debug)]
pub struct ServerObject {
    pub uid: String,
    pub generation: i64,
    /// Why it cannot be used, when it cannot.
    pub server: Result<McpServer, String>,
    /// What was last said about it.
    pub status: McpServerStatus,
    /// Whether it is on its way out; its objects follow by themselves.
    pub is_deleted: bool,
    created: String,
    annotations: Option<Value>,
}

/// Everything known about one server.
#[derive(Debug, Clone)]
pub struct Facts {
    pub key: Key,
    /// `None`: there is no such server, though somebody refers to it.
    pub server: Option<Arc<ServerObject>>,
    pub grants: Vec<Arc<AccessObject<McpAccessGrant>>>,
    pub sessions: Vec<Arc<AccessObject<McpAgentSession>>>,
    /// Objects of ours, by kind and name.
    pub live: BTreeMap<(Kind, String), Arc<Value>>,
    pub pods: Vec<Arc<Pod>>,
    /// The server that claimed the route before this one.
    pub route_holder: Option<Key>,
}

/// What the API server holds.
#[derive(Debug, Default)]
pub struct World {
    servers: HashMap<Key, Arc<ServerObject>>,
    claims: Claims,
    grants: Access<McpAccessGrant>,
    sessions: Access<McpAgentSession>,
    live: HashMap<(Kind, Key), Arc<Value>>,
    live_of: HashMap<Key, BTreeSet<(Kind, String)>>,
    pods: HashMap<Key, Arc<Pod>>,
    pods_of: HashMap<Key, BTreeSet<Key>>,
    default_host: String,
}

impl World {
    /// An empty world. `default_host` is the host of servers that name none.
    pub fn new(default_host: &str) -> Self {
        Self {
            default_host: default_host.to_owned(),
            ..Self::default()
        }
    }

    /// Takes in a change, and gives the servers it is about.
    pub fn observe(&mut self, kind: Kind, change: Change) -> BTreeSet<Key> {
        match (kind, change) {
            (Kind::Server, Change::Set(object)) => self.set_server(&object),
            (Kind::Server, Change::Gone(key)) => self.drop_server(key),
            (Kind::Grant, change) => self.grants.observe(change),
            (Kind::Session, change) => self.sessions.observe(change),
            (Kind::Pod, Change::Set(object)) => self.set_pod(&object),
            (Kind::Pod, Change::Gone(key)) => self.drop_pod(&key).into_iter().collect(),
            (kind, Change::Set(object)) => self.set_live(kind, object),
            (kind, Change::Gone(key)) => self.drop_live(kind, &key).into_iter().collect(),
        }
    }

    /// The names known of a kind: what a fresh list does not name is gone.
    pub fn names(&self, kind: Kind) -> Vec<Key> {
        match kind {
            Kind::Server => self.servers.keys().cloned().collect(),
            Kind::Grant => self.grants.names(),
            Kind::Session => self.sessions.names(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            kind => {
                let of_kind = self.live.keys().filter(|(known, _)| *known == kind);
                of_kind.map(|(_, key)| key.clone()).collect()
            }
        }
    }

    /// Number of objects known of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Server => self.servers.len(),
            Kind::Grant => self.grants.len(),
            Kind::Session => self.sessions.len(),
            Kind::Pod => self.pods.len(),
            kind => self.names(kind).len(),
        }
    }

    /// A pod of some server.
    pub fn pod(&self, key: &Key) -> Option<&Pod> {
        self.pods.get(key).map(Arc::as_ref)
    }

    /// Every server, and every one that grants or sessions refer to.
    pub fn keys(&self) -> BTreeSet<Key> {
        let referred = self.grants.targets().chain(self.sessions.targets());
        self.servers.keys().chain(referred).cloned().collect()
    }

    /// What is known about one server.
    pub fn fetch(&self, key: &Key) -> Facts {
        let names = self.live_of.get(key).into_iter().flatten();
        let pods = self.pods_of.get(key).into_iter().flatten();
        Facts {
            key: key.clone(),
            server: self.servers.get(key).cloned(),
            grants: self.grants.of(key),
            sessions: self.sessions.of(key),
            live: names
                .filter_map(|(kind, name)| {
                    let object = self.live.get(&(*kind, Key::new(&*key.namespace, &**name)))?;
                    Some(((*kind, name.clone()), Arc::clone(object)))
                })
                .collect(),
            pods: pods.filter_map(|pod| self.pods.get(pod)).cloned().collect(),
            route_holder: self.claims.holder_before(key).cloned(),
        }
    }

    /// What would be known of a server if it were like this, as far as judging it takes.
    pub fn supposing(&self, key: &Key, server: &McpServer) -> Facts {
        Facts {
            key: key.clone(),
            server: None,
            grants: Vec::new(),
            sessions: Vec::new(),
            live: BTreeMap::new(),
            pods: Vec::new(),
            route_holder: self.claims.rival(key, &self.claim_of(server)).cloned(),
        }
    }

    fn set_server(&mut self, object: &Value) -> BTreeSet<Key> {
        let key = Key::of(object);
        let server = ServerObject {
            uid: text(object, "/metadata/uid").to_owned(),
            generation: number(object, "/metadata/generation"),
            server: decode_server(object),
            status: object
                .get("status")
                .and_then(|status| serde_json::from_value(status.clone()).ok())
                .unwrap_or_default(),
            is_deleted: object.pointer("/metadata/deletionTimestamp").is_some(),
            created: text(object, "/metadata/creationTimestamp").to_owned(),
            annotations: object.pointer("/metadata/annotations").cloned(),
        };
        let claim = server
            .server
            .as_ref()
            .ok()
            .filter(|_| !server.is_deleted)
            .map(|server| self.claim_of(server));
        let mut touched = self.claims.set(&key, &server.created, claim);
        let known = self.servers.insert(key.clone(), Arc::new(server));
        // A status that we wrote ourselves comes back as a change, and says nothing new.
        let server = &self.servers[&key];
        let is_news = known.is_none_or(|known| {
            known.uid != server.uid
                || known.generation != server.generation
                || known.is_deleted != server.is_deleted
                || known.annotations != server.annotations
                || known.status != server.status
        });
        if is_news {
            touched.insert(key);
        }
        touched
    }

    fn claim_of(&self, server: &McpServer) -> Claim {
        Claim {
            host: crate::validate::host(server, &self.default_host).to_owned(),
            path: crate::validate::path(server),
        }
    }

    fn drop_server(&mut self, key: Key) -> BTreeSet<Key> {
        self.servers.remove(&key);
        let mut touched = self.claims.set(&key, "", None);
        touched.insert(key);
        touched
    }

    fn set_live(&mut self, kind: Kind, object: Value) -> BTreeSet<Key> {
        let key = Key::of(&object);
        let owner = controller(&object)
            .filter(|_| label(&object, MANAGED_BY) == MANAGED_BY_US)
            .map(|(name, _)| Key::new(&*key.namespace, name));
        if let Some(known) = self.live.get(&(kind, key.clone()))
            && (is_older(&object, known) || **known == object)
        {
            return BTreeSet::new();
        }
        let mut touched: BTreeSet<Key> = self.drop_live(kind, &key).into_iter().collect();
        if let Some(owner) = owner {
            self.live.insert((kind, key.clone()), Arc::new(object));
            self.live_of.entry(owner.clone()).or_default().insert((kind, key.name));
            touched.insert(owner);
        }
        touched
    }

    fn drop_live(&mut self, kind: Kind, key: &Key) -> Option<Key> {
        let object = self.live.remove(&(kind, key.clone()))?;
        let (name, _) = controller(&object)?;
        let owner = Key::new(&*key.namespace, name);
        if let Some(names) = self.live_of.get_mut(&owner) {
            names.remove(&(kind, key.name.clone()));
            if names.is_empty() {
                self.live_of.remove(&owner);
            }
        }
        Some(owner)
    }

    fn set_pod(&mut self, object: &Value) -> BTreeSet<Key> {
        let key = Key::of(object);
        let pod = Pod::read(object);
        if self.pods.get(&key).is_some_and(|known| **known == pod) {
            return BTreeSet::new();
        }
        let mut touched: BTreeSet<Key> = self.drop_pod(&key).into_iter().collect();
        let server = label(object, APP);
        if !server.is_empty() {
            let server = Key::new(&*key.namespace, server);
            self.pods.insert(key.clone(), Arc::new(pod));
            self.pods_of.entry(server.clone()).or_default().insert(key);
            touched.insert(server);
        }
        touched
    }

    fn drop_pod(&mut self, key: &Key) -> Option<Key> {
        let pod = self.pods.remove(key)?;
        let server = Key::new(&*key.namespace, &*pod.server);
        if let Some(pods) = self.pods_of.get_mut(&server) {
            pods.remove(key);
            if pods.is_empty() {
                self.pods_of.remove(&server);
            }
        }
        Some(server)
    }
}

/// Whether an object is an older state of one already known: a watch lags behind what our own writes were answered with.
fn is_older(object: &Value, known: &Value) -> bool {
    let version = |object| text(object, "/metadata/resourceVersion").parse::<u64>().ok();
    text(object, "/metadata/uid") == text(known, "/metadata/uid")
        && matches!((version(object), version(known)), (Some(new), Some(old)) if new < old)
}

fn decode_server(object: &Value) -> Result<McpServer, String> {
    use crds::cluster::McpServerResource;
    let resource: McpServerResource = decode(object)?;
    McpServer::try_from(&resource).map_err(|error| error.to_string())
}

/// Decodes an object without its status: what somebody else wrote there must not keep us from reading what is wanted.
fn decode<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T, String> {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    serde_json::from_value(object).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
