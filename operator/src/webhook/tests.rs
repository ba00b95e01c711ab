use super::review::review;
use super::*;
use crate::testing::{grant, merge, now, server, session, settings, world};

/// What is said about an object, in a world where the guide's server is.
fn said(object: &Value) -> (Vec<String>, Vec<String>) {
    let settings = settings(&["--ingress-host", "mcp.example.com"]);
    let world = world(&settings, &[server(&json!({}))]);
    let request = json!({ "kind": { "kind": object["kind"] }, "object": object });
    let review = review(&world, &settings, &request, now());
    (review.faults, review.warnings)
}

fn named(name: &str, more: &Value) -> Value {
    let mut object = server(more);
    merge(&mut object["metadata"], &json!({ "name": name, "uid": name }));
    object
}

#[test]
fn what_the_schema_cannot_see_is_refused_and_says_why() {
    let faults = |object: &Value| said(object).0.join("; ");
    assert_eq!(faults(&server(&json!({}))), "");
    assert!(faults(&named("rival", &json!({}))).contains("belongs to MCPServer mcp-servers/payments, which claimed it first"));
    assert_eq!(faults(&named("rival", &json!({ "publicPathPrefix": "rival" }))), "");
    // Somebody who moves to a route of another, too.
    assert!(faults(&named("a", &json!({ "ingressHost": "mcp.example.com" }))).contains("claimed it first"));
    assert!(faults(&server(&json!({ "resources": { "limits": { "cpu": "much" } } }))).contains("is no amount"));
    assert!(
        faults(&grant(
            "g",
            "intruder",
            &json!({ "serverRef": { "namespace": "mcp-servers" } })
        ))
        .contains("does not admit namespace intruder")
    );
    assert!(
        faults(&session(
            "s",
            "intruder",
            &json!({ "serverRef": { "namespace": "mcp-servers" } })
        ))
        .contains("does not admit namespace intruder")
    );
    let rule = |when: &str| json!({ "toolRules": [{ "name": "pay", "decision": "allow", "when": when }] });
    assert_eq!(faults(&grant("g", "mcp-servers", &rule("arguments.amount < 5"))), "");
    assert!(faults(&grant("g", "mcp-servers", &rule("arguments.amount <"))).contains("when of the rule for \"pay\""));
    let mut gone = named("rival", &json!({}));
    gone["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
    assert_eq!(faults(&gone), "", "a finalizer must be able to go");
}

#[test]
fn what_may_surprise_is_told() {
    let warnings = |object: &Value| said(object).1.join("; ");
    assert_eq!(warnings(&grant("g", "mcp-servers", &json!({}))), "");
    assert!(warnings(&grant("g", "mcp-servers", &json!({ "subject": { "agentID": "" } }))).contains("every identified caller"));
    assert!(warnings(&grant("g", "elsewhere", &json!({}))).contains("there is no MCPServer elsewhere/payments yet"));
    assert!(warnings(&server(&json!({ "gateway": { "enabled": false } }))).contains("neither judged nor recorded"));
}

#[test]
fn what_is_left_out_is_filled_in_and_what_is_said_stays() {
    let patch = |object: &Value| {
        let patch = defaults::patch(object, now());
        let lines = patch
            .iter()
            .map(|step| format!("{}={}", step["path"].as_str().unwrap(), step["value"]));
        lines.collect::<Vec<_>>().join(" ")
    };
    let mut bare = server(&json!({}));
    bare["spec"] = json!({ "image": "payments" });
    assert_eq!(
        patch(&bare),
        r#"/spec/port=8088 /spec/servicePort=80 /spec/publicPathPrefix="payments""#
    );
    assert_eq!(patch(&server(&json!({ "servicePort": 81 }))), "");
    assert_eq!(
        patch(&session("s", "mcp-servers", &json!({ "revoked": true }))),
        r#"/spec/revokedAt="2026-11-22T00:00:00.000000000Z""#
    );
    let old = json!({ "revoked": true, "revokedAt": "2026-01-01T00:00:00Z" });
    assert_eq!(patch(&session("s", "mcp-servers", &old)), "");
    assert_eq!(patch(&grant("g", "mcp-servers", &json!({}))), "");
    assert_eq!(
        patch(&json!({ "kind": "MCPServer", "spec": { "port": "x" } })),
        "",
        "left to the schema"
    );
}
