//! Logging in with a real identity provider.

use oidc_service::Provider;
use platform_api::{ClientSecret, ControlConfig, GroupRule, OidcConfig};
use serde_json::{Value, json};
use service_kit::oidc::Issuer;

use crate::control::Platform;

const NONE: Value = Value::Null;
const RETURN: &str = "http://127.0.0.1:49152/callback";
const FINISH: &str = "/api/v1/auth/oidc/finish";

pub(crate) fn config(provider: &Provider, client: &str) -> ControlConfig {
    let secret = (client == "web").then(|| ClientSecret::new("web-secret"));
    ControlConfig {
        oidc: Some(OidcConfig {
            issuer: Issuer::new(provider.issuer()).unwrap(),
            client_id: client.to_owned(),
            client_secret: secret,
            scopes: ["openid", "email", "profile", "groups"].map(str::to_owned).to_vec(),
            groups_claim: "groups".to_owned(),
            groups: ["devs=team:acme", "leads=team:acme:owner", "ops=admin"]
                .map(|text| GroupRule::parse(text).unwrap())
                .to_vec(),
            redirects: Vec::new(),
        }),
        ..ControlConfig::default()
    }
}

/// Goes to the provider and back as a browser would, and gives what is to be sent to finish.
async fn approved(platform: &Platform, provider: &Provider, account: &str) -> Value {
    let wish = json!({"redirect_uri": RETURN, "login_hint": account});
    let (status, started) = platform.ask("POST", "/api/v1/auth/oidc/start", None, &wish).await;
    assert_eq!(status, 200, "{started}");
    let back = provider.log_in(started["authorization_url"].as_str().unwrap()).await;
    let query = back.split_once('?').unwrap().1;
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let of = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    json!({"flow": started["flow"], "state": of("state"), "code": of("code"), "redirect_uri": RETURN})
}

fn with(mut body: Value, name: &str, value: &Value) -> Value {
    body[name] = value.clone();
    body
}

#[tokio::test]
async fn people_log_in_through_a_browser_as_groups_and_invitations_say() {
    let provider = Provider::start();
    let platform = Platform::with(config(&provider, "web")).await;
    platform
        .done("POST", "/api/v1/runtime/teams", &platform.root, json!({"slug": "acme"}))
        .await;
    // Nobody has asked alice in.
    let back = approved(&platform, &provider, "alice").await;
    let (status, answer) = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!((status, &answer["error"]), (403, &json!("invitation_needed")), "{answer}");
    let again = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!(again.0, 401, "a code works once: {}", again.1);
    // An invitation lets her in, and from then on she is known.
    let invitation = platform
        .done(
            "POST",
            "/api/v1/invitations",
            &platform.root,
            json!({"email": "alice@example.com", "team": "acme"}),
        )
        .await;
    let back = with(
        approved(&platform, &provider, "alice").await,
        "invitation",
        &invitation["secret"],
    );
    let (status, granted) = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!(
        (status, &granted["user"]["email"]),
        (201, &json!("alice@example.com")),
        "{granted}"
    );
    let back = approved(&platform, &provider, "alice").await;
    let (status, granted) = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!(status, 200, "{granted}");
    let token = granted["access_token"].as_str().unwrap();
    let me = platform.done("GET", "/api/v1/auth/me", token, NONE).await;
    assert_eq!(me["principal"]["teams"][0]["slug"], "acme");
    let refreshed = platform
        .ask(
            "POST",
            "/api/v1/auth/refresh",
            None,
            &json!({"refresh_token": granted["refresh_token"]}),
        )
        .await;
    assert_eq!(refreshed.0, 200);
    groups_come_and_go(&platform, &provider).await;
    let event = platform.fact_with("reason", "invitation_needed").await;
    assert_eq!(event.payload.attributes["action"], "oidc_login");
}

/// Groups let people in, and take away what they gave, but not what people gave.
async fn groups_come_and_go(platform: &Platform, provider: &Provider) {
    let claims = async |groups: Value| {
        let claims = json!({"groups": groups, "email": "bob@example.com", "email_verified": true});
        provider.set_account("bob", claims).await;
        let back = approved(platform, provider, "bob").await;
        let (status, granted) = platform.ask("POST", FINISH, None, &back).await;
        assert!(status == 200 || status == 201, "{granted}");
        let token = granted["access_token"].as_str().unwrap();
        platform.done("GET", "/api/v1/auth/me", token, NONE).await["principal"].clone()
    };
    let bob = claims(json!(["leads", "devs", "ops"])).await;
    assert_eq!((&bob["role"], &bob["teams"][0]["role"]), (&json!("admin"), &json!("owner")));
    let bob = claims(json!(["devs"])).await;
    assert_eq!((&bob["role"], &bob["teams"][0]["role"]), (&json!("user"), &json!("member")));
    assert_eq!(claims(json!([])).await["teams"], json!([]));
    let member = json!({"user": "bob@example.com", "role": "member"});
    platform
        .done("POST", "/api/v1/runtime/teams/acme/members", &platform.root, member)
        .await;
    claims(json!(["leads"])).await;
    let bob = claims(json!([])).await;
    assert_eq!(bob["teams"][0]["role"], "member", "what people gave stays as it is");
}

#[tokio::test]
async fn accounts_are_linked_only_by_who_holds_both() {
    let provider = Provider::start();
    let platform = Platform::with(config(&provider, "web")).await;
    let alice = platform.person("alice@example.com", &[]).await;
    let back = approved(&platform, &provider, "alice").await;
    let (status, answer) = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!((status, &answer["error"]), (409, &json!("account_exists")), "{answer}");
    let back = approved(&platform, &provider, "alice").await;
    platform.done("POST", "/api/v1/auth/oidc/link", &alice, back).await;
    let back = approved(&platform, &provider, "alice").await;
    assert_eq!(platform.ask("POST", FINISH, None, &back).await.0, 200);
    let back = approved(&platform, &provider, "alice").await;
    let (status, _) = platform
        .ask("POST", "/api/v1/auth/oidc/link", Some(&platform.root), &back)
        .await;
    assert_eq!(status, 409, "it is hers");
    // An address that the provider does not vouch for is nobody's.
    let unsure = json!({"email": "root@example.com", "email_verified": false, "groups": ["ops"]});
    provider.set_account("mallory", unsure).await;
    let back = approved(&platform, &provider, "mallory").await;
    let (status, answer) = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!((status, &answer["error"]), (403, &json!("email_not_verified")));
    // What somebody else started is refused before the provider is asked.
    let (one, other) = (
        approved(&platform, &provider, "alice").await,
        approved(&platform, &provider, "alice").await,
    );
    let (status, answer) = platform.ask("POST", FINISH, None, &with(one, "flow", &other["flow"])).await;
    assert_eq!((status, &answer["error"]), (401, &json!("auth_failed")));
    let elsewhere = json!({"redirect_uri": "https://evil.example/callback"});
    assert_eq!(platform.ask("POST", "/api/v1/auth/oidc/start", None, &elsewhere).await.0, 422);
    // Kept out is kept out.
    let out = json!({"disabled": true});
    platform
        .done("PATCH", "/api/v1/users/alice@example.com", &platform.root, out)
        .await;
    let back = approved(&platform, &provider, "alice").await;
    let (status, answer) = platform.ask("POST", FINISH, None, &back).await;
    assert_eq!((status, &answer["error"]), (403, &json!("account_disabled")));
    provider.set_away(true).await;
    let (status, answer) = platform.ask("POST", FINISH, None, &with(back, "code", &json!("x"))).await;
    assert_eq!((status, &answer["error"]), (502, &json!("provider_unavailable")));
}

#[tokio::test]
async fn devices_and_fresh_tokens_log_in_too() {
    let provider = Provider::start();
    let platform = Platform::with(config(&provider, "cli")).await;
    provider.set_account("carol", json!({"groups": ["ops"]})).await;
    let (status, device) = platform.ask("POST", "/api/v1/auth/oidc/device", None, &NONE).await;
    assert_eq!(status, 200, "{device}");
    let poll = json!({"device_code": device["device_code"]});
    let (status, answer) = platform.ask("POST", "/api/v1/auth/oidc/device/poll", None, &poll).await;
    assert_eq!((status, &answer["error"]), (409, &json!("authorization_pending")));
    provider.approve(device["user_code"].as_str().unwrap(), "carol").await;
    let (status, granted) = platform.ask("POST", "/api/v1/auth/oidc/device/poll", None, &poll).await;
    assert_eq!((status, &granted["user"]["role"]), (201, &json!("admin")), "{granted}");
    let now = service_kit::Clock::system().unix_ns() / 1_000_000_000;
    let log_in = async |token: String| {
        let body = json!({"id_token": token});
        platform.ask("POST", "/api/v1/auth/oidc", None, &body).await
    };
    let header = || json!({"alg": "RS256"});
    let claims = |audience: &str, issued: i64| {
        json!({
            "iss": provider.issuer(), "aud": audience, "sub": "carol", "iat": issued, "exp": now + 3_600,
            "email": "carol@example.com", "email_verified": true,
        })
    };
    assert_eq!(log_in(provider.sign(header(), claims("cli", now)).await).await.0, 200);
    for (token, why) in [
        (
            provider.sign_as_stranger(header(), claims("cli", now)).await,
            "a key of somebody else",
        ),
        (provider.sign(header(), claims("other", now)).await, "for another client"),
        (provider.sign(header(), claims("cli", now - 3_000)).await, "an old one"),
    ] {
        let (status, answer) = log_in(token).await;
        assert_eq!((status, &answer["error"]), (401, &json!("auth_failed")), "{why}: {answer}");
    }
    let event = platform.fact("oidc_login").await;
    assert_eq!(event.payload.attributes["issuer"], provider.issuer());
}
