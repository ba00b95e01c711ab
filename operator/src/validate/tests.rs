use serde_json::{Value, json};

use super::*;
use crate::testing::{check, server, settings};

fn faults(more: &Value) -> Vec<String> {
    let checked = check(&settings(&[]), &[server(more)]);
    checked.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_guides_manifest_is_fine() {
    let checked = check(&settings(&["--ingest-url", "http://ingest/events"]), &[server(&json!({}))]).unwrap();
    assert_eq!(checked.stable.image, "registry.example.com/payments:v1.0.0");
    let gateway = checked.gateway.unwrap();
    assert_eq!((gateway.port, gateway.upstream.as_str()), (8091, "http://127.0.0.1:8088"));
    assert_eq!(gateway.recording.unwrap().source, "payments-gateway");
    assert_eq!(checked.route.unwrap().path, "/payments/mcp");
}

#[test]
fn every_fault_says_what_and_where() {
    let cases = [
        json!({ "image": " " }),
        json!({ "port": 8091 }),
        json!({ "gateway": { "port": 9103 } }),
        json!({ "gateway": { "upstreamURL": "http://elsewhere:80" } }),
        json!({ "gateway": { "upstreamURL": "http://127.0.0.1:80@elsewhere" } }),
        json!({ "gateway": { "upstreamURL": "http://127.0.0.1.elsewhere:80" } }),
        json!({ "auth": { "mode": "oauth" } }),
        json!({ "auth": { "mode": "mtls", "trustDomain": "example.org" } }),
        json!({ "gateway": { "enabled": false }, "analytics": { "source": "x" } }),
        json!({ "analytics": { "ingestURL": "ingest" } }),
        json!({ "resources": { "requests": { "cpu": "2" }, "limits": { "memory": "much" } } }),
        json!({ "rollout": { "maxUnavailable": "0", "maxSurge": "0%" } }),
        json!({ "rollout": { "maxUnavailable": "half" } }),
        json!({ "replicas": 3, "rollout": { "strategy": "Canary", "canaryReplicas": 3 } }),
        json!({ "envVars": [{ "name": "A", "value": "1" }], "secretEnvVars": [{ "name": "A", "secretKeyRef": { "name": "s", "key": "k" } }] }),
        json!({ "unknownField": 1 }),
    ];
    let lines: Vec<String> = cases
        .iter()
        .map(|case| format!("{case}\n  {}", faults(case).join("\n  ")))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn names_that_no_service_can_have_are_refused() {
    for name in ["a".repeat(253), "9lives".to_owned(), "a.b".to_owned(), "b".repeat(53)] {
        let mut object = server(&json!({}));
        object["metadata"]["name"] = json!(name);
        assert!(check(&settings(&[]), &[object]).is_err(), "{name}");
    }
}

#[test]
fn a_route_belongs_to_whom_claimed_it_first() {
    let mut rival = server(&json!({}));
    rival["metadata"] =
        json!({ "name": "rival", "namespace": "team-b", "uid": "u", "creationTimestamp": "2026-11-02T00:00:00Z" });
    let checked = check(&settings(&[]), &[rival.clone(), server(&json!({}))]).unwrap();
    let fault = checked.route.unwrap_err();
    assert_eq!(fault.reason, Reason::RouteTaken);
    assert!(fault.message.contains("MCPServer mcp-servers/payments"), "{fault}");
    rival["spec"]["ingressHost"] = json!("rival.example.com");
    let with_host = settings(&["--ingress-host", "mcp.example.com"]);
    assert!(check(&with_host, &[rival, server(&json!({}))]).unwrap().route.is_ok());
}

#[test]
fn a_route_below_anothers_is_refused() {
    for (prefix, is_fine) in [("payments/mcp/admin", false), ("mcp", true), ("team/payments", true)] {
        let checked = check(&settings(&[]), &[server(&json!({ "publicPathPrefix": prefix }))]).unwrap();
        assert_eq!(checked.route.is_ok(), is_fine, "{prefix}");
    }
}

#[test]
fn a_canary_holds_is_promoted_or_rolled_back() {
    let canary = |action: &str| {
        let rollout = json!({ "strategy": "Canary", "canaryReplicas": 1, "canaryImageTag": "v2.0.0", "canaryAction": action });
        check(&settings(&[]), &[server(&json!({ "replicas": 3, "rollout": rollout }))]).unwrap()
    };
    let held = canary("hold");
    assert_eq!(
        (held.stable.replicas, held.canary.unwrap().image.as_str()),
        (Some(2), "registry.example.com/payments:v2.0.0")
    );
    let promoted = canary("promote");
    assert_eq!(
        (promoted.stable.image.as_str(), promoted.canary),
        ("registry.example.com/payments:v2.0.0", None)
    );
    let rolled_back = canary("rollback");
    assert_eq!(
        (rolled_back.stable.image.as_str(), rolled_back.stable.replicas),
        ("registry.example.com/payments:v1.0.0", Some(3))
    );
}
