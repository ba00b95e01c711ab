//! Sessions for adapters: what they stand on, what they tell, and how they end.

use domain::Decision;
use domain::policy::{Call, Policy, Presented, Target, token_hash};
use platform_api::objects::manifests::Governed;
use platform_api::objects::{ObjectKind, Objects as _};
use serde_json::{Value, json};
use service_kit::Clock;

use crate::control::{Platform, server};

const NONE: Value = Value::Null;
const SESSIONS: &str = "/api/v1/runtime/adapter/sessions";

fn grant(name: &str, subject: &Value, trust: &str) -> Value {
    json!({
        "name": name, "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": subject, "maxTrust": trust,
        "allowedSideEffects": ["read", "destructive"],
    })
}

fn wish(agent: &str) -> Value {
    json!({"serverName": "payments", "agentID": agent})
}

/// A platform with a server of acme, its owner ada, a member bob and a stranger eve.
async fn stage() -> (Platform, [String; 3]) {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let bob = platform.person("bob@example.com", &[("acme", "member")]).await;
    let eve = platform.person("eve@example.com", &[("globex", "owner")]).await;
    platform
        .done("POST", "/api/v1/runtime/servers", &ada, server("payments"))
        .await;
    let cursor = grant("cursor", &json!({"agentID": "cursor"}), "medium");
    platform.done("POST", "/api/v1/runtime/grants", &ada, cursor).await;
    (platform, [ada, bob, eve])
}

/// What the server's gateway decides about a call that presents a credential.
async fn judged(platform: &Platform, credential: &str) -> (Decision, String) {
    let server = platform
        .objects
        .find(ObjectKind::Server, "mcp-team-acme", "payments")
        .await
        .unwrap();
    let governed = Governed::read(&*platform.objects, &server.unwrap()).await.unwrap();
    let now = domain::Timestamp::from_nanos(Clock::system().unix_ns());
    let policy = Policy::compile(&governed.document("", now));
    let call = Call {
        presented: Presented::Header(credential),
        ..Call::of(Target::Tool("list_invoices"))
    };
    let verdict = policy.decide(&call, now);
    (verdict.decision, verdict.reason.to_string())
}

#[tokio::test]
async fn a_session_tells_all_an_adapter_needs_and_works_at_the_gateway() {
    let (platform, [_, bob, _]) = stage().await;
    let mut asked = wish("cursor");
    (asked["requestedTrust"], asked["requestedTTL"]) = (json!("high"), json!("30m"));
    let made = platform.done("POST", SESSIONS, &bob, asked).await;
    let credential = made["credential"].as_str().unwrap();
    assert!(credential.starts_with("mcpa_") && credential.len() > 40, "{made}");
    assert_eq!(made["endpoint"], "http://127.0.0.1:8080/payments/mcp");
    assert_eq!(
        (&made["consentedTrust"], &made["maxTrust"]),
        (&json!("medium"), &json!("medium"))
    );
    assert_eq!(made["headers"]["X-MCP-Agent-Session"], credential);
    assert_eq!(
        (&made["headers"]["X-MCP-Human-ID"], &made["headers"]["X-MCP-Agent-ID"]),
        (&made["humanID"], &json!("cursor"))
    );
    let methods = made["anonymousMethods"].as_array().unwrap();
    assert!(
        methods.contains(&json!("tools/list")) && !methods.contains(&json!("tools/call")),
        "{methods:?}"
    );
    assert_eq!(judged(&platform, credential).await, (Decision::Allow, "allowed".to_owned()));
    assert_eq!(judged(&platform, made["name"].as_str().unwrap()).await.1, "session_not_found");
    let name = made["name"].as_str().unwrap();
    let kept = platform
        .objects
        .find(ObjectKind::Session, "mcp-team-acme", name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.spec["tokenHash"], token_hash(credential));
    assert!(!kept.spec.to_string().contains(credential), "only the hash is kept");
    let event = platform.fact("adapter_session_issue").await;
    assert_eq!((event.namespace(), event.server()), ("mcp-team-acme", "payments"));
    let told = serde_json::to_string(&event).unwrap();
    assert!(!told.contains(credential) && told.contains("\"trust\":\"medium\""), "{told}");
}

#[tokio::test]
async fn a_refresh_keeps_the_credential_and_looks_at_the_grants_again() {
    let (platform, [ada, bob, _]) = stage().await;
    let mut short = wish("cursor");
    short["requestedTTL"] = json!("10m");
    let made = platform.done("POST", SESSIONS, &bob, short).await;
    let uri = format!("{SESSIONS}/mcp-team-acme/{}/refresh", made["name"].as_str().unwrap());
    let longer = platform.done("POST", &uri, &bob, json!({"requestedTTL": "2h"})).await;
    assert!(longer["expiresAt"].as_str() > made["expiresAt"].as_str(), "{longer}");
    assert_eq!((&longer["credential"], &longer["name"]), (&NONE, &made["name"]));
    assert!(
        longer["headers"].get("X-MCP-Agent-Session").is_none(),
        "it is never told again"
    );
    assert_eq!(platform.ask("POST", &uri, Some(&ada), &NONE).await.0, 404, "it is not hers");
    platform
        .done("POST", "/api/v1/runtime/grants/mcp-team-acme/cursor/disable", &ada, NONE)
        .await;
    let without = platform.ask("POST", &uri, Some(&bob), &NONE).await;
    assert_eq!((without.0, &without.1["error"]), (403, &json!("no_grant")));
}

#[tokio::test]
async fn a_revoked_session_is_not_replaced_until_that_is_undone() {
    let (platform, [ada, bob, _]) = stage().await;
    let made = platform.done("POST", SESSIONS, &bob, wish("cursor")).await;
    let (name, credential) = (made["name"].as_str().unwrap(), made["credential"].as_str().unwrap());
    let of_admin = format!("/api/v1/runtime/sessions/mcp-team-acme/{name}");
    platform.done("POST", &format!("{of_admin}/revoke"), &ada, NONE).await;
    assert_eq!(judged(&platform, credential).await.1, "session_revoked");
    let own = format!("{SESSIONS}/mcp-team-acme/{name}");
    for (method, uri, body) in [
        ("POST", SESSIONS.to_owned(), wish("cursor")),
        ("POST", format!("{own}/refresh"), NONE),
        ("DELETE", own.clone(), NONE),
    ] {
        let (status, answer) = platform.ask(method, &uri, Some(&bob), &body).await;
        assert_eq!((status, &answer["error"]), (403, &json!("session_revoked")), "{method} {uri}");
    }
    let event = platform.fact_with("reason", "session_revoked").await;
    assert_eq!(event.payload.attributes["action"], "adapter_session_issue");
    let listed = platform.done("GET", SESSIONS, &bob, NONE).await;
    assert_eq!(listed["sessions"][0]["phase"], "Revoked");
    platform.done("POST", &format!("{of_admin}/unrevoke"), &ada, NONE).await;
    assert_eq!(
        judged(&platform, credential).await.1,
        "session_expired",
        "what was revoked stays dead"
    );
    let again = platform.done("POST", SESSIONS, &bob, wish("cursor")).await;
    assert_eq!(
        judged(&platform, again["credential"].as_str().unwrap()).await.0,
        Decision::Allow
    );
}

#[tokio::test]
async fn strangers_get_a_session_only_when_a_grant_names_them() {
    let (platform, [ada, bob, eve]) = stage().await;
    let mut asked = wish("cursor");
    assert_eq!(platform.ask("POST", SESSIONS, Some(&eve), &asked).await.0, 404);
    asked["namespace"] = json!("mcp-team-acme");
    let (status, answer) = platform.ask("POST", SESSIONS, Some(&eve), &asked).await;
    assert_eq!(
        (status, &answer["error"]),
        (404, &json!("not_found")),
        "whether it exists is not told"
    );
    let named = grant("eve", &json!({"humanID": "eve@example.com", "agentID": "cursor"}), "low");
    platform.done("POST", "/api/v1/runtime/grants", &ada, named).await;
    let made = platform.done("POST", SESSIONS, &eve, asked).await;
    assert_eq!(
        judged(&platform, made["credential"].as_str().unwrap()).await.0,
        Decision::Allow
    );
    let other = platform.ask("POST", SESSIONS, Some(&bob), &wish("claude")).await;
    assert_eq!((other.0, &other.1["error"]), (403, &json!("no_grant")));
    assert!(
        other.1["hint"].as_str().unwrap().contains("access grant init claude"),
        "{}",
        other.1
    );
}

#[tokio::test]
async fn wishes_are_checked_and_sessions_bounded() {
    let (platform, [_, bob, _]) = stage().await;
    for (field, value, part) in [
        ("agentID", json!("two words"), "agentID"),
        ("agentID", json!(""), "agentID"),
        ("requestedTTL", json!("0s"), "requestedTTL"),
        ("requestedTTL", json!("soon"), "requestedTTL"),
        ("requestedTrust", json!("most"), "most"),
    ] {
        let mut asked = wish("cursor");
        asked[field] = value;
        let (status, answer) = platform.ask("POST", SESSIONS, Some(&bob), &asked).await;
        assert_eq!(status, 422, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    for _ in 0..32 {
        platform.done("POST", SESSIONS, &bob, wish("cursor")).await;
    }
    let (status, answer) = platform.ask("POST", SESSIONS, Some(&bob), &wish("cursor")).await;
    assert_eq!((status, &answer["error"]), (429, &json!("too_many_sessions")));
    let listed = platform.done("GET", &format!("{SESSIONS}?server=payments"), &bob, NONE).await;
    let first = listed["sessions"][0]["name"].as_str().unwrap();
    platform
        .done("DELETE", &format!("{SESSIONS}/mcp-team-acme/{first}"), &bob, NONE)
        .await;
    platform.done("POST", SESSIONS, &bob, wish("cursor")).await;
    platform.fact("adapter_session_end").await;
}

#[tokio::test]
async fn anybody_learns_where_a_public_server_is() {
    let (platform, [ada, ..]) = stage().await;
    let mut open = server("open");
    open["scope"] = json!("public");
    platform.done("POST", "/api/v1/runtime/servers", &ada, open).await;
    let (status, answer) = platform
        .ask("GET", "/api/v1/runtime/adapter/anonymous/open", None, &NONE)
        .await;
    assert_eq!((status, &answer["endpoint"]), (200, &json!("http://127.0.0.1:8080/open/mcp")));
    let hidden = platform
        .ask("GET", "/api/v1/runtime/adapter/anonymous/payments", None, &NONE)
        .await;
    assert_eq!(hidden.0, 404);
}

#[tokio::test]
async fn sessions_end_with_the_membership_or_the_account_they_stood_on() {
    let (platform, [ada, bob, _]) = stage().await;
    let made = platform.done("POST", SESSIONS, &bob, wish("cursor")).await;
    let credential = made["credential"].as_str().unwrap();
    platform
        .done("DELETE", "/api/v1/runtime/teams/acme/members/bob@example.com", &ada, NONE)
        .await;
    assert_eq!(judged(&platform, credential).await.1, "session_not_found");
    let made = platform.done("POST", SESSIONS, &ada, wish("cursor")).await;
    let credential = made["credential"].as_str().unwrap();
    assert_eq!(judged(&platform, credential).await.0, Decision::Allow);
    let out = json!({"disabled": true});
    platform
        .done("PATCH", "/api/v1/users/ada@example.com", &platform.root, out)
        .await;
    assert_eq!(judged(&platform, credential).await.1, "session_not_found");
}
