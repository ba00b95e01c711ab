//! Grants and sessions, indexed by the server they are about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crds::cluster::{McpAccessGrantResource, McpAgentSessionResource};
use crds::grant::AccessStatus;
use crds::{McpAccessGrant, McpAgentSession, ServerRef};
use serde_json::Value;

use super::{Change, decode};
use crate::object::{Key, number, text};

/// A kind of object that is about a server.
pub trait About: Sized {
    /// Decodes an object as the API server sends it.
    fn decode(object: &Value) -> Result<Self, String>;
    /// The server it names.
    fn server_ref(&self) -> &ServerRef;
}

impl About for McpAccessGrant {
    fn decode(object: &Value) -> Result<Self, String> {
        let resource: McpAccessGrantResource = decode(object)?;
        Self::try_from(&resource).map_err(|error| error.to_string())
    }

    fn server_ref(&self) -> &ServerRef {
        &self.spec.server_ref
    }
}

impl About for McpAgentSession {
    fn decode(object: &Value) -> Result<Self, String> {
        let resource: McpAgentSessionResource = decode(object)?;
        Self::try_from(&resource).map_err(|error| error.to_string())
    }

    fn server_ref(&self) -> &ServerRef {
        &self.spec.server_ref
    }
}

/// A grant or session object, decoded once.
#[derive(Debug)]
pub struct AccessObject<T> {
    pub key: Key,
    pub uid: String,
    pub generation: i64,
    /// Why it cannot be used, when it cannot.
    pub access: Result<T, String>,
    /// What was last said about it.
    pub status: AccessStatus,
    /// The server it names, found even where the rest cannot be decoded, so that somebody tells its author.
    target: Key,
}

/// All grants, or all sessions.
#[derive(Debug)]
pub struct Access<T> {
    objects: HashMap<Key, Arc<AccessObject<T>>>,
    of: HashMap<Key, BTreeMap<Key, Arc<AccessObject<T>>>>,
}

impl<T> Default for Access<T> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            of: HashMap::new(),
        }
    }
}

impl<T: About> Access<T> {
    pub(super) fn observe(&mut self, change: Change) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        let (key, object) = match change {
            Change::Gone(key) => (key, None),
            Change::Set(object) => (Key::of(&object), Some(read::<T>(&object))),
        };
        let known = self.objects.remove(&key);
        if let Some(known) = &known
            && let Some(of) = self.of.get_mut(&known.target)
        {
            of.remove(&key);
            if of.is_empty() {
                self.of.remove(&known.target);
            }
        }
        if let Some(object) = object {
            let object = Arc::new(object);
            let same = known.as_ref().is_some_and(|known| {
                known.uid == object.uid && known.generation == object.generation && known.status == object.status
            });
            if !same {
                touched.extend(known.map(|known| known.target.clone()));
                touched.insert(object.target.clone());
            }
            self.of
                .entry(object.target.clone())
                .or_default()
                .insert(key.clone(), Arc::clone(&object));
            self.objects.insert(key, object);
        } else {
            touched.extend(known.map(|known| known.target.clone()));
        }
        touched
    }

    pub(super) fn of(&self, server: &Key) -> Vec<Arc<AccessObject<T>>> {
        self.of.get(server).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Key> {
        self.of.keys()
    }

    pub(super) fn names(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }
}

fn read<T: About>(object: &Value) -> AccessObject<T> {
    let key = Key::of(object);
    let access = T::decode(object);
    let target = if let Ok(access) = &access {
        let server = access.server_ref();
        Key::new(server.namespace_from(&key.namespace), &*server.name)
    } else {
        let namespace = Some(text(object, "/spec/serverRef/namespace")).filter(|namespace| !namespace.is_empty());
        Key::new(namespace.unwrap_or(&key.namespace), text(object, "/spec/serverRef/name"))
    };
    AccessObject {
        uid: text(object, "/metadata/uid").to_owned(),
        generation: number(object, "/metadata/generation"),
        status: object
            .get("status")
            .and_then(|status| serde_json::from_value(status.clone()).ok())
            .unwrap_or_default(),
        key,
        access,
        target,
    }
}
