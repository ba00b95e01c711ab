//! What runs: Deployments, and what protects their pods.

use serde_json::{Value, json};

use super::{AUTHORITIES_FILE, Desired, canary_name, labels, object, policy_name, selector};
use crate::TRACK;
use crate::args::Settings;
use crate::object::Kind;
use crate::validate::{Amounts, Checked, Gateway, Track, Variable};
use crds::server::GATEWAY_ADMIN_PORT;

/// Which pods a Deployment makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pods {
    Stable,
    Canary,
}

impl Pods {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

/// User of the sidecar; the image is made for it.
const GATEWAY_USER: u32 = 65_532;
/// Time for open calls to end: the gateway's drain, its delay before that, and a little more.
const GRACE_SECONDS: u32 = 45;
const POLICY_FOLDER: &str = "/var/run/mcp-runtime/policy";
const INGEST_FOLDER: &str = "/var/run/mcp-runtime/ingest";
const TOKEN_FOLDER: &str = "/var/run/mcp-runtime/token";
const TOKEN_FILE: &str = "token";
/// Life of the token that gateways show to the operator; it is replaced well before.
const TOKEN_SECONDS: u32 = 3_600;

pub(super) fn deployment(checked: &Checked, track: &Track, pods: Pods, settings: &Settings) -> Desired {
    let name = match pods {
        Pods::Stable => checked.key.name.clone(),
        Pods::Canary => canary_name(&checked.key.name),
    };
    let mut deployment = object(checked, Kind::Deployment, name, &[(TRACK, pods.as_str())]);
    let strategy = match &checked.rolling {
        Some(rolling) => json!({
            "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": rolling.unavailable_max, "maxSurge": rolling.surge_max },
        }),
        None => json!({ "type": "Recreate" }),
    };
    let mut spec = json!({
        "selector": { "matchLabels": selector(checked, Some(pods.as_str())) },
        "strategy": strategy,
        "template": template(checked, track, pods, settings),
    });
    // Without this field whoever scales the Deployment keeps it.
    if let Some(replicas) = track.replicas {
        spec["replicas"] = json!(replicas);
    }
    deployment.body["spec"] = spec;
    deployment
}

fn template(checked: &Checked, track: &Track, pods: Pods, settings: &Settings) -> Value {
    let mut labels = labels(checked);
    labels[TRACK] = json!(pods.as_str());
    let mut containers = vec![server_container(checked, track)];
    let mut volumes = vec![json!({ "name": "tmp", "emptyDir": { "sizeLimit": "256Mi" } })];
    if let Some(gateway) = &checked.gateway {
        containers.push(gateway_container(checked, gateway, settings));
        volumes.push(json!({ "name": "gateway-policy", "configMap": { "name": policy_name(&checked.key.name) } }));
        if settings.policy_url.is_some() {
            // For the operator alone, and mounted by the sidecar alone.
            let token = json!({ "audience": crate::feed::AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE });
            volumes.push(json!({ "name": "policy-token", "projected": { "sources": [{ "serviceAccountToken": token }] } }));
        }
        if let Some(recording) = &gateway.recording {
            // Optional, so that a server whose namespace has no key yet runs and says so, rather than not at all.
            volumes.push(json!({ "name": "ingest-key", "secret": {
                "secretName": recording.key.name,
                "optional": true,
                "items": [{ "key": recording.key.key, "path": "api-key" }],
            } }));
        }
    }
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": checked.run_as_user,
            "fsGroup": GATEWAY_USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": containers,
        "volumes": volumes,
    });
    if !checked.pull_secrets.is_empty() {
        spec["imagePullSecrets"] = checked.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    }
    if !checked.node_selector.is_empty() {
        spec["nodeSelector"] = json!(checked.node_selector);
    }
    json!({ "metadata": { "labels": labels }, "spec": spec })
}

fn server_container(checked: &Checked, track: &Track) -> Value {
    let probe = |delay: u32, period: u32| json!({ "tcpSocket": { "port": "http" }, "initialDelaySeconds": delay, "periodSeconds": period });
    let env: Vec<Value> = checked
        .env
        .iter()
        .map(|variable| match variable {
            Variable::Plain { name, value } => json!({ "name": name, "value": value }),
            Variable::Secret { name, secret } => {
                json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret.name, "key": secret.key } } })
            }
        })
        .collect();
    let mut container = json!({
        "name": checked.key.name,
        "image": track.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{ "name": "http", "containerPort": checked.port, "protocol": "TCP" }],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "runAsNonRoot": true,
        },
        "livenessProbe": probe(5, 10),
        "readinessProbe": probe(3, 5),
        "resources": resources(&checked.resources),
        "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
    });
    for (field, list) in [
        ("command", json!(checked.command)),
        ("args", json!(checked.args)),
        ("env", json!(env)),
    ] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            container[field] = list;
        }
    }
    if let Some(folder) = &checked.working_dir {
        container["workingDir"] = json!(folder);
    }
    container
}

fn gateway_container(checked: &Checked, gateway: &Gateway, settings: &Settings) -> Value {
    let mut mounts = vec![json!({ "name": "gateway-policy", "mountPath": POLICY_FOLDER, "readOnly": true })];
    if settings.policy_url.is_some() {
        mounts.push(json!({ "name": "policy-token", "mountPath": TOKEN_FOLDER, "readOnly": true }));
    }
    if gateway.recording.is_some() {
        mounts.push(json!({ "name": "ingest-key", "mountPath": INGEST_FOLDER, "readOnly": true }));
    }
    json!({
        "name": "mcp-gateway",
        "image": settings.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            { "name": "gateway", "containerPort": gateway.port, "protocol": "TCP" },
            { "name": "metrics", "containerPort": GATEWAY_ADMIN_PORT, "protocol": "TCP" },
        ],
        "env": gateway_env(checked, gateway, settings),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": GATEWAY_USER,
        },
        "livenessProbe": { "httpGet": { "path": "/live", "port": "metrics" }, "initialDelaySeconds": 5, "periodSeconds": 10 },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": "metrics" }, "initialDelaySeconds": 1, "periodSeconds": 5 },
        "resources": resources(&gateway.resources),
        "volumeMounts": mounts,
    })
}

/// What the sidecar is told. The policy is not in here: it changes without a restart.
fn gateway_env(checked: &Checked, gateway: &Gateway, settings: &Settings) -> Vec<Value> {
    let mut env: Vec<(&str, String)> = vec![
        ("PORT", gateway.port.to_string()),
        ("METRICS_PORT", GATEWAY_ADMIN_PORT.to_string()),
        ("UPSTREAM_URL", gateway.upstream.clone()),
        (
            "POLICY_FILE",
            format!("{POLICY_FOLDER}/{}", domain::policy::document::FILE_NAME),
        ),
        ("MCP_SERVER_NAME", checked.key.name.clone()),
        ("MCP_SERVER_NAMESPACE", checked.key.namespace.clone()),
        ("MCP_CLUSTER_NAME", settings.cluster_name.clone()),
        ("MCP_LOG_FORMAT", "json".to_owned()),
        ("MCP_SHUTDOWN_DELAY", "5s".to_owned()),
    ];
    let optional = [
        ("MCP_TEAM_ID", checked.team.clone()),
        ("STRIP_PREFIX", gateway.strip_prefix.clone()),
        ("EXTERNAL_BASE_URL", super::route::base_url(checked, settings)),
    ];
    env.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    if let Some(url) = &settings.policy_url {
        env.extend([
            (
                "POLICY_URL",
                format!("{url}/policies/{}/{}", checked.key.namespace, checked.key.name),
            ),
            ("POLICY_TOKEN_FILE", format!("{TOKEN_FOLDER}/{TOKEN_FILE}")),
            ("POLICY_CA_FILE", format!("{POLICY_FOLDER}/{AUTHORITIES_FILE}")),
        ]);
    }
    if let Some(recording) = &gateway.recording {
        env.extend([
            ("ANALYTICS_INGEST_URL", recording.url.clone()),
            ("ANALYTICS_SOURCE", recording.source.clone()),
            ("ANALYTICS_EVENT_TYPE", recording.event_type.clone()),
            ("ANALYTICS_API_KEY_FILE", format!("{INGEST_FOLDER}/api-key")),
        ]);
    }
    if let Some(endpoint) = &settings.otlp_endpoint {
        env.extend([
            ("OTEL_SERVICE_NAME", format!("{}-gateway", checked.key.name)),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone()),
        ]);
    }
    env.into_iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

fn resources(amounts: &Amounts) -> Value {
    json!({
        "requests": { "cpu": amounts.cpu_request, "memory": amounts.memory_request },
        "limits": { "cpu": amounts.cpu_limit, "memory": amounts.memory_limit },
    })
}

/// Closes every way to a governed server's pods but the gateway's: its own port is reachable from within the pod alone.
pub(super) fn network_policy(checked: &Checked, gateway_port: u16) -> Desired {
    let mut policy = object(checked, Kind::NetworkPolicy, format!("{}-gateway", checked.key.name), &[]);
    policy.body["spec"] = json!({
        "podSelector": { "matchLabels": selector(checked, None) },
        "policyTypes": ["Ingress"],
        "ingress": [{ "ports": [
            { "protocol": "TCP", "port": gateway_port },
            { "protocol": "TCP", "port": GATEWAY_ADMIN_PORT },
        ] }],
    });
    policy
}

/// Lets nodes be emptied one pod at a time.
pub(super) fn disruption_budget(checked: &Checked) -> Desired {
    let mut budget = object(checked, Kind::PodDisruptionBudget, checked.key.name.clone(), &[]);
    budget.body["spec"] = json!({
        "maxUnavailable": 1,
        "selector": { "matchLabels": selector(checked, None) },
    });
    budget
}
