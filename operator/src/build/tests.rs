use serde_json::json;

use super::*;
use crate::testing::{check, facts, grant, server, session, settings};

fn yaml(options: &[&str], more: &Value) -> String {
    let settings = settings(options);
    let objects = [
        server(more),
        grant("payments-cursor", "mcp-servers", &json!({})),
        session("cursor-session", "mcp-servers", &json!({})),
    ];
    let checked = check(&settings, &objects).unwrap();
    let facts = facts(&settings, &objects);
    let spec = facts.server.clone().unwrap();
    let policy = checked
        .gateway
        .as_ref()
        .map(|_| crate::policy::render(&facts, spec.server.as_ref().unwrap(), "local", crate::testing::now()).unwrap());
    let built = build(&checked, policy.as_ref(), &settings);
    crate::print::yaml(&built.into_iter().map(|object| object.body).collect::<Vec<_>>())
}

/// Digests tell nothing to people.
fn with_filters(test: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("[0-9a-f]{64}", "<digest>");
    settings.bind(test);
}

#[test]
fn the_guides_manifest_becomes_these_objects() {
    let options = [
        "--ingest-url",
        "http://mcp-sentinel-ingest.mcp-sentinel.svc.cluster.local:8081/events",
        "--ingress-host",
        "mcp.example.com",
    ];
    with_filters(|| insta::assert_snapshot!(yaml(&options, &json!({}))));
}

#[test]
fn an_ungoverned_server_has_no_sidecar_and_no_policy() {
    with_filters(|| insta::assert_snapshot!(yaml(&[], &json!({ "gateway": { "enabled": false } }))));
}

#[test]
fn a_server_with_everything_set_becomes_these_objects() {
    let more = json!({
        "teamID": "acme",
        "useProvisionedRegistry": true,
        "replicas": 4,
        "servicePort": 8080,
        "ingressClass": "nginx",
        "ingressHost": "payments.example.com",
        "ingressTLSSecret": "payments-tls",
        "ingressAnnotations": { "nginx.ingress.kubernetes.io/proxy-read-timeout": "600" },
        "command": ["/payments"],
        "args": ["--verbose"],
        "runAsUser": 1000,
        "nodeSelector": { "disk": "fast" },
        "envVars": [{ "name": "MCP_PATH", "value": "/payments/mcp" }],
        "secretEnvVars": [{ "name": "DB_PASSWORD", "secretKeyRef": { "name": "payments-db", "key": "password" } }],
        "resources": { "requests": { "cpu": "100m" }, "limits": { "memory": "1Gi" } },
        "auth": { "mode": "oauth", "issuerURL": "https://issuer.example.com", "audience": "payments" },
        "analytics": { "ingestURL": "http://ingest.acme/events", "apiKeySecretRef": { "name": "key", "key": "token" } },
        "gateway": { "port": 9000, "stripPrefix": "/payments" },
        "rollout": { "strategy": "Canary", "canaryReplicas": 1, "canaryImageTag": "v2.0.0", "canaryWeight": 5, "maxSurge": "1" },
    });
    let options = [
        "--registry",
        "registry.platform.example",
        "--otlp-endpoint",
        "http://otel:4317",
    ];
    with_filters(|| insta::assert_snapshot!(yaml(&options, &more)));
}

#[test]
fn an_http_route_carries_weights_too() {
    let more = json!({
        "httpRoute": {},
        "replicas": 2,
        "rollout": { "strategy": "Canary", "canaryReplicas": 1, "canaryImageTag": "v2", "canaryWeight": 20 },
    });
    let text = yaml(&["--gateway-api", "--default-gateway", "gateways/public"], &more);
    let route = text.split("---\n").find(|object| object.contains("kind: HTTPRoute")).unwrap();
    with_filters(|| insta::assert_snapshot!(route));
}

#[test]
fn a_policy_edit_changes_no_pod() {
    let pods = |more: &Value| {
        let text = yaml(&[], more);
        text.split("---\n")
            .find(|object| object.contains("kind: Deployment"))
            .unwrap()
            .to_owned()
    };
    let edited = json!({ "policy": { "mode": "observe" }, "session": { "required": true }, "tools": [{ "name": "t", "sideEffect": "read" }] });
    assert_eq!(pods(&json!({})), pods(&edited));
}

#[test]
fn equal_wishes_build_equal_objects() {
    let more = json!({ "replicas": 3 });
    assert_eq!(yaml(&[], &more), yaml(&[], &more));
}
