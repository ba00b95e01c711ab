//! What runs: images, how many pods of each, how they are replaced, their environment and their share of a node.

use std::collections::BTreeMap;

use crds::McpServer;
use crds::server::Resources;
use crds::word::{CanaryAction, RolloutStrategy};

use super::{Amounts, Fault, Rolling, Track, Variable};
use crate::args::Settings;
use crate::{image, quantity};

pub(super) struct Tracks {
    pub(super) wanted: Option<u32>,
    pub(super) stable: Track,
    pub(super) canary: Option<Track>,
}

pub(super) fn tracks(server: &McpServer, settings: &Settings, faults: &mut Vec<Fault>) -> Option<Tracks> {
    let spec = &server.spec;
    let Some(own_image) = spec.image.as_deref().map(str::trim).filter(|image| !image.is_empty()) else {
        faults.push(Fault::invalid(
            "spec.image is missing; on a cluster every server runs from an image",
        ));
        return None;
    };
    let registry = if spec.use_provisioned_registry == Some(true) {
        Some(settings.registry.as_str())
    } else {
        spec.registry_override.as_deref()
    };
    let image = image::resolve(own_image, spec.image_tag.as_deref(), registry);
    let wanted = (spec.autoscaled != Some(true)).then(|| spec.replicas.unwrap_or(1));
    let rollout = spec.rollout.clone().unwrap_or_default();
    let plain = |image| Tracks {
        wanted,
        stable: Track { image, replicas: wanted },
        canary: None,
    };
    if rollout.strategy() != RolloutStrategy::Canary {
        return Some(plain(image));
    }
    let named = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let canary_image = image::resolve(
        named(&rollout.canary_image).as_deref().unwrap_or(own_image),
        named(&rollout.canary_image_tag).or(spec.image_tag.clone()).as_deref(),
        registry,
    );
    match (rollout.canary_action(), rollout.canary_replicas, wanted) {
        (CanaryAction::Rollback, ..) => Some(plain(image)),
        (CanaryAction::Promote, ..) => Some(plain(canary_image)),
        (CanaryAction::Hold, Some(canaries), Some(wanted)) if canaries > 0 && canaries < wanted => Some(Tracks {
            wanted: Some(wanted),
            stable: Track {
                image,
                replicas: Some(wanted - canaries),
            },
            canary: Some(Track {
                image: canary_image,
                replicas: Some(canaries),
            }),
        }),
        _ => {
            faults.push(Fault::invalid(
                "spec.rollout.strategy Canary needs spec.replicas, and a spec.rollout.canaryReplicas from 1 to below it",
            ));
            None
        }
    }
}

pub(super) fn amounts(field: &str, resources: Option<&Resources>, faults: &mut Vec<Fault>) -> Amounts {
    let (limits, requests) = resources.map_or((None, None), |resources| {
        (resources.limits.as_ref(), resources.requests.as_ref())
    });
    let mut amount = |place: &str, given: Option<&String>, default: &str| match given.map(|text| text.trim()) {
        None | Some("") => default.to_owned(),
        Some(text) => {
            if quantity::parse(text).is_none() {
                faults.push(Fault::invalid(format!(
                    "{field}.{place} {text:?} is no amount, such as 500m or 256Mi"
                )));
            }
            text.to_owned()
        }
    };
    let cpu_limit = amount("limits.cpu", limits.and_then(|limits| limits.cpu.as_ref()), "500m");
    let memory_limit = amount("limits.memory", limits.and_then(|limits| limits.memory.as_ref()), "256Mi");
    let cpu_request = amount("requests.cpu", requests.and_then(|requests| requests.cpu.as_ref()), "50m");
    let memory_request = amount(
        "requests.memory",
        requests.and_then(|requests| requests.memory.as_ref()),
        "64Mi",
    );
    for (name, request, limit) in [("cpu", &cpu_request, &cpu_limit), ("memory", &memory_request, &memory_limit)] {
        if let (Some(request_amount), Some(limit_amount)) = (quantity::parse(request), quantity::parse(limit))
            && request_amount > limit_amount
        {
            faults.push(Fault::invalid(format!(
                "{field}.requests.{name} {request} is more than its limit {limit}"
            )));
        }
    }
    Amounts {
        cpu_request,
        memory_request,
        cpu_limit,
        memory_limit,
    }
}

pub(super) fn rolling(server: &McpServer, faults: &mut Vec<Fault>) -> Option<Rolling> {
    let rollout = server.spec.rollout.clone().unwrap_or_default();
    if rollout.strategy() == RolloutStrategy::Recreate {
        return None;
    }
    let mut bound = |field: &str, text: Option<&str>| {
        let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("25%");
        match (text.parse::<u32>(), text.strip_suffix('%').map(str::parse::<u32>)) {
            (Ok(count), _) => serde_json::json!(count),
            (_, Some(Ok(percent))) if percent <= 100 => serde_json::json!(text),
            _ => {
                faults.push(Fault::invalid(format!(
                    "spec.rollout.{field} {text:?} is neither a number nor a percentage"
                )));
                serde_json::json!("25%")
            }
        }
    };
    let unavailable_max = bound("maxUnavailable", rollout.max_unavailable.as_deref());
    let surge_max = bound("maxSurge", rollout.max_surge.as_deref());
    let is_zero = |bound: &serde_json::Value| *bound == 0 || *bound == "0%";
    if is_zero(&unavailable_max) && is_zero(&surge_max) {
        faults.push(Fault::invalid(
            "spec.rollout.maxUnavailable and maxSurge cannot both be zero: no pod could be replaced",
        ));
    }
    Some(Rolling {
        unavailable_max,
        surge_max,
    })
}

pub(super) fn environment(server: &McpServer, faults: &mut Vec<Fault>) -> Vec<Variable> {
    let plain = server.spec.env_vars.iter().map(|variable| Variable::Plain {
        name: variable.name.clone(),
        value: variable.value.clone(),
    });
    let secret = server.spec.secret_env_vars.iter().map(|variable| Variable::Secret {
        name: variable.name.clone(),
        secret: variable.secret_key_ref.clone(),
    });
    let mut by_name = BTreeMap::new();
    for variable in plain.chain(secret) {
        let (Variable::Plain { name, .. } | Variable::Secret { name, .. }) = &variable;
        if name.is_empty() || name.contains(['=', '\0']) {
            faults.push(Fault::invalid(format!(
                "{name:?} is no name of a variable in spec.envVars or spec.secretEnvVars"
            )));
        } else if by_name.contains_key(name) {
            faults.push(Fault::invalid(format!(
                "variable {name} is there twice in spec.envVars and spec.secretEnvVars"
            )));
        } else {
            by_name.insert(name.clone(), variable);
        }
    }
    by_name.into_values().collect()
}
