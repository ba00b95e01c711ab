use super::*;
use crate::{Decision, Timestamp};

fn document(json: &serde_json::Value) -> Document {
    let (document, faults) = Document::parse(json.to_string().as_bytes()).unwrap();
    assert_eq!(faults, []);
    document
}

#[test]
fn a_granted_tool_passes_and_another_does_not() {
    let policy = Policy::compile(&document(&serde_json::json!({
        "schema_version": "v1",
        "server": {"name": "payments", "namespace": "acme"},
        "tools": [{"name": "list", "side_effect": "read"}, {"name": "drop", "side_effect": "destructive"}],
        "grants": [{"name": "g", "human_id": "alice", "max_trust": "high", "allowed_side_effects": ["read"]}],
    })));
    let call = |tool| Call {
        claims: Claims {
            human: "alice",
            identity: crate::Identity::Asserted,
            ..Claims::NOBODY
        },
        ..Call::of(Target::Tool(tool))
    };
    let verdict = policy.decide(&call("list"), Timestamp::default());
    assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Allowed));
    assert_eq!(verdict.matched_grant.unwrap().to_string(), "acme/g");
    assert_eq!(verdict.effective_trust, Some(Trust::High));
    let verdict = policy.decide(&call("drop"), Timestamp::default());
    assert_eq!(
        (verdict.decision, verdict.reason),
        (Decision::Deny, Reason::SideEffectNotAllowed)
    );
    let verdict = Policy::unavailable().decide(&call("list"), Timestamp::default());
    assert_eq!(
        (verdict.decision, verdict.reason),
        (Decision::Deny, Reason::PolicyUnavailable)
    );
}
