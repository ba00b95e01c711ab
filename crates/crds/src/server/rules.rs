//! Rules across fields that an API server checks before it takes a server in. The operator checks the same and more.

use serde_json::{Value, json};

/// The rules in CEL, as the schema carries them.
pub(super) fn of_server() -> Value {
    let governed = "has(self.gateway) && has(self.gateway.enabled) && self.gateway.enabled";
    let port = "(has(self.port) ? self.port : 8088)";
    let gateway_port = "(has(self.gateway.port) ? self.gateway.port : 8091)";
    let mode = |mode: &str| format!("has(self.auth) && has(self.auth.mode) && self.auth.mode == '{mode}'");
    let set = |field: &str| format!("(has({field}) && {field} != '')");
    let canary = "has(self.rollout) && has(self.rollout.strategy) && self.rollout.strategy == 'Canary'";
    json!([
        {
            "rule": format!("!({governed}) || ({port} != {gateway_port} && {port} != 9103 && {gateway_port} != 9103)"),
            "message": "spec.port, spec.gateway.port and 9103 (the gateway's own metrics port) must differ"
        },
        {
            "rule": format!("!has(self.gateway) || !has(self.gateway.upstreamURL) || self.gateway.upstreamURL == '' || self.gateway.upstreamURL.matches('{LOOPBACK}')"),
            "message": "spec.gateway.upstreamURL must point into the pod itself, such as http://127.0.0.1:8088"
        },
        {
            "rule": format!("!({}) || {}", mode("oauth"), set("self.auth.issuerURL")),
            "message": "spec.auth.mode oauth needs spec.auth.issuerURL"
        },
        {
            "rule": format!("!({}) || ({governed} && {})", mode("mtls"), set("self.auth.trustDomain")),
            "message": "spec.auth.mode mtls needs spec.gateway.enabled and spec.auth.trustDomain"
        },
        {
            "rule": format!("!({}) || !{} || self.ingressClass == 'traefik'", mode("mtls"), set("self.ingressClass")),
            "message": "spec.auth.mode mtls needs spec.ingressClass traefik"
        },
        {
            "rule": format!(
                "({governed}) || !has(self.analytics) || (has(self.analytics.disabled) && self.analytics.disabled) || !({} || {} || {} || has(self.analytics.apiKeySecretRef))",
                set("self.analytics.ingestURL"), set("self.analytics.source"), set("self.analytics.eventType")
            ),
            "message": "spec.analytics records calls that pass the gateway; set spec.gateway.enabled, or remove it"
        },
        {
            "rule": format!("!({canary}) || (has(self.replicas) && has(self.rollout.canaryReplicas) && self.rollout.canaryReplicas > 0 && self.rollout.canaryReplicas < self.replicas)"),
            "message": "spec.rollout.strategy Canary needs spec.replicas, and a spec.rollout.canaryReplicas from 1 to below it"
        },
        {
            "rule": format!("!({canary}) || !has(self.autoscaled) || !self.autoscaled"),
            "message": "spec.autoscaled and spec.rollout.strategy Canary cannot be used together"
        }
    ])
}

/// Addresses that stay within the pod.
pub(super) const LOOPBACK: &str = r"^https?://(127\\.0\\.0\\.1|localhost|\\[::1\\])(:[0-9]{1,5})?(/.*)?$";
