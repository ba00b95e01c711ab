use std::path::Path;

use super::*;
use crate::word::{ToolSideEffect, TrustLevel};

const SERVER: &str = "apiVersion: mcpruntime.org/v1alpha1
kind: MCPServer
metadata:
  name: payments
  namespace: acme
spec:
  port: 3001
  gateway:
    enabled: true
";

const GRANT: &str = "apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata:
  name: payments-cursor
  namespace: acme
spec:
  serverRef:
    name: payments
  subject:
    agentID: cursor
  maxTrust: high
  allowedSideEffects: [read, write]
  toolRules:
    - name: refund_invoice
      decision: allow
      requiredTrust: high
";

const SESSION: &str = "apiVersion: mcpruntime.org/v1alpha1
kind: MCPAgentSession
metadata:
  name: cursor-session
  namespace: acme
spec:
  serverRef:
    name: payments
  subject:
    humanID: ada
    agentID: cursor
  consentedTrust: medium
  expiresAt: 2030-01-01T00:00:00Z
";

fn take(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.take(Path::new("a.yaml"), text);
    manifests
}

fn messages(manifests: &Manifests) -> Vec<String> {
    manifests.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn all_three_kinds_are_read_and_others_passed_over() {
    let manifests = take(&format!(
        "# ours\n---\n{SERVER}---\nkind: ConfigMap\nmetadata: {{name: x}}\ndata:\n  text: |\n    a\n    ---\n    b\n--- # next\n{GRANT}---\n{SESSION}---\n"
    ));
    assert_eq!(messages(&manifests), [""; 0]);
    let server = &manifests.servers[0];
    assert_eq!(
        (server.prefix(), server.upstream().as_str()),
        ("payments", "http://127.0.0.1:3001/mcp")
    );
    let grant = &manifests.grants[0].spec;
    assert_eq!(grant.max_trust(), TrustLevel::High);
    assert_eq!(grant.allowed_side_effects, [ToolSideEffect::Read, ToolSideEffect::Write]);
    assert_eq!(grant.tool_rules[0].name, "refund_invoice");
    let session = &manifests.sessions[0].spec;
    assert_eq!(session.subject.human(), Some("ada"));
    assert_eq!(session.expires_at.unwrap().seconds(), 1_893_456_000);
}

#[test]
fn a_bad_document_names_its_line_and_takes_no_neighbour_down() {
    let manifests = take(&format!(
        "{SERVER}---\n{}---\n{}---\n{}---\na: [\n---\n{SESSION}",
        SERVER.replace("port:", "prot:"),
        GRANT.replace("maxTrust: high", "maxTrust: total"),
        SESSION.replace("v1alpha1", "v1"),
    ));
    assert_eq!(
        (manifests.servers.len(), manifests.grants.len(), manifests.sessions.len()),
        (1, 0, 1)
    );
    insta::assert_snapshot!(messages(&manifests).join("\n"));
}

#[test]
fn the_second_object_of_a_name_is_a_fault_that_names_the_first() {
    let manifests = take(&format!("{SERVER}---\n{GRANT}---\n{SERVER}"));
    assert_eq!(manifests.servers.len(), 1);
    assert_eq!(
        messages(&manifests),
        ["a.yaml:28: MCPServer acme/payments is already in a.yaml:1; remove one of them"]
    );
}

#[test]
fn the_namespace_has_a_default() {
    let manifests = take(&SERVER.replace("  namespace: acme\n", ""));
    assert_eq!(manifests.servers[0].metadata.namespace.as_str(), "mcp-servers");
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let spec = &take(SERVER).servers[0].spec;
    let (auth, policy) = (spec.auth.clone().unwrap_or_default(), spec.policy.clone().unwrap_or_default());
    let session = spec.session.clone().unwrap_or_default();
    assert_eq!((spec.service_port(), spec.ingress_class()), (80, "traefik"));
    assert_eq!(
        (auth.mode().as_str(), auth.session_id_header()),
        ("header", "X-MCP-Agent-Session")
    );
    assert_eq!(
        (policy.mode().as_str(), policy.default_decision().as_str()),
        ("allow-list", "deny")
    );
    assert_eq!(
        (session.max_lifetime(), session.idle_timeout(), session.required),
        ("24h", "1h", false)
    );
    assert_eq!(spec.gateway.as_ref().map(crate::server::GatewaySpec::port), Some(8091));
}

#[test]
fn hostile_documents_are_faults() {
    for bad in [
        SERVER.replace("name: payments", &format!("name: {}", "a".repeat(253))),
        SERVER.replace("port: 3001", "port: 70000"),
        SERVER.replace("port: 3001", "session: {maxLifetime: forever}"),
        GRANT.replace("payments-cursor", "Ünïcode"),
        SESSION.replace("2030-01-01T00:00:00Z", "tomorrow"),
        SESSION.replace("agentID", "agentId"),
        "kind: MCPServer\nspec: &a [*a]\n".to_owned(),
        "\u{0}".to_owned(),
    ] {
        let manifests = take(&bad);
        assert_eq!(manifests.faults.len(), 1, "{bad}");
        assert!(manifests.servers.is_empty() && manifests.grants.is_empty() && manifests.sessions.is_empty());
    }
}
