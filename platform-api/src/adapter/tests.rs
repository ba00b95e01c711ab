use crds::{McpAccessGrant, McpServer};
use serde_json::{Value, json};

use super::*;

fn server() -> McpServer {
    let manifest = json!({
        "apiVersion": crds::API_VERSION, "kind": "MCPServer", "metadata": {"name": "payments", "namespace": "mcp-team-acme"},
        "spec": {"image": "payments", "teamID": "acme"},
    });
    serde_json::from_value(manifest).unwrap()
}

fn grant(name: &str, created: i64, subject: &Value, trust: &str) -> McpAccessGrant {
    let manifest = json!({
        "apiVersion": crds::API_VERSION, "kind": "MCPAccessGrant",
        "metadata": {"name": name, "namespace": "mcp-team-acme", "creationTimestamp": Timestamp::from_seconds(created)},
        "spec": {"serverRef": {"name": "payments"}, "subject": subject, "maxTrust": trust, "allowedSideEffects": ["read"]},
    });
    serde_json::from_value(manifest).unwrap()
}

fn asker<'a>(teams: &[&'a str], is_inside: bool) -> Asker<'a> {
    Asker {
        human: "ada",
        agent: "cursor",
        teams: teams.to_vec(),
        admin: false,
        is_inside,
    }
}

fn chosen(grants: &[McpAccessGrant], asker: &Asker<'_>) -> Option<(String, Option<String>)> {
    footing(&server(), grants, asker, Timestamp::from_seconds(100)).map(|footing| (footing.grant, footing.team))
}

#[test]
fn most_trust_wins_and_then_age() {
    let any = json!({"agentID": "cursor"});
    let grants = [
        grant("low", 1, &any, "low"),
        grant("young", 9, &any, "high"),
        grant("old", 5, &any, "high"),
        grant("other-agent", 1, &json!({"agentID": "claude"}), "high"),
        grant("other-human", 1, &json!({"humanID": "eve"}), "high"),
    ];
    assert_eq!(
        chosen(&grants, &asker(&["acme"], true)),
        Some(("old".to_owned(), Some("acme".to_owned())))
    );
}

#[test]
fn a_grant_for_a_team_needs_membership() {
    let grants = [grant("team", 1, &json!({"agentID": "cursor", "teamID": "acme"}), "low")];
    assert_eq!(chosen(&grants, &asker(&["globex"], true)), None);
    assert!(chosen(&grants, &asker(&["globex", "acme"], false)).is_some());
    let admin = Asker {
        admin: true,
        ..asker(&[], true)
    };
    assert!(chosen(&grants, &admin).is_some());
}

#[test]
fn strangers_need_a_grant_that_names_them() {
    let any = [grant("any", 1, &json!({"agentID": "cursor"}), "low")];
    assert_eq!(chosen(&any, &asker(&["globex"], false)), None);
    let named = [grant("named", 1, &json!({"humanID": "ada"}), "low")];
    // Of several teams none is more theirs than another, and the server's is not.
    assert_eq!(
        chosen(&named, &asker(&["globex", "initech"], false)),
        Some(("named".to_owned(), None))
    );
    assert_eq!(
        chosen(&named, &asker(&["globex"], false)),
        Some(("named".to_owned(), Some("globex".to_owned())))
    );
}

#[test]
fn what_is_switched_off_or_over_gives_nothing() {
    let mut off = grant("off", 1, &json!({"humanID": "ada"}), "low");
    off.spec.disabled = true;
    let mut over = grant("over", 1, &json!({"humanID": "ada"}), "low");
    over.spec.valid_until = Some(Timestamp::from_seconds(100));
    assert_eq!(chosen(&[off, over], &asker(&["acme"], true)), None);
}

#[test]
fn a_life_ends_with_the_wish_the_bound_or_the_servers_longest() {
    let (issued, now) = (Timestamp::from_seconds(1_000), Timestamp::from_seconds(4_600));
    let mut server = server();
    let hours = Duration::from_hours;
    assert_eq!(ends(&server, issued, None, now), Timestamp::from_seconds(4_600 + 3_600));
    assert_eq!(
        ends(&server, issued, Some(hours(48)), now),
        Timestamp::from_seconds(1_000 + 86_400)
    );
    server.spec.session = serde_json::from_value(json!({"maxLifetime": "90m"})).unwrap();
    assert_eq!(ends(&server, issued, None, now), Timestamp::from_seconds(1_000 + 5_400));
}
