//! Makes what is there equal to what should be, and writes nothing where it already is.
//!
//! [`plan`] is pure: it compares desired objects with those known and says which calls are needed. An object is converged when it
//! carries the digest of what is wanted, and every field wanted has the wanted value; fields of others are theirs. Objects of the
//! server that nobody wants any more are deleted, and only those: they are named by uid.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, TypeMeta};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::build::Desired;
use crate::object::{Key, Kind, annotation, controller, text};
use crate::{DESIRED, FIELD_MANAGER, quantity};

/// One call that is needed.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing of ours has this name yet.
    Create(Desired),
    /// Ours differs from what is wanted.
    Patch { desired: Desired, uid: String },
    /// Ours is not wanted any more.
    Delete { kind: Kind, name: String, uid: String },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else's object has the name.
    #[error("{kind} {key} exists and is not this server's; rename one of them, or delete it")]
    NameTaken { kind: Kind, key: Key },
    /// The API server refuses what we ask for, and will again.
    #[error("the API server refused {kind} {key}")]
    Refused {
        kind: Kind,
        key: Key,
        #[source]
        source: Box<Error>,
    },
    /// The API server could not be asked.
    #[error("writing {kind} {key}")]
    Failed {
        kind: Kind,
        key: Key,
        #[source]
        source: Box<Error>,
    },
}

impl ApplyError {
    fn of(kind: Kind, key: &Key, source: Error) -> Self {
        let (key, refused) = (key.clone(), matches!(status_code(&source), Some(400 | 403 | 404 | 413 | 422)));
        let source = Box::new(source);
        if refused {
            Self::Refused { kind, key, source }
        } else {
            Self::Failed { kind, key, source }
        }
    }

    /// One word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NameTaken { .. } => "NameTaken",
            Self::Refused { .. } => "Refused",
            Self::Failed { .. } => "ApplyFailed",
        }
    }
}

/// The HTTP status of an answer that was an error.
pub fn status_code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The calls that are needed. `live` holds the objects known to be this server's, `uid` is the server's own.
pub fn plan(desired: Vec<Desired>, live: &BTreeMap<(Kind, String), Arc<Value>>, uid: &str) -> Vec<Step> {
    let ours = |object: &Value| controller(object).is_some_and(|(_, owner)| owner == uid);
    let stale: Vec<Step> = live
        .iter()
        .filter(|((kind, name), object)| {
            ours(object)
                && object.pointer("/metadata/deletionTimestamp").is_none()
                && !desired.iter().any(|desired| desired.kind == *kind && desired.name == *name)
        })
        .map(|((kind, name), object)| Step::Delete {
            kind: *kind,
            name: name.clone(),
            uid: text(object, "/metadata/uid").to_owned(),
        })
        .collect();
    let writes = desired.into_iter().filter_map(|desired| {
        let known = live.get(&(desired.kind, desired.name.clone())).filter(|object| ours(object));
        match known {
            None => Some(Step::Create(desired)),
            Some(known) if is_converged(known, &desired.body) => None,
            Some(known) => Some(Step::Patch {
                uid: text(known, "/metadata/uid").to_owned(),
                desired,
            }),
        }
    });
    writes.chain(stale).collect()
}

/// Whether an object is as wanted.
pub fn is_converged(live: &Value, desired: &Value) -> bool {
    annotation(live, DESIRED) == annotation(desired, DESIRED) && contains(live, desired)
}

/// Whether every wanted field has the wanted value. What the API server leaves out because it is empty counts as there.
fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(name, desired)| match live.get(name) {
            Some(live) => contains(live, desired),
            None => is_empty(desired),
        }),
        (Value::Array(live), Value::Array(desired)) => {
            let named = desired.iter().any(|item| item.get("name").is_some());
            if named {
                // Lists of named things are shared: others may have added theirs.
                desired.iter().all(|desired| live.iter().any(|live| contains(live, desired)))
            } else {
                live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| contains(live, desired))
            }
        }
        (Value::String(live), Value::String(desired)) if live != desired => {
            matches!((quantity::parse(live), quantity::parse(desired)), (Some(live), Some(desired)) if live == desired)
        }
        (live, desired) => live == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

/// Takes one step. Gives the object as it now is; `None` when it is gone.
///
/// `Ok` means the API server has stored it. Every step may be repeated.
pub async fn take(client: &Client, namespace: &str, step: Step) -> Result<Option<Value>, ApplyError> {
    match step {
        Step::Create(desired) => create(client, namespace, desired).await.map(Some),
        Step::Patch { mut desired, uid } => {
            // With the uid in it the call fails rather than take over what somebody else made in the meantime.
            desired.body["metadata"]["uid"] = json!(uid);
            patch(client, namespace, &desired).await.map(Some)
        }
        Step::Delete { kind, name, uid } => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid),
                    resource_version: None,
                }),
                ..DeleteParams::background()
            };
            match api(client, namespace, kind).delete(&name, &params).await {
                Ok(_) => Ok(None),
                // Gone already, or another object by now: either way ours is not there.
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(None),
                Err(error) => Err(ApplyError::of(kind, &Key::new(namespace, name), error)),
            }
        }
    }
}

async fn create(client: &Client, namespace: &str, mut desired: Desired) -> Result<Value, ApplyError> {
    let key = Key::new(namespace, &*desired.name);
    let found = api(client, namespace, desired.kind).get_opt(&desired.name).await;
    match found.map_err(|error| ApplyError::of(desired.kind, &key, error))? {
        None => {}
        Some(found) => {
            let found = serde_json::to_value(found).unwrap_or_default();
            let owner = controller(&desired.body).map(|(_, uid)| uid.to_owned());
            if controller(&found).map(|(_, uid)| uid.to_owned()) != owner {
                return Err(ApplyError::NameTaken { kind: desired.kind, key });
            }
            // Ours after all: somebody took our label off it.
            desired.body["metadata"]["uid"] = json!(text(&found, "/metadata/uid"));
        }
    }
    patch(client, namespace, &desired).await
}

async fn patch(client: &Client, namespace: &str, desired: &Desired) -> Result<Value, ApplyError> {
    let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    let patched = api(client, namespace, desired.kind)
        .patch(&desired.name, &params, &Patch::Apply(&desired.body))
        .await;
    let key = || Key::new(namespace, &*desired.name);
    let patched = patched.map_err(|error| ApplyError::of(desired.kind, &key(), error))?;
    Ok(trimmed(desired.kind, patched))
}

/// An object as the world keeps it: without the record of who owns which field, which is most of its size, and with its type, which
/// lists leave out.
pub fn trimmed(kind: Kind, mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    object.types = Some(TypeMeta {
        api_version: kind.api_version(),
        kind: kind.as_str().to_owned(),
    });
    serde_json::to_value(object).unwrap_or_default()
}

pub(crate) fn api(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind.resource())
}

#[cfg(test)]
mod tests;
