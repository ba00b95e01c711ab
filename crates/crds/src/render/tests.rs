use std::path::Path;
use std::time::Duration;

use domain::policy::words::{Assurance, AuthMode, KindRule, Lists, Mode, RateScope, Risk, SideEffect, Trust, Verification};
use domain::policy::{Call, Claims, Policy, Presented, Reason, Target, token_hash};
use domain::{Decision, Timestamp};

use super::*;
use crate::Manifests;
use crate::word as crd;

const SERVER: &str = r#"
apiVersion: mcpruntime.org/v1alpha1
kind: MCPServer
metadata: {name: payments, namespace: acme}
spec:
  teamID: red
  image: payments
  gateway: {enabled: true}
  auth: {requiredScopes: [mcp]}
  policy: {requireIdentity: verified, resources: identified, lists: whole}
  session: {required: true, idleTimeout: 30m}
  allowReferencesFrom: [friends]
  tools:
    - {name: pay, sideEffect: write, requiredTrust: medium, pin: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", requiredScopes: [pay]}
    - {name: list, description: Lists., sideEffect: read, labels: {area: billing}}
"#;

const GRANTS: &str = r#"
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: alice, namespace: acme}
spec:
  serverRef: {name: payments}
  subject: {humanID: alice}
  maxTrust: high
  allowedSideEffects: [write, read]
  policyVersion: g1
  toolRules:
    - {name: pay, decision: allow, requiredTrust: high, when: "arguments.amount <= 100"}
    - {name: list, decision: allow}
  promptRules: [{name: "greet*", decision: deny, when: 'arguments.tone == "rude"'}]
  resourceRules: [{uri: "file:///data/**", decision: allow, requiredTrust: medium}]
  validFrom: "2026-01-01T00:00:00Z"
  validUntil: "2027-01-01T00:00:00.5Z"
  windows: [{days: [mon, sun], from: "08:00", to: "18:00", utcOffset: "+01:00"}]
  rate: {calls: 60, per: 1m, by: grant}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: everybody, namespace: acme}
spec: {serverRef: {name: payments}, subject: {}, disabled: true}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: alice, namespace: friends}
spec: {serverRef: {name: payments, namespace: acme}, subject: {agentID: cursor}, allowedSideEffects: [read]}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: alice, namespace: strangers}
spec: {serverRef: {name: payments, namespace: acme}, subject: {humanID: mallory}, maxTrust: high, allowedSideEffects: [read, write]}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: other, namespace: acme}
spec: {serverRef: {name: ledger}, subject: {humanID: alice}}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: same-name, namespace: friends}
spec: {serverRef: {name: payments}, subject: {humanID: alice}}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: over, namespace: acme}
spec: {serverRef: {name: payments}, subject: {humanID: alice}, validUntil: "2026-11-01T00:00:00Z"}
"#;

fn sessions() -> String {
    format!(
        r#"
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAgentSession
metadata: {{name: s1, namespace: acme, creationTimestamp: "2026-11-22T10:00:00Z"}}
spec:
  serverRef: {{name: payments}}
  subject: {{humanID: alice, agentID: cursor, teamID: red}}
  consentedTrust: high
  expiresAt: "2026-12-01T00:00:00Z"
  tokenHash: "{}"
  policyVersion: s1
  upstreamTokenSecretRef: {{name: upstream, key: token}}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAgentSession
metadata: {{name: revoked, namespace: acme}}
spec: {{serverRef: {{name: payments}}, subject: {{humanID: alice}}, revoked: true, revokedAt: "2026-11-22T11:00:00Z"}}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAgentSession
metadata: {{name: long-gone, namespace: acme}}
spec: {{serverRef: {{name: payments}}, subject: {{humanID: alice}}, revoked: true, revokedAt: "2026-11-01T11:00:00Z"}}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAgentSession
metadata: {{name: smuggled, namespace: strangers}}
spec: {{serverRef: {{name: payments, namespace: acme}}, subject: {{humanID: alice}}, consentedTrust: high}}
"#,
        token_hash("secret")
    )
}

fn manifests() -> Manifests {
    let mut manifests = Manifests::default();
    for text in [SERVER, GRANTS, &sessions()] {
        manifests.take(Path::new("test.yaml"), text);
    }
    let faults: Vec<String> = manifests.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, [""; 0]);
    manifests
}

fn occasion() -> Occasion<'static> {
    Occasion {
        cluster: "local",
        now: Timestamp::parse("2026-11-22T12:00:00Z").unwrap(),
        grace: Duration::from_hours(24),
    }
}

fn rendered(manifests: &Manifests) -> Document {
    render(&manifests.servers[0], &manifests.grants, &manifests.sessions, &occasion())
}

#[test]
fn every_field_travels() {
    insta::assert_snapshot!(rendered(&manifests()).to_json());
}

#[test]
fn what_is_rendered_is_read_without_a_fault() {
    let document = rendered(&manifests());
    assert_eq!(Document::parse(document.to_json().as_bytes()).unwrap(), (document, vec![]));
}

#[test]
fn the_order_of_objects_does_not_show() {
    let mut turned = manifests();
    turned.grants.reverse();
    turned.sessions.reverse();
    turned.servers[0].spec.tools.reverse();
    for grant in &mut turned.grants {
        grant.spec.tool_rules.reverse();
        grant.spec.allowed_side_effects.reverse();
    }
    assert_eq!(rendered(&turned).to_json(), rendered(&manifests()).to_json());
}

#[test]
fn strangers_speak_neither_for_nor_about_a_server() {
    let manifests = manifests();
    let standing = |at: usize| {
        let grant = &manifests.grants[at];
        Reference::of(
            &grant.spec.server_ref,
            grant.metadata.namespace.as_str(),
            &manifests.servers[0],
        )
    };
    assert_eq!(standing(0), Reference::Admitted);
    assert_eq!(standing(2), Reference::Admitted, "named in allowReferencesFrom");
    assert_eq!(standing(3), Reference::Foreign);
    assert_eq!(standing(4), Reference::Other, "of another name");
    assert_eq!(standing(5), Reference::Other, "of another namespace");
    let mut closed = manifests.servers[0].clone();
    closed.spec.allow_references_from.clear();
    let document = render(&closed, &manifests.grants, &manifests.sessions, &occasion());
    assert!(document.grants.iter().all(|grant| grant.namespace == "acme"));
    assert!(document.sessions.iter().all(|session| session.namespace == "acme"));
}

#[test]
fn a_call_is_judged_as_the_objects_say() {
    let policy = Policy::compile(&rendered(&manifests()));
    let call = Call {
        presented: Presented::Header("secret"),
        arguments: domain::policy::Arguments::Json("{\"amount\": 7}"),
        claims: Claims::NOBODY,
        ..Call::of(Target::Tool("pay"))
    };
    let verdict = policy.decide(&call, occasion().now);
    assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Allowed));
    assert_eq!(verdict.matched_grant.unwrap().to_string(), "acme/alice");
    assert_eq!((verdict.charges.len(), verdict.effective_trust), (1, Some(Trust::High)));
    // The session was made at ten, and sessions live for a day at most, whatever they say.
    let late = policy.decide(&call, Timestamp::parse("2026-11-23T10:00:01Z").unwrap());
    assert_eq!(late.reason, Reason::SessionExpired);
}

#[test]
fn a_server_without_settings_has_the_usual_ones() {
    let mut server = manifests().servers.remove(0);
    (server.spec.auth, server.spec.policy, server.spec.session) = (None, None, None);
    let document = render(&server, [], [], &occasion());
    let settings = document.policy.unwrap();
    assert_eq!(
        (settings.mode, settings.default_decision),
        (Some(Mode::AllowList), Some(Decision::Deny))
    );
    let session = document.session.unwrap();
    assert_eq!((session.required, session.verification), (false, Some(Verification::Token)));
    assert_eq!((session.max_lifetime.as_str(), session.idle_timeout.as_str()), ("24h", "1h"));
    assert_eq!(document.auth.unwrap().session_id_header, "X-MCP-Agent-Session");
}

#[test]
fn both_sides_spell_their_words_alike() {
    fn same<T: FromStr>(words: impl IntoIterator<Item = &'static str>) {
        for text in words {
            assert!(word::<T>(text).is_some(), "{text} is no {}", std::any::type_name::<T>());
        }
    }
    same::<AuthMode>(crd::AuthMode::ALL.iter().map(|word| word.as_str()));
    same::<Mode>(crd::PolicyMode::ALL.iter().map(|word| word.as_str()));
    same::<Decision>(crd::PolicyDecision::ALL.iter().map(|word| word.as_str()));
    same::<Trust>(crd::TrustLevel::ALL.iter().map(|word| word.as_str()));
    same::<SideEffect>(crd::ToolSideEffect::ALL.iter().map(|word| word.as_str()));
    same::<Risk>(crd::ToolRiskLevel::ALL.iter().map(|word| word.as_str()));
    same::<Verification>(crd::SessionVerification::ALL.iter().map(|word| word.as_str()));
    same::<Assurance>(crd::IdentityAssurance::ALL.iter().map(|word| word.as_str()));
    same::<KindRule>(crd::KindRule::ALL.iter().map(|word| word.as_str()));
    same::<Lists>(crd::ListFilter::ALL.iter().map(|word| word.as_str()));
    same::<RateScope>(crd::RateScope::ALL.iter().map(|word| word.as_str()));
}
