use domain::Timestamp;
use domain::policy::{Call, Document, Presented, Reason, Target, token_hash};
use serde_json::{Value, json};

use super::PolicyCell;

fn document(idle_timeout: &str, revoked: bool) -> Document {
    let document: Value = json!({
        "schema_version": "v1",
        "server": {"name": "payments", "namespace": "acme"},
        "session": {"idle_timeout": idle_timeout},
        "tools": [{"name": "list", "side_effect": "read"}],
        "grants": [{"name": "g", "human_id": "alice", "allowed_side_effects": ["read"]}],
        "sessions": [{"name": "s", "human_id": "alice", "token_hash": token_hash("secret"), "revoked": revoked}],
    });
    Document::parse(document.to_string().as_bytes()).unwrap().0
}

fn reason(policies: &PolicyCell, seconds: i64) -> Reason {
    let call = Call {
        presented: Presented::Header("secret"),
        ..Call::of(Target::Tool("list"))
    };
    let now = Timestamp::from_seconds(1_800_000_000 + seconds);
    policies.current().decide(call, now).unwrap().reason
}

#[test]
fn an_idle_session_ends_and_stays_so_also_when_another_policy_comes() {
    let cell = PolicyCell::default();
    cell.apply(document("10s", false));
    for seconds in [0, 9, 18] {
        assert_eq!(reason(&cell, seconds), Reason::Allowed, "in use after {seconds} s");
    }
    cell.apply(document("11s", false));
    for seconds in [30, 31, 32] {
        assert_eq!(reason(&cell, seconds), Reason::SessionIdle, "after {seconds} s");
    }
}

#[test]
fn a_revoked_session_does_not_come_back() {
    let cell = PolicyCell::default();
    cell.apply(document("", true));
    assert_eq!(reason(&cell, 0), Reason::SessionRevoked);
    cell.apply(document("", false));
    assert_eq!(reason(&cell, 0), Reason::SessionRevoked);
}

#[tokio::test]
async fn a_replacement_is_told_to_those_who_wait() {
    let cell = PolicyCell::default();
    let mut changes = cell.changes();
    cell.apply(document("", false));
    changes.changed().await.unwrap();
    assert_eq!(cell.mode(), "enforce");
}
