//! From a checked server to the objects it should have. Pure, and cannot fail.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::args::Settings;
use crate::object::Kind;
use crate::policy::Policy;
use crate::validate::{Checked, Route, Via};
use crate::{APP, DESIRED, MANAGED_BY, MANAGED_BY_US, POLICY_REVISION, POLICY_TIME, TRACK};

mod route;
mod workload;

pub(crate) use route::base_url;

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub kind: Kind,
    pub name: String,
    /// All of it, ready for server-side apply.
    pub body: Value,
}

/// Key, beside the policy, of the authorities by which gateways know an operator.
const AUTHORITIES_FILE: &str = "ca.crt";

/// Name of the `ConfigMap` with the policy of a server.
pub fn policy_name(server: &str) -> String {
    format!("{server}-gateway-policy")
}

/// Name of the canary's objects.
pub fn canary_name(server: &str) -> String {
    format!("{server}-canary")
}

/// Every object of a server, in the order in which they are written.
pub fn build(checked: &Checked, policy: Option<&Policy>, settings: &Settings) -> Vec<Desired> {
    let mut objects = Vec::new();
    if let Some(policy) = policy {
        objects.push(policy_map(checked, policy));
    }
    if let Some(gateway) = &checked.gateway {
        objects.push(workload::network_policy(checked, gateway.port));
    }
    objects.push(workload::deployment(
        checked,
        &checked.stable,
        workload::Pods::Stable,
        settings,
    ));
    if let Some(canary) = &checked.canary {
        objects.push(workload::deployment(checked, canary, workload::Pods::Canary, settings));
    }
    let split = split(checked);
    objects.extend(route::services(checked, split));
    if let Ok(route) = &checked.route {
        objects.extend(route::routes(checked, route, split, settings));
    }
    if checked.wanted.is_none_or(|wanted| wanted > 1) {
        objects.push(workload::disruption_budget(checked));
    }
    for object in &mut objects {
        stamp(object);
    }
    objects
}

/// How requests are shared between stable pods and canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// One Service in front of all pods: each pod gets its share.
    ByPods,
    /// A Service for each, and the route gives the canary this percentage.
    Weighted(u8),
}

/// Weights need a router that knows them; elsewhere the number of pods decides.
pub fn split(checked: &Checked) -> Split {
    let knows_weights = match checked.route.as_ref().map(|route: &Route| &route.via) {
        Ok(Via::Ingress { class, .. }) => class == "nginx",
        Ok(Via::HttpRoute { .. }) => true,
        Err(_) => false,
    };
    match (&checked.canary, checked.canary_weight) {
        (Some(_), Some(weight)) if knows_weights => Split::Weighted(weight),
        _ => Split::ByPods,
    }
}

fn policy_map(checked: &Checked, policy: &Policy) -> Desired {
    let mut object = object(checked, Kind::ConfigMap, policy_name(&checked.key.name), &[]);
    object.body["metadata"]["annotations"] = json!({ POLICY_REVISION: policy.revision, POLICY_TIME: policy.generated_at });
    object.body["data"] = json!({ domain::policy::document::FILE_NAME: policy.text });
    if let Some(authorities) = &policy.authorities {
        object.body["data"][AUTHORITIES_FILE] = json!(**authorities);
    }
    object
}

/// An empty object of a server: type, name, labels, owner.
fn object(checked: &Checked, kind: Kind, name: String, more_labels: &[(&str, &str)]) -> Desired {
    let mut labels = labels(checked);
    for (name, value) in more_labels {
        labels[*name] = json!(value);
    }
    let body = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.as_str(),
        "metadata": {
            "name": name,
            "namespace": checked.key.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": crds::API_VERSION,
                "kind": Kind::Server.as_str(),
                "name": checked.key.name,
                "uid": checked.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
    });
    Desired { kind, name, body }
}

fn labels(checked: &Checked) -> Value {
    json!({ APP: checked.key.name, MANAGED_BY: MANAGED_BY_US })
}

/// What selects the pods of a server, of one track or of both.
fn selector(checked: &Checked, track: Option<&str>) -> Value {
    let mut labels = labels(checked);
    if let Some(track) = track {
        labels[TRACK] = json!(track);
    }
    labels
}

/// Puts the digest of an object on it, so that a change of what is wanted shows without comparing every field, removed ones
/// included.
fn stamp(object: &mut Desired) {
    let digest = hex::encode(Sha256::digest(object.body.to_string()));
    let metadata = object.body["metadata"].as_object_mut();
    if let Some(metadata) = metadata {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[DESIRED] = json!(digest);
    }
}

#[cfg(test)]
mod tests;
