//! Reading documents: what is wrong stays where it is.

use serde_json::{Value, json};

use super::super::{Call, Claims, Document, DocumentError, Policy, Presented, Reason, Target, Trust};
use crate::{Decision, Identity, Timestamp};

fn read(content: &Value) -> (Document, Vec<String>) {
    let mut document = json!({"schema_version": "v1", "server": {"name": "payments", "namespace": "acme"}});
    for (key, value) in content.as_object().unwrap() {
        document[key] = value.clone();
    }
    let (document, faults) = Document::parse(document.to_string().as_bytes()).unwrap();
    (document, faults.iter().map(ToString::to_string).collect())
}

fn refused(content: &Value) -> String {
    Document::parse(content.to_string().as_bytes()).unwrap_err().to_string()
}

fn alice_calls(document: &Document, tool: &str) -> (Decision, Reason) {
    let call = Call {
        claims: Claims {
            human: "alice",
            identity: Identity::Asserted,
            ..Claims::NOBODY
        },
        ..Call::of(Target::Tool(tool))
    };
    let verdict = Policy::compile(document).decide(&call, Timestamp::default());
    (verdict.decision, verdict.reason)
}

#[test]
fn a_document_that_cannot_be_trusted_as_a_whole_is_refused() {
    assert_eq!(Document::parse(b"").unwrap_err(), DocumentError::Empty);
    assert_eq!(Document::parse(b" \n").unwrap_err(), DocumentError::Empty);
    assert!(matches!(
        Document::parse(b"{\"schema_version\":"),
        Err(DocumentError::NotJson(_))
    ));
    assert!(matches!(Document::parse(b"[]"), Err(DocumentError::NotJson(_))));
    let server = json!({"name": "payments"});
    for (content, message) in [
        (
            json!({"schema_version": "v2", "server": server}),
            "the policy document has schema version \"v2\", expected \"v1\"",
        ),
        (
            json!({"server": server}),
            "the policy document has schema version \"\", expected \"v1\"",
        ),
        (
            json!({"schema_version": "v1"}),
            "reading the policy document: server.name is missing",
        ),
        (
            json!({"schema_version": "v1", "server": server, "auth": {"mode": "oauth"}}),
            "reading the policy document: auth.mode oauth needs auth.issuer_url",
        ),
        (
            json!({"schema_version": "v1", "server": server, "auth": {"mode": "mtls"}}),
            "reading the policy document: auth.mode mtls needs auth.trust_domain",
        ),
        (
            json!({"schema_version": "v1", "server": server, "session": {"max_lifetime": "a day"}}),
            "reading the policy document: session.max_lifetime: expected a length of time such as 24h or 1h30m, got \"a day\"",
        ),
        (
            json!({"schema_version": "v1", "server": server, "grants": {"a": 1}}),
            "reading the policy document: grants: expected a list",
        ),
    ] {
        assert_eq!(refused(&content), message);
    }
    // A setting we do not know may be a restriction we would ignore.
    assert!(refused(&json!({"schema_version": "v1", "server": server, "policy": {"quorum": 2}})).contains("quorum"));
    assert!(
        refused(&json!({"schema_version": "v1", "server": server, "policy": {"mode": "maybe"}}))
            .contains("allow-list, observe")
    );
}

#[test]
fn a_document_changed_after_it_was_stamped_is_refused() {
    let (mut document, _) = read(&json!({"tools": [{"name": "list", "side_effect": "read"}]}));
    document.stamp();
    let text = document.to_json();
    assert_eq!(Document::parse(text.as_bytes()).unwrap().0, document);
    let changed = text.replace("\"read\"", "\"write\"");
    assert!(matches!(
        Document::parse(changed.as_bytes()),
        Err(DocumentError::Revision { .. })
    ));
    // Neither order, nor time of rendering, nor what says nothing is content.
    let mut same: Value = serde_json::from_str(&text).unwrap();
    same["generated_at"] = json!("2026-11-22T12:00:00Z");
    same["grants"] = json!([]);
    same["tools"][0]["pin"] = json!("");
    assert_eq!(
        Document::parse(same.to_string().as_bytes()).unwrap().0.revision,
        document.revision
    );
}

#[test]
fn words_are_read_in_any_case() {
    let (document, faults) = read(&json!({
        "auth": {"mode": " OAuth ", "issuer_url": "https://issuer"},
        "policy": {"mode": "Observe", "default_decision": "ALLOW"},
        "grants": [{"name": "g", "human_id": "alice", "max_trust": "High", "tool_rules": [{"name": "x", "decision": "Deny"}]}],
    }));
    assert_eq!(faults, [""; 0]);
    assert_eq!(document.grants[0].max_trust, Some(Trust::High));
    assert_eq!(document.policy.unwrap().default_decision, Some(Decision::Allow));
}

#[test]
fn one_bad_entry_takes_nobody_down() {
    let (document, faults) = read(&json!({
        "tools": [{"name": "list", "side_effect": "read"}, {"name": "odd", "side_effect": "reads"}, {"name": " "}, 7],
        "grants": [
            {"name": "alice", "human_id": "alice", "allowed_side_effects": ["read"]},
            {"name": "new", "human_id": "bob", "quota": 5, "allowed_side_effects": ["read"], "tool_rules": [{"name": "list", "decision": "deny", "until": 1}]},
            {"human_id": "bob"},
            {"name": "when", "human_id": "bob", "tool_rules": [{"name": "list", "when": "amount < 5"}]},
            {"name": "time", "human_id": "bob", "windows": [{"days": ["someday"]}]},
            {"name": "rate", "human_id": "bob", "rate": {"calls": 5, "per": "often"}},
            {"name": "blank", "human_id": "bob", "tool_rules": [{"name": ""}]},
        ],
        "sessions": [
            {"name": "good", "human_id": "alice", "expires_at": "2027-01-01T00:00:00Z"},
            {"name": "nobody"},
            {"name": "hash", "human_id": "alice", "token_hash": "sha256:12"},
            {"name": "trust", "human_id": "alice", "consented_trust": "some"},
            {"name": "late", "human_id": "alice", "expires_at": "tomorrow"},
        ],
    }));
    insta::assert_snapshot!(faults.join("\n"));
    assert_eq!(alice_calls(&document, "list"), (Decision::Allow, Reason::Allowed));
    assert_eq!(alice_calls(&document, "odd").1, Reason::ToolSideEffectUnknown);
    let names: Vec<&str> = document.sessions.iter().map(|session| session.name.as_str()).collect();
    assert_eq!(names, ["good", "late"]);
}

#[test]
fn a_bad_grant_denies_what_it_denies_and_allows_nothing() {
    let (document, _) = read(&json!({
        "tools": [{"name": "list", "side_effect": "read"}, {"name": "drop", "side_effect": "destructive"}],
        "grants": [
            {"name": "all", "human_id": "alice", "allowed_side_effects": ["read", "destructive"]},
            {"name": "bad", "human_id": "alice", "max_trust": 7, "allowed_side_effects": ["read"],
             "tool_rules": [{"name": "drop", "decision": "deny", "when": "not a condition"}, {"name": "list"}]},
        ],
    }));
    assert_eq!(alice_calls(&document, "list"), (Decision::Allow, Reason::Allowed));
    assert_eq!(alice_calls(&document, "drop"), (Decision::Deny, Reason::ToolDenied));
}

#[test]
fn a_trust_nobody_knows_is_no_trust() {
    let (document, faults) = read(&json!({
        "tools": [{"name": "list", "side_effect": "read"}],
        "grants": [{"name": "g", "human_id": "alice", "max_trust": "extreme", "allowed_side_effects": ["read"]}],
    }));
    assert!(faults[0].contains("the grant gives no trust"), "{faults:?}");
    assert_eq!(alice_calls(&document, "list"), (Decision::Deny, Reason::GrantWithoutTrust));
}

#[test]
fn two_entries_of_one_name_cancel_out_in_either_order() {
    let tools = json!([{"name": "list", "side_effect": "read"}, {"name": "pay", "side_effect": "write"}]);
    let wide = json!({"name": "g", "human_id": "alice", "allowed_side_effects": ["read", "write"]});
    let narrow =
        json!({"name": "g", "namespace": "acme", "human_id": "alice", "tool_rules": [{"name": "pay", "decision": "deny"}]});
    let elsewhere = json!({"name": "g", "namespace": "other", "human_id": "alice", "allowed_side_effects": ["read"]});
    for grants in [json!([wide, narrow, elsewhere]), json!([elsewhere, narrow, wide])] {
        let (document, faults) = read(&json!({"tools": tools, "grants": grants}));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].contains("acme/g: another entry of grants has this name"),
            "{faults:?}"
        );
        assert_eq!(alice_calls(&document, "pay"), (Decision::Deny, Reason::ToolDenied));
        assert_eq!(alice_calls(&document, "list"), (Decision::Allow, Reason::Allowed));
    }
    let (document, faults) = read(
        &json!({"tools": [{"name": "list", "side_effect": "read"}, {"name": "list", "side_effect": "write"}],
        "grants": [{"name": "g", "human_id": "alice", "allowed_side_effects": ["read", "write"]}]}),
    );
    assert_eq!(
        (faults.len(), alice_calls(&document, "list").1),
        (1, Reason::ToolSideEffectUnknown)
    );
    // The same twice is once.
    let (_, faults) = read(&json!({"grants": [wide, wide]}));
    assert_eq!(faults, [""; 0]);
}

#[test]
fn a_session_listed_twice_is_dead() {
    let session = |human: &str| json!({"name": "s", "human_id": human, "token_hash": super::super::token_hash("secret")});
    let (document, faults) = read(&json!({"sessions": [session("alice"), session("bob")]}));
    assert_eq!(faults.len(), 1);
    let call = Call {
        presented: Presented::Header("secret"),
        ..Call::of(Target::Open)
    };
    let verdict = Policy::compile(&document).decide(&call, Timestamp::default());
    assert_eq!(verdict.reason, Reason::SessionRevoked);
}

#[test]
fn what_ended_long_ago_is_pruned() {
    let (mut document, _) = read(&json!({
        "grants": [{"name": "old", "valid_until": "2026-11-01T00:00:00Z"}, {"name": "new", "valid_until": "2026-11-22T00:00:00Z"}, {"name": "ever"}],
        "sessions": [
            {"name": "expired", "human_id": "a", "expires_at": "2026-11-01T00:00:00Z"},
            {"name": "just-expired", "human_id": "a", "expires_at": "2026-11-22T00:00:00Z"},
            {"name": "revoked", "human_id": "a", "revoked": true, "revoked_at": "2026-11-01T00:00:00Z"},
            {"name": "revoked-when", "human_id": "a", "revoked": true},
            {"name": "lives", "human_id": "a"},
        ],
    }));
    let now = Timestamp::parse("2026-11-22T12:00:00Z").unwrap();
    document.prune(now, std::time::Duration::from_hours(24));
    let grants: Vec<&str> = document.grants.iter().map(|grant| grant.name.as_str()).collect();
    let sessions: Vec<&str> = document.sessions.iter().map(|session| session.name.as_str()).collect();
    assert_eq!(grants, ["new", "ever"]);
    assert_eq!(sessions, ["just-expired", "revoked-when", "lives"]);
}

#[test]
fn the_predecessors_shape_is_read() {
    let (document, faults) = Document::parse(include_bytes!("../../../fixtures/policy-v1.json")).unwrap();
    assert_eq!(faults, []);
    let mut again = document.clone();
    again.stamp();
    assert_eq!(again.revision, document.revision);
    insta::assert_snapshot!(again.to_json());
}
