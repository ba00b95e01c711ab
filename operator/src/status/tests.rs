use serde_json::json;

use super::*;
use crate::build::build;
use crate::testing::{check, facts, grant, server, session, settings};
use crate::world::Change;

const NOW: &str = "2026-11-22T00:00:00Z";

/// The status of the guide's server, with everything built and these words of the cluster.
fn status(options: &[&str], more: &Value, deployment: &Value, pods: &[Value]) -> McpServerStatus {
    status_with(options, more, deployment, pods, |_| Acknowledgements::default())
}

/// The same, with what the gateways say about the revision that is published.
fn status_with(
    options: &[&str],
    more: &Value,
    deployment: &Value,
    pods: &[Value],
    said: impl FnOnce(&str) -> Acknowledgements,
) -> McpServerStatus {
    let settings = settings(options);
    let object = server(more);
    let checked = check(&settings, std::slice::from_ref(&object)).unwrap();
    let mut world = crate::testing::world(&settings, &[object]);
    let facts = world.fetch(&checked.key);
    let spec = facts.server.clone().unwrap();
    let policy = checked
        .gateway
        .as_ref()
        .map(|_| crate::policy::render(&facts, spec.server.as_ref().unwrap(), "local", crate::testing::now()));
    for mut built in build(&checked, policy.as_ref().and_then(|policy| policy.as_ref().ok()), &settings) {
        match built.kind {
            Kind::Service => built.body["spec"]["clusterIP"] = json!("10.0.0.1"),
            Kind::Ingress => built.body["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } }),
            Kind::Deployment => {
                built.body["metadata"]["generation"] = json!(2);
                built.body["status"] = deployment.clone();
            }
            _ => {}
        }
        world.observe(built.kind, Change::Set(built.body));
    }
    for pod in pods {
        world.observe(Kind::Pod, Change::Set(pod.clone()));
    }
    let revision = policy
        .as_ref()
        .map_or("", |policy| policy.as_ref().unwrap().revision.as_str());
    let outcome = Outcome::Applied {
        checked: &checked,
        policy: policy.as_ref(),
        said: &said(revision),
        failed: None,
    };
    of_server(&world.fetch(&checked.key), 3, &outcome, &settings, NOW)
}

/// A pod of the server that is ready.
fn ready_pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "mcp-servers", "labels": { "app": "payments", "mcpruntime.org/rollout-track": "stable" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

#[test]
fn gateways_that_run_an_older_policy_are_named_once_they_had_time() {
    use std::time::Duration;
    let said = |options: &[&str], said: &[(&str, &str)], seconds: u64| {
        let pods = ["a", "b"].map(ready_pod);
        status_with(options, &json!({}), &ready(), &pods, |newest| Acknowledgements {
            revisions: said
                .iter()
                .map(|(pod, revision)| {
                    (
                        (*pod).to_owned(),
                        if *revision == "newest" {
                            newest.into()
                        } else {
                            (*revision).into()
                        },
                    )
                })
                .collect(),
            age: Some(Duration::from_secs(seconds)),
        })
    };
    let told = |status: &McpServerStatus| {
        let condition = status
            .conditions
            .iter()
            .find(|condition| condition.kind == "PolicyAcknowledged");
        (
            condition
                .map(|condition| format!("{}: {}", condition.reason, condition.message))
                .unwrap_or_default(),
            status.policy.as_ref().unwrap().active_replicas,
        )
    };
    let all = said(&[], &[("a", "newest"), ("b", "newest")], 0);
    assert_eq!(
        told(&all),
        (
            "AllAcknowledged: every gateway of 2 runs the newest policy".to_owned(),
            Some(2)
        )
    );
    let soon = said(&[], &[("a", "newest"), ("b", "old")], 1);
    assert_eq!(
        told(&soon),
        (
            "Acknowledging: 1 of 2 gateways have yet to take in the newest policy".to_owned(),
            Some(1)
        )
    );
    let (late, active) = told(&said(&[], &[("a", "old")], 11));
    assert!(
        late.starts_with("GatewaysBehind: gateways without the newest policy: a runs an older one, b has not said"),
        "{late}"
    );
    assert_eq!(active, Some(0));
    let (silent, active) = told(&said(&["--policy-url", "none"], &[], 11));
    assert_eq!((silent.as_str(), active), ("", None), "nobody is asked");
    assert_eq!(
        soon.phase.as_deref(),
        Some("Ready"),
        "a policy on its way makes no server unready"
    );
}

fn ready() -> Value {
    json!({ "observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1 })
}

fn reasons(status: &McpServerStatus) -> Vec<String> {
    status
        .conditions
        .iter()
        .map(|condition| format!("{}={}", condition.kind, condition.reason))
        .collect()
}

#[test]
fn a_server_that_runs_is_ready_and_tells_its_url() {
    let status = status(
        &["--ingress-host", "mcp.example.com", "--ingress-tls"],
        &json!({}),
        &ready(),
        &[],
    );
    assert_eq!(status.phase.as_deref(), Some("Ready"));
    assert_eq!(status.url.as_deref(), Some("https://mcp.example.com/payments/mcp"));
    assert_eq!(status.observed_generation, Some(3));
    assert!(
        status.deployment_ready && status.service_ready && status.ingress_ready && status.gateway_ready && status.policy_ready
    );
    assert!(!status.canary_ready);
    insta::assert_snapshot!(reasons(&status).join("\n"));
}

#[test]
fn without_a_host_the_url_is_the_load_balancers() {
    let status = status(&[], &json!({}), &ready(), &[]);
    assert_eq!(status.url.as_deref(), Some("http://192.0.2.1/payments/mcp"));
}

#[test]
fn a_pod_in_trouble_speaks_for_its_deployment() {
    let pod = json!({
        "metadata": { "name": "payments-1", "namespace": "mcp-servers", "labels": { "app": "payments", "mcpruntime.org/rollout-track": "stable" } },
        "status": { "containerStatuses": [{ "name": "payments", "state": { "waiting": { "reason": "ErrImagePull", "message": "manifest unknown" } } }] },
    });
    let status = status(
        &[],
        &json!({}),
        &json!({ "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1 }),
        &[pod],
    );
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(
        status.message.as_deref(),
        Some("pod payments-1: container payments: ErrImagePull: manifest unknown")
    );
    assert_eq!(status.conditions[0].reason, "ImagePullFailed");
}

#[test]
fn an_unfinished_rollout_does_not_count_as_ready() {
    for unfinished in [
        json!({ "observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1 }),
        json!({ "observedGeneration": 2, "replicas": 2, "readyReplicas": 1, "updatedReplicas": 1 }),
        json!({ "observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 0 }),
    ] {
        assert!(!status(&[], &json!({}), &unfinished, &[]).deployment_ready, "{unfinished}");
    }
}

#[test]
fn a_refused_pod_tells_who_refused_it() {
    let refused = json!({ "observedGeneration": 2, "conditions": [{ "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods=10" }] });
    let status = status(&[], &json!({}), &refused, &[]);
    assert_eq!(
        (status.conditions[0].reason.as_str(), status.message.as_deref()),
        ("PodsRefused", Some("exceeded quota: pods=10"))
    );
}

#[test]
fn what_stays_the_same_keeps_its_time() {
    let settings = settings(&[]);
    let first = status(&[], &json!({}), &ready(), &[]);
    let mut object = server(&json!({}));
    object["status"] = serde_json::to_value(&first).unwrap();
    let facts = facts(&settings, &[object]);
    let fault = [Fault::invalid("something is wrong")];
    let second = of_server(&facts, 4, &Outcome::Invalid(&fault), &settings, "2026-11-23T00:00:00Z");
    let time = |status: &McpServerStatus, kind: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.kind == kind)
            .unwrap()
            .last_transition_time
            .clone()
    };
    assert_eq!(time(&second, "CanaryReady"), NOW, "it was false before");
    assert_eq!(time(&second, "DeploymentReady"), "2026-11-23T00:00:00Z");
    assert_eq!(
        (second.phase.as_deref(), second.url),
        (Some("Error"), first.url),
        "what was true stays told"
    );
}

#[test]
fn grants_and_sessions_learn_what_became_of_them() {
    let settings = settings(&[]);
    let now = crate::testing::now();
    let objects = [
        server(&json!({})),
        grant("active", "mcp-servers", &json!({})),
        grant("disabled", "mcp-servers", &json!({ "disabled": true })),
        grant(
            "foreign",
            "team-b",
            &json!({ "serverRef": { "name": "payments", "namespace": "mcp-servers" } }),
        ),
        grant("lost", "mcp-servers", &json!({ "serverRef": { "name": "nobody" } })),
        session("live", "mcp-servers", &json!({ "expiresAt": "2026-11-22T00:00:01Z" })),
        session("revoked", "mcp-servers", &json!({ "revoked": true })),
        session("expired", "mcp-servers", &json!({ "expiresAt": "2026-11-22T00:00:00Z" })),
        session("broken", "mcp-servers", &json!({ "expiresAt": "tomorrow" })),
    ];
    let world = crate::testing::world(&settings, &objects);
    let mut lines = Vec::new();
    for name in ["payments", "nobody"] {
        let facts = world.fetch(&crate::object::Key::new("mcp-servers", name));
        let grants = facts
            .grants
            .iter()
            .map(|grant| (grant.key.clone(), of_grant(&facts, grant, now)));
        let sessions = facts
            .sessions
            .iter()
            .map(|session| (session.key.clone(), of_session(&facts, session, now)));
        for (key, status) in grants.chain(sessions) {
            let condition = &status.conditions[0];
            lines.push(format!(
                "{key}: {} {}: {}",
                status.phase.unwrap_or_default(),
                condition.reason,
                condition.message
            ));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}
