//! Servers, grants and sessions: publishing, replacing, who may, and what is told of it.

use platform_api::ControlConfig;
use serde_json::{Value, json};

use crate::control::{Platform, server};
use crate::world::json_body;

const NONE: Value = Value::Null;
const SERVERS: &str = "/api/v1/runtime/servers";

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

#[tokio::test]
async fn a_server_is_published_seen_replaced_and_retired() {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "member")]).await;
    let made = platform.done("POST", SERVERS, &ada, server("payments")).await;
    let made = &made["server"];
    assert_eq!(
        (&made["namespace"], &made["governed"], &made["status"]),
        (&json!("mcp-team-acme"), &json!(true), &json!("Pending"))
    );
    assert_eq!(made["endpoint"], "http://127.0.0.1:8080/payments/mcp");
    assert_eq!(made["labels"]["mcpruntime.org/scope"], "tenant");
    let again = platform.ask("POST", SERVERS, Some(&ada), &server("payments")).await;
    assert_eq!((again.0, &again.1["error"]), (409, &json!("already_exists")));
    let dry = with(
        with(server("payments"), "update", json!(true)),
        "spec",
        json!({"image": "other"}),
    );
    let tried = platform
        .done("POST", &format!("{SERVERS}?dryRun=true"), &ada, dry.clone())
        .await;
    assert_eq!(tried["server"]["image"], "other");
    let uri = format!("{SERVERS}/mcp-team-acme/payments");
    let response = platform.send("GET", &uri, Some(&ada), &NONE).await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", made["revision"]));
    assert_eq!(
        json_body(response).await["server"]["image"],
        "payments",
        "a dry run changes nothing"
    );
    let replaced = platform.done("POST", SERVERS, &ada, dry).await;
    assert_eq!(
        (&replaced["server"]["generation"], &replaced["server"]["uid"]),
        (&json!(2), &made["uid"])
    );
    let uid = made["uid"].as_str().unwrap();
    platform
        .objects
        .set_status(uid, json!({"observedGeneration": 1, "phase": "Ready"}));
    assert_eq!(platform.done("GET", &uri, &ada, NONE).await["server"]["status"], "Updating");
    platform
        .objects
        .set_status(uid, json!({"observedGeneration": 2, "phase": "Ready"}));
    assert_eq!(platform.done("GET", &uri, &ada, NONE).await["server"]["ready"], true);
    let listed = platform.done("GET", &format!("{SERVERS}?q=pay"), &ada, NONE).await;
    assert_eq!(
        (
            listed["servers"].as_array().unwrap().len(),
            &listed["publish_policy"]["active_server_count"]
        ),
        (1, &json!(1))
    );
    platform.done("DELETE", &uri, &ada, NONE).await;
    assert_eq!(
        platform.ask("DELETE", &uri, Some(&ada), &NONE).await.0,
        404,
        "what is not there was not retired"
    );
    let event = platform.fact("server_retire").await;
    assert_eq!((event.namespace(), event.server()), ("mcp-team-acme", "payments"));
}

#[tokio::test]
async fn writes_meet_what_they_expect() {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "member")]).await;
    platform.done("POST", SERVERS, &ada, server("payments")).await;
    let request = |tag: &str| {
        let update = with(server("payments"), "update", json!(true)).to_string();
        let request = http::Request::post(SERVERS)
            .header("authorization", format!("Bearer {ada}"))
            .header("content-type", "application/json")
            .header("if-match", tag);
        platform.world.send(request.body(update.into()).unwrap())
    };
    assert_eq!(request("\"1\"").await.status(), 200);
    let late = request("\"1\"").await;
    assert_eq!(late.status(), 409);
    assert!(json_body(late).await["message"].as_str().unwrap().contains("revision 2"));
    assert_eq!(request("one").await.status(), 400);
}

#[tokio::test]
async fn quota_cooldown_and_routes_are_kept() {
    let config = ControlConfig {
        servers_max: Some(2),
        push_cooldown: std::time::Duration::from_mins(5),
        ..ControlConfig::default()
    };
    let platform = Platform::with(config).await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let bob = platform.person("bob@example.com", &[("globex", "member")]).await;
    platform.done("POST", SERVERS, &ada, server("one")).await;
    platform.done("POST", "/api/runtime/servers", &ada, server("two")).await;
    let third = platform.ask("POST", SERVERS, Some(&ada), &server("three")).await;
    assert_eq!((third.0, &third.1["error"]), (429, &json!("active_server_limit_reached")));
    let soon = platform
        .send("POST", SERVERS, Some(&ada), &with(server("one"), "update", json!(true)))
        .await;
    assert_eq!(soon.status(), 429);
    let wait: u64 = soon.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((290..=300).contains(&wait), "{wait}");
    let taken = platform.ask("POST", SERVERS, Some(&bob), &server("one")).await;
    assert_eq!((taken.0, &taken.1["error"]), (409, &json!("route_taken")));
    assert!(!taken.1.to_string().contains("acme"), "other teams' names are not told");
    let event = platform.fact_with("reason", "server_push_cooldown_active").await;
    assert_eq!(event.payload.attributes["action"], "server_publish");
}

#[tokio::test]
async fn scopes_live_side_by_side_and_owners_manage_their_team() {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let bob = platform.person("bob@example.com", &[("acme", "member")]).await;
    let eve = platform.person("eve@example.com", &[("globex", "owner")]).await;
    platform.done("POST", SERVERS, &bob, server("tenant")).await;
    for scope in ["org", "public"] {
        let made = platform
            .done("POST", SERVERS, &bob, with(server(scope), "scope", json!(scope)))
            .await;
        assert_eq!(made["server"]["namespace"], format!("mcp-servers-{scope}"));
    }
    let seen = platform.done("GET", SERVERS, &eve, NONE).await;
    let names: Vec<_> = seen["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["org", "public"]);
    let update = |name: &str, scope: &str| with(with(server(name), "update", json!(true)), "scope", json!(scope));
    assert_eq!(
        platform.ask("POST", SERVERS, Some(&eve), &update("org", "org")).await.1["error"],
        "not_owner"
    );
    assert_eq!(
        platform
            .ask("DELETE", &format!("{SERVERS}/mcp-team-acme/tenant"), Some(&eve), &NONE)
            .await
            .0,
        404
    );
    platform.done("POST", SERVERS, &ada, update("tenant", "tenant")).await;
    let label = with(server("x"), "labels", json!({"mcpruntime.org/scope": "public"}));
    assert_eq!(platform.ask("POST", SERVERS, Some(&ada), &label).await.0, 422);
}

fn grant(tool: &str) -> Value {
    json!({
        "name": "cursor", "namespace": "mcp-team-acme", "serverRef": {"name": "payments"},
        "subject": {"humanID": "bob@example.com", "agentID": "cursor"}, "maxTrust": "high", "allowedSideEffects": ["read"],
        "toolRules": [{"name": tool, "decision": "allow", "requiredTrust": "low"}],
    })
}

#[tokio::test]
async fn a_grant_is_read_back_whole_and_every_change_of_it_is_told() {
    const GRANTS: &str = "/api/v1/runtime/grants";
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let bob = platform.person("bob@example.com", &[("acme", "member")]).await;
    let missing = platform.ask("POST", GRANTS, Some(&ada), &grant("list_invoices")).await;
    assert!(
        missing.0 == 422 && missing.1["message"].as_str().unwrap().contains("no server `payments`"),
        "{}",
        missing.1
    );
    platform.done("POST", SERVERS, &ada, server("payments")).await;
    let typo = platform.ask("POST", GRANTS, Some(&ada), &grant("list_invoice")).await;
    assert!(typo.1["hint"].as_str().unwrap().contains("`list_invoices`"), "{}", typo.1);
    let misspelt = platform
        .ask(
            "POST",
            GRANTS,
            Some(&ada),
            &with(grant("list_invoices"), "maxTurst", json!("low")),
        )
        .await;
    assert_eq!(misspelt.1["hint"], "did you mean `maxTrust`?");
    let made = platform.done("POST", GRANTS, &ada, grant("list_invoices")).await;
    let made = made["grant"].clone();
    assert_eq!(
        (&made["toolRules"][0]["name"], &made["policyVersion"], &made["phase"]),
        (&json!("list_invoices"), &json!("v1"), &json!("Active"))
    );
    assert_ne!(made["subject"]["humanID"], "bob@example.com", "calls carry ids, so grants do");
    platform.done("POST", GRANTS, &ada, made.clone()).await;
    let uri = format!("{GRANTS}/mcp-team-acme/cursor");
    platform.done("POST", &format!("{uri}/disable"), &ada, NONE).await;
    let kept = platform.done("POST", GRANTS, &ada, grant("list_invoices")).await;
    assert_eq!(kept["grant"]["disabled"], true, "what is not said stays");
    assert_eq!(
        platform.ask("PATCH", &uri, Some(&bob), &json!({"disabled": false})).await.1["error"],
        "not_owner"
    );
    platform.done("PATCH", &uri, &ada, json!({"disabled": false})).await;
    let own = platform.done("GET", GRANTS, &bob, NONE).await;
    assert_eq!(
        own["grants"].as_array().unwrap().len(),
        1,
        "whoever a grant is about may see it"
    );
    let event = platform.fact("grant_disable").await;
    assert_eq!(
        (event.event_type.as_str(), event.server(), event.namespace()),
        ("access.change", "payments", "mcp-team-acme")
    );
    let session = json!({
        "name": "s", "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": {"agentID": "cursor"},
        "consentedTrust": "medium", "expiresAt": "2099-01-01T00:00:00Z",
        "upstreamTokenSecretRef": {"name": "upstream", "key": "token"},
    });
    assert_eq!(
        platform.ask("POST", "/api/v1/runtime/sessions", Some(&ada), &session).await.0,
        403,
        "sessions come from adapters"
    );
    platform
        .done("POST", "/api/v1/runtime/sessions", &platform.root, session.clone())
        .await;
    let uri = "/api/v1/runtime/sessions/mcp-team-acme/s";
    platform.done("POST", &format!("{uri}/revoke"), &ada, NONE).await;
    let again = platform
        .done("POST", "/api/v1/runtime/sessions", &platform.root, session)
        .await;
    assert_eq!(
        (&again["session"]["revoked"], &again["session"]["phase"]),
        (&json!(true), &json!("Revoked")),
        "revoked until undone"
    );
    assert_eq!(again["session"]["upstreamTokenSecretRef"]["name"], "upstream");
    let gone = platform
        .done("DELETE", &format!("{SERVERS}/mcp-team-acme/payments"), &ada, NONE)
        .await;
    assert_eq!(
        gone["removed"],
        json!(["grant/cursor", "session/s"]),
        "nothing is left behind"
    );
}
