//! People and keys: logging in, going on, being locked out, and what keys may do.

use serde_json::{Value, json};

use crate::control::{PASSWORD, Platform, ROOT};
use crate::world::{body, json_body};

const NONE: Value = Value::Null;

#[tokio::test]
async fn a_login_lasts_by_exchanging_its_token_once() {
    let platform = Platform::new().await;
    let login = json!({"email": " Root@Example.com ", "password": PASSWORD});
    let (status, first) = platform.ask("POST", "/api/v1/auth/login", None, &login).await;
    assert_eq!(
        (status, &first["token_type"], &first["user"]["role"]),
        (200, &json!("bearer"), &json!("admin"))
    );
    let refresh = |token: &Value| {
        let body = json!({"refresh_token": token});
        let platform = &platform;
        async move { platform.ask("POST", "/api/v1/auth/refresh", None, &body).await }
    };
    let (status, second) = refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200);
    assert_ne!(second["access_token"], first["access_token"]);
    // Two processes may exchange the same token at the same moment.
    let (status, third) = refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200);
    for tokens in [&first, &second, &third] {
        let me = platform
            .done("GET", "/api/v1/auth/me", tokens["access_token"].as_str().unwrap(), NONE)
            .await;
        assert_eq!(me["principal"]["email"], ROOT);
    }
    let token = second["access_token"].as_str().unwrap();
    platform.done("POST", "/api/v1/auth/logout", token, NONE).await;
    for tokens in [&first, &second, &third] {
        let token = tokens["access_token"].as_str();
        assert_eq!(
            platform.ask("GET", "/api/v1/auth/me", token, &NONE).await.0,
            401,
            "a login ends with all of its tokens"
        );
    }
    assert_eq!(refresh(&third["refresh_token"]).await.0, 401);
    assert_eq!(refresh(&json!("mcpf_nobody")).await.1["error"], "login_ended");
    let event = platform.fact("login").await;
    assert_eq!((event.event_type.as_str(), event.namespace()), ("audit", "mcp-platform"));
}

#[tokio::test]
async fn guessing_is_answered_alike_and_then_not_at_all() {
    let platform = Platform::new().await;
    platform.person("ada@example.com", &[]).await;
    let attempt = |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        let platform = &platform;
        async move { platform.send("POST", "/api/v1/auth/login", None, &body).await }
    };
    let unknown = json_body(attempt("nobody@example.com", "wrong wrong wrong").await).await;
    for _ in 0..5 {
        let wrong = attempt("ada@example.com", "wrong wrong wrong").await;
        assert_eq!(wrong.status(), 401);
        assert_eq!(json_body(wrong).await["message"], unknown["message"]);
    }
    let locked = attempt("ada@example.com", PASSWORD).await;
    assert_eq!(locked.status(), 429, "also with the right password");
    let wait: u64 = locked.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=15).contains(&wait), "{wait}");
    assert_eq!(attempt(ROOT, PASSWORD).await.status(), 200, "others are not locked");
}

#[tokio::test]
async fn a_key_works_everywhere_within_its_rights_until_it_ends() {
    let platform = Platform::new().await;
    let ada = platform
        .person("ada@example.com", &[("acme", "member"), ("globex", "member")])
        .await;
    let order = |wish: Value| {
        let (platform, ada) = (&platform, &ada);
        async move { platform.done("POST", "/api/v1/user/api-keys", ada, wish).await }
    };
    let made = order(json!({"name": "ci", "rights": ["read"], "namespaces": ["mcp-team-acme"], "expires_in": "90d"})).await;
    let key = made["api_key"].as_str().unwrap();
    assert!(key.starts_with("mcpu_") && made["key"].get("api_key").is_none(), "{made}");
    for uri in [
        "/api/v1/auth/me",
        "/api/v1/runtime/servers",
        "/api/v1/runtime/grants",
        "/api/v1/events",
        "/api/v1/analytics/tools",
    ] {
        assert_eq!(platform.ask("GET", uri, Some(key), &NONE).await.0, 200, "{uri}");
    }
    let elsewhere = platform
        .ask("GET", "/api/v1/runtime/servers?namespace=mcp-team-globex", Some(key), &NONE)
        .await;
    assert_eq!(elsewhere.1["error"], "forbidden_namespace");
    let publish = platform
        .ask(
            "POST",
            "/api/v1/runtime/servers",
            Some(key),
            &crate::control::server("payments"),
        )
        .await;
    assert_eq!(publish.1["error"], "forbidden_right");
    let more = platform
        .ask(
            "POST",
            "/api/v1/user/api-keys",
            Some(key),
            &json!({"name": "more", "rights": ["write"]}),
        )
        .await;
    assert_eq!(more.0, 403, "a key is no way to more");
    let foreign = platform
        .ask(
            "POST",
            "/api/v1/user/api-keys",
            Some(&ada),
            &json!({"name": "x", "namespaces": ["mcp-team-other"]}),
        )
        .await;
    assert_eq!(foreign.0, 403);
    let listed = platform.done("GET", "/api/v1/user/api-keys", &ada, NONE).await;
    assert!(listed["keys"][0]["last_used_at"].is_string(), "{listed}");
    assert!(
        !body(platform.send("GET", "/api/v1/user/api-keys", Some(&ada), &NONE).await)
            .await
            .windows(key.len())
            .any(|part| part == key.as_bytes())
    );
    let id = made["key"]["id"].as_str().unwrap();
    platform
        .done("DELETE", &format!("/api/v1/user/api-keys/{id}"), &ada, NONE)
        .await;
    assert_eq!(platform.ask("GET", "/api/v1/auth/me", Some(key), &NONE).await.0, 401);
    let past = platform
        .ask(
            "POST",
            "/api/v1/user/api-keys",
            Some(&ada),
            &json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
        )
        .await;
    assert_eq!(past.0, 422);
    assert_eq!(
        platform.fact("api_key_revoke").await.payload.attributes["actor_email"],
        "ada@example.com"
    );
}

#[tokio::test]
async fn accounts_come_by_invitation_and_lose_their_rights_at_once() {
    let platform = Platform::new().await;
    platform.person("ada@example.com", &[("acme", "owner")]).await;
    let sign_up = json!({"email": "bob@example.com", "password": PASSWORD});
    assert_eq!(
        platform.ask("POST", "/api/v1/auth/signup", None, &sign_up).await.1["error"],
        "invitation_needed"
    );
    let wish = json!({"email": "bob@example.com", "team": "acme"});
    let letter = platform.done("POST", "/api/v1/invitations", &platform.root, wish).await;
    let accept = |email: &str| json!({"email": email, "password": PASSWORD, "invitation": letter["secret"]});
    assert_eq!(
        platform
            .ask("POST", "/api/v1/auth/signup", None, &accept("eve@example.com"))
            .await
            .0,
        403
    );
    let (status, joined) = platform
        .ask("POST", "/api/v1/auth/signup", None, &accept("bob@example.com"))
        .await;
    assert_eq!((status, &joined["user"]["role"]), (201, &json!("user")));
    assert_eq!(
        platform
            .ask("POST", "/api/v1/auth/signup", None, &accept("bob@example.com"))
            .await
            .0,
        403,
        "an invitation works once"
    );
    let bob = joined["access_token"].as_str().unwrap();
    let me = platform.done("GET", "/api/v1/auth/me", bob, NONE).await;
    assert_eq!(me["principal"]["namespace"], "mcp-team-acme");
    platform
        .done(
            "PATCH",
            "/api/v1/users/bob@example.com",
            &platform.root,
            json!({"role": "admin"}),
        )
        .await;
    platform.done("GET", "/api/v1/users", bob, NONE).await;
    platform
        .done(
            "PATCH",
            "/api/v1/users/bob@example.com",
            &platform.root,
            json!({"role": "user"}),
        )
        .await;
    assert_eq!(
        platform.ask("GET", "/api/v1/users", Some(bob), &NONE).await.0,
        403,
        "rights are those of now"
    );
    platform
        .done(
            "PATCH",
            "/api/v1/users/bob@example.com",
            &platform.root,
            json!({"disabled": true}),
        )
        .await;
    assert_eq!(platform.ask("GET", "/api/v1/auth/me", Some(bob), &NONE).await.0, 401);
    let last = platform
        .ask(
            "PATCH",
            &format!("/api/v1/users/{ROOT}"),
            Some(&platform.root),
            &json!({"disabled": true}),
        )
        .await;
    assert_eq!(last.0, 409, "somebody must be able to undo things");
}
