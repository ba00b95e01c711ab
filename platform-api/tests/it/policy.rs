//! What a policy says, why, and what a change of it would mean.

use serde_json::{Value, json};

use crate::control::{Platform, server};

const NONE: Value = Value::Null;
const EXPLAIN: &str = "/api/v1/runtime/policy/explain";

fn grant(name: &str, subject: &Value) -> Value {
    json!({
        "name": name, "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": subject, "maxTrust": "low",
        "allowedSideEffects": ["read"],
    })
}

/// A server of acme with a grant for the agent `cursor`; its owner ada, and a member bob.
async fn stage() -> (Platform, String, String) {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let bob = platform.person("bob@example.com", &[("acme", "member")]).await;
    platform
        .done("POST", "/api/v1/runtime/servers", &ada, server("payments"))
        .await;
    let cursor = grant("cursor", &json!({"agentID": "cursor"}));
    platform.done("POST", "/api/v1/runtime/grants", &ada, cursor).await;
    (platform, ada, bob)
}

fn question(fields: &Value) -> Value {
    let mut question = json!({"namespace": "mcp-team-acme", "server": "payments"});
    for (name, value) in fields.as_object().unwrap() {
        question[name] = value.clone();
    }
    question
}

#[tokio::test]
async fn a_policy_is_shown_as_the_gateway_gets_it_without_hashes() {
    let (platform, ada, bob) = stage().await;
    let asked = json!({"serverName": "payments", "agentID": "cursor"});
    platform.done("POST", "/api/v1/runtime/adapter/sessions", &bob, asked).await;
    let shown = platform
        .done("GET", "/api/v1/runtime/servers/mcp-team-acme/payments/policy", &ada, NONE)
        .await;
    let policy = &shown["policy"];
    assert_eq!(policy["grants"][0]["name"], "cursor");
    assert_eq!(policy["sessions"][0]["agent_id"], "cursor");
    assert!(!shown.to_string().contains("token_hash"), "{shown}");
    assert_eq!(policy["revision"], shown["revision"]);
    let named = platform
        .done(
            "GET",
            "/api/v1/runtime/policy?namespace=mcp-team-acme&server=payments",
            &ada,
            NONE,
        )
        .await;
    assert_eq!(named["revision"], shown["revision"]);
    let (status, answer) = platform
        .ask(
            "GET",
            "/api/v1/runtime/servers/mcp-team-acme/payments/policy",
            Some(&bob),
            &NONE,
        )
        .await;
    assert_eq!((status, &answer["error"]), (403, &json!("not_owner")));
}

#[tokio::test]
async fn a_refusal_is_explained_down_to_the_grant_that_came_nearest() {
    let (platform, ada, _) = stage().await;
    let passes = question(&json!({"human": "bob@example.com", "agent": "cursor", "tool": "list_invoices"}));
    let answer = platform.done("POST", EXPLAIN, &ada, passes).await;
    assert_eq!(
        (&answer["decision"], &answer["reason"]),
        (&json!("allow"), &json!("allowed")),
        "{answer}"
    );
    assert_eq!(answer["matched_grant"], "mcp-team-acme/cursor");
    let fails = question(&json!({"human": "bob@example.com", "agent": "cursor", "tool": "refund_invoice"}));
    let answer = platform.done("POST", EXPLAIN, &ada, fails).await;
    assert_eq!(
        (&answer["decision"], &answer["reason"]),
        (&json!("deny"), &json!("side_effect_not_allowed"))
    );
    assert_eq!(answer["nearest"]["grant"], "mcp-team-acme/cursor");
    let obstacles = answer["nearest"]["obstacles"].to_string();
    assert!(
        obstacles.contains("destructive") && obstacles.contains("high is asked"),
        "{obstacles}"
    );
    let last = answer["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["passed"], &last["check"]), (&json!(false), &json!("side effect")));
    assert!(!answer["hint"].as_str().unwrap().is_empty());
    let nobody = question(&json!({"human": "", "tool": "list_invoices"}));
    assert_eq!(
        platform.done("POST", EXPLAIN, &ada, nobody).await["reason"],
        "missing_identity"
    );
}

#[tokio::test]
async fn members_ask_about_themselves_and_learn_of_their_own_grants() {
    let (platform, ada, bob) = stage().await;
    let secret = grant("for-ada", &json!({"humanID": "ada@example.com", "agentID": "claude"}));
    platform.done("POST", "/api/v1/runtime/grants", &ada, secret).await;
    let other = question(&json!({"human": "ada@example.com", "tool": "list_invoices"}));
    let (status, answer) = platform.ask("POST", EXPLAIN, Some(&bob), &other).await;
    assert_eq!((status, &answer["error"]), (403, &json!("not_owner")));
    let own = question(&json!({"agent": "claude", "tool": "list_invoices"}));
    let answer = platform.done("POST", EXPLAIN, &bob, own.clone()).await;
    assert_eq!(answer["reason"], "no_matching_grant");
    assert!(!answer.to_string().contains("for-ada"), "{answer}");
    assert!(platform.done("POST", EXPLAIN, &ada, own).await["decision"] == "allow");
}

#[tokio::test]
async fn the_session_a_call_would_present_counts() {
    let (platform, ada, bob) = stage().await;
    let asked = json!({"serverName": "payments", "agentID": "cursor"});
    let session = platform.done("POST", "/api/v1/runtime/adapter/sessions", &bob, asked).await;
    let own = question(&json!({"agent": "cursor", "tool": "list_invoices"}));
    let answer = platform.done("POST", EXPLAIN, &bob, own.clone()).await;
    assert_eq!((&answer["session"], &answer["decision"]), (&session["name"], &json!("allow")));
    let name = session["name"].as_str().unwrap();
    platform
        .done(
            "POST",
            &format!("/api/v1/runtime/sessions/mcp-team-acme/{name}/revoke"),
            &ada,
            NONE,
        )
        .await;
    let mut named = own;
    named["session"] = json!(name);
    assert_eq!(platform.done("POST", EXPLAIN, &bob, named).await["reason"], "session_revoked");
    for wrong in [
        json!({}),
        json!({"tool": "a", "prompt": "b"}),
        json!({"tool": "a", "session": "none"}),
    ] {
        assert_eq!(platform.ask("POST", EXPLAIN, Some(&bob), &question(&wrong)).await.0, 422);
    }
}

#[tokio::test]
async fn a_change_tells_who_gains_and_who_loses() {
    let (platform, ada, _) = stage().await;
    let diff = "/api/v1/runtime/policy/diff";
    let fewer = question(&json!({"remove_grants": ["cursor"]}));
    let answer = platform.done("POST", diff, &ada, fewer).await;
    assert_eq!((&answer["gains"], &answer["complete"]), (&json!(0), &json!(true)));
    let change = &answer["changes"][0];
    assert_eq!(
        (&change["before"]["decision"], &change["after"]["decision"]),
        (&json!("allow"), &json!("deny"))
    );
    assert_eq!(change["target"], "tool list_invoices");
    let mut wider = grant("cursor", &json!({"agentID": "cursor"}));
    wider["maxTrust"] = json!("high");
    wider["allowedSideEffects"] = json!(["read", "destructive"]);
    let answer = platform.done("POST", diff, &ada, question(&json!({"grants": [wider]}))).await;
    assert_eq!(answer["losses"], 0);
    let targets: Vec<_> = answer["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["target"])
        .collect();
    assert!(targets.contains(&&json!("tool refund_invoice")), "{targets:?}");
    let kept = platform
        .done("GET", "/api/v1/runtime/grants/mcp-team-acme/cursor", &ada, NONE)
        .await;
    assert_eq!(kept["grant"]["maxTrust"], "low", "nothing was changed");
    let unknown = question(&json!({"remove_grants": ["none"]}));
    assert_eq!(platform.ask("POST", diff, Some(&ada), &unknown).await.0, 422);
}
