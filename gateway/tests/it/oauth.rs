//! A server that takes the access tokens of a real `OpenID` provider.

use std::time::Duration;

use domain::policy::token_hash;
use domain::{Decision, Identity};
use gateway::{GatewayLimits, IdentityRules};
use http::{HeaderMap, Method};
use oidc_service::Provider;
use serde_json::{Value, json};
use service_kit::{Clock, ManualClock, Tasks};

use crate::governed::{Governed, call};
use crate::support::{soon, whole};

const AUDIENCE: &str = "https://mcp.example.com/payments/mcp";
const TOKEN: &str = "mcps_service_secret";

struct Guarded {
    governed: Governed,
    provider: Provider,
    clock: ManualClock,
}

impl Guarded {
    fn start() -> Self {
        Self::with(GatewayLimits::default(), |_| {})
    }

    /// A gateway whose clock begins at the right time and then stands still.
    fn with(limits: GatewayLimits, change: impl FnOnce(&mut Value)) -> Self {
        let provider = Provider::start();
        let mut document = document(provider.issuer());
        change(&mut document);
        let (clock, hand) = Clock::manual(Clock::system().unix_ns());
        let governed = Governed::on(Tasks::for_test_at(clock), limits, &document);
        Self {
            governed,
            provider,
            clock: hand,
        }
    }

    async fn call(&self, authorization: &str) -> (u16, HeaderMap, Value) {
        self.governed.post(&[("authorization", authorization)], call("list")).await
    }

    /// The reason of a refusal, with its status.
    async fn refusal(&self, token: &str) -> (u16, String) {
        let (status, _, body) = self.call(&format!("Bearer {token}")).await;
        (status, body["error"].as_str().unwrap_or("passed").to_owned())
    }

    /// A token that is right in every way but those given.
    async fn token(&self, header: Value, changes: Value) -> String {
        let claims = self.claims(&changes);
        self.provider.sign(header, claims).await
    }

    fn claims(&self, changes: &Value) -> Value {
        let now = Clock::system().unix_ns() / 1_000_000_000;
        let mut claims = json!({
            "iss": self.provider.issuer(), "aud": AUDIENCE, "sub": "service", "client_id": "service",
            "iat": now, "exp": now + 600, "scope": "tools:read",
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }
}

/// The provider's client `service` may list.
fn document(issuer: &str) -> Value {
    json!({
        "schema_version": "v1",
        "server": {"name": "payments", "namespace": "acme"},
        "auth": {"mode": "oauth", "issuer_url": issuer, "audience": AUDIENCE},
        "policy": {"mode": "allow-list"},
        "tools": [{"name": "list", "side_effect": "read"}],
        "grants": [{"name": "service", "agent_id": "service", "max_trust": "high", "allowed_side_effects": ["read"]}],
        "sessions": [{"name": "s-1", "agent_id": "service", "consented_trust": "high", "token_hash": token_hash(TOKEN)}],
    })
}

#[tokio::test]
async fn a_token_of_the_provider_names_its_caller_and_goes_no_further() {
    let guarded = Guarded::start();
    let token = guarded.provider.service_token(AUDIENCE, "tools:read").await;
    let spoofed = [
        ("authorization", &*format!("Bearer {token}")),
        ("x-mcp-human-id", "root"),
        ("x-mcp-team-id", "admins"),
    ];
    let (status, _, body) = guarded.governed.post(&spoofed, call("list")).await;
    assert_eq!(status, 200, "{body}");
    let told = json!({"x-mcp-human-id": "service", "x-mcp-agent-id": "service"});
    assert_eq!(
        body["result"]["headers"], told,
        "the server is told what was proven, and no token"
    );
    let payload = guarded.governed.setup.event().await.payload;
    assert_eq!(
        (
            payload.human_id.as_deref(),
            payload.agent_id.as_deref(),
            payload.subject_team_id
        ),
        (Some("service"), Some("service"), None)
    );
    assert_eq!(
        (payload.identity, payload.decision),
        (Some(Identity::Verified), Some(Decision::Allow))
    );
    assert_eq!(guarded.provider.count("jwks").await, 1);
    let (status, _, body) = guarded.governed.post(&spoofed, call("refund")).await;
    assert_eq!(
        (status, &body["error"]["data"]["reason"]),
        (200, &json!("tool_side_effect_unknown"))
    );
    assert_eq!(guarded.provider.count("jwks").await, 1, "one fetch serves them all");
}

#[tokio::test]
async fn a_session_travels_beside_the_token_and_must_be_of_the_same_caller() {
    let guarded = Guarded::start();
    let token = guarded.token(json!({}), json!({"team_id": "red"})).await;
    let bearer = format!("Bearer {token}");
    let (status, _, body) = guarded
        .governed
        .post(&[("authorization", &bearer), ("x-mcp-agent-session", TOKEN)], call("list"))
        .await;
    assert_eq!(
        (status, &body["result"]["headers"]["x-mcp-agent-session"]),
        (200, &json!("s-1"))
    );
    let payload = guarded.governed.setup.event().await.payload;
    assert_eq!(payload.matched_session.as_deref(), Some("s-1"));
    let other = guarded.token(json!({}), json!({"client_id": "other"})).await;
    let bearer = format!("Bearer {other}");
    let (status, _, body) = guarded
        .governed
        .post(&[("authorization", &bearer), ("x-mcp-agent-session", TOKEN)], call("list"))
        .await;
    assert_eq!((status, &body["error"]["data"]["reason"]), (401, &json!("identity_mismatch")));
}

#[tokio::test]
async fn who_shows_no_good_token_is_told_where_to_get_one() {
    let guarded = Guarded::start();
    let (status, head, body) = guarded.governed.post(&[], call("list")).await;
    assert_eq!((status, &body["error"]), (401, &json!("missing_bearer_token")));
    let challenge = head["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer resource_metadata=\"http://"), "{challenge}");
    assert!(!challenge.contains("error="), "nothing was wrong with it yet: {challenge}");
    let url = challenge.split('"').nth(1).unwrap();

    let request = http::Request::get(url).body(http_body_util::Full::default()).unwrap();
    let response = whole(guarded.governed.setup.send(request).await).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let metadata: Value = serde_json::from_slice(response.body()).unwrap();
    let asked = format!("http://{}/payments/mcp", guarded.governed.setup.address);
    assert_eq!(
        metadata["resource"], asked,
        "clients compare it with the address that they called"
    );
    assert_eq!(metadata["authorization_servers"], json!([guarded.provider.issuer()]));
    assert_eq!(metadata["bearer_methods_supported"], json!(["header"]));

    for authorization in ["Basic c2VydmljZTpzZWNyZXQ=", "Bearer", "Bearer ", "mcpi_abc"] {
        let (status, _, body) = guarded.call(authorization).await;
        assert_eq!(
            (status, &body["error"]),
            (401, &json!("missing_bearer_token")),
            "{authorization}"
        );
    }
    let (status, head, _) = guarded.call("Bearer nonsense").await;
    assert_eq!(status, 401);
    assert!(head["www-authenticate"].to_str().unwrap().contains("error=\"invalid_token\""));
    let mut twice = guarded.governed.request(&[("authorization", "Bearer a")], call("list"));
    twice.headers_mut().append("authorization", "Bearer b".parse().unwrap());
    assert_eq!(guarded.governed.setup.send(twice).await.status(), 400);
    assert_eq!(guarded.governed.asked(), 0);
}

#[tokio::test]
async fn every_token_that_is_wrong_in_one_way_is_refused() {
    let guarded = Guarded::start();
    let now = Clock::system().unix_ns() / 1_000_000_000;
    let good = guarded.token(json!({}), json!({})).await;
    assert_eq!(guarded.refusal(&good).await, (200, "passed".to_owned()));
    let mut tokens = Vec::new();
    for changes in [
        json!({"iss": "https://evil.example"}),
        json!({"iss": null}),
        json!({"iss": [guarded.provider.issuer()]}),
        json!({"iss": format!("{}/", guarded.provider.issuer())}),
        json!({"aud": "https://mcp.example.com/other/mcp"}),
        json!({"aud": []}),
        json!({"aud": null}),
        json!({"aud": {"0": AUDIENCE}}),
        json!({"exp": now - 61}),
        json!({"exp": null}),
        json!({"exp": "never"}),
        json!({"exp": -1}),
        json!({"exp": 1e300}),
        json!({"nbf": now + 120}),
        json!({"nbf": "soon"}),
    ] {
        tokens.push((changes.to_string(), guarded.token(json!({}), changes).await));
    }
    for header in [
        json!({"alg": "HS256"}),
        json!({"alg": "HS512"}),
        json!({"alg": "none"}),
        json!({"alg": "ES256", "kid": "nobody"}),
        json!({"typ": "logout+jwt"}),
    ] {
        tokens.push((header.to_string(), guarded.token(header, json!({})).await));
    }
    let stranger = guarded.provider.sign_as_stranger(json!({}), guarded.claims(&json!({}))).await;
    tokens.push(("signed by a stranger".to_owned(), stranger));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = head.split_once('.').unwrap();
    let other = guarded.token(json!({}), json!({"sub": "root"})).await;
    let other_claims = other.split('.').nth(1).unwrap();
    for (name, token) in [
        ("other claims", format!("{header}.{other_claims}.{signature}")),
        ("no signature", format!("{head}.")),
        ("cut", good.chars().take(good.len() - 2).collect()),
        ("two parts", head.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as if encrypted", format!("{good}.{claims}.{signature}")),
        ("no base64", format!("{header}.%%%.{signature}")),
        ("long", format!("{header}.{}.{signature}", "A".repeat(20_000))),
    ] {
        tokens.push((name.to_owned(), token));
    }
    for (name, token) in tokens {
        assert_eq!(guarded.refusal(&token).await, (401, "invalid_token".to_owned()), "{name}");
    }
    assert_eq!(guarded.governed.asked(), 1, "only the good one passed");
    let skewed = guarded.token(json!({}), json!({"exp": now - 30, "nbf": now + 30})).await;
    assert_eq!(guarded.refusal(&skewed).await.0, 200, "clocks may be a minute apart");
    for alg in ["ES256", "EdDSA", "PS256"] {
        let token = guarded.token(json!({ "alg": alg }), json!({})).await;
        assert_eq!(guarded.refusal(&token).await.0, 200, "{alg}");
    }
}

#[tokio::test]
async fn rotated_keys_are_fetched_when_a_token_names_one_and_not_without_pause() {
    let guarded = Guarded::start();
    let old = guarded.token(json!({}), json!({})).await;
    assert_eq!(guarded.refusal(&old).await.0, 200);
    guarded.provider.rotate().await;
    let new = guarded.token(json!({}), json!({})).await;
    for _ in 0..3 {
        assert_eq!(guarded.refusal(&new).await.0, 401, "it was asked a moment ago");
    }
    assert_eq!(guarded.provider.count("jwks").await, 1);
    guarded.clock.advance(Duration::from_secs(6));
    assert_eq!(guarded.refusal(&new).await.0, 200);
    assert_eq!(guarded.refusal(&old).await.0, 401, "its key was withdrawn");
    assert_eq!(guarded.provider.count("jwks").await, 2);
}

#[tokio::test]
async fn while_the_provider_is_away_known_keys_serve_and_without_any_the_answer_says_so() {
    let guarded = Guarded::start();
    guarded.provider.set_away(true).await;
    let token = guarded
        .token(json!({}), json!({"exp": Clock::system().unix_ns() / 1_000_000_000 + 90_000}))
        .await;
    let (status, head, body) = guarded.call(&format!("Bearer {token}")).await;
    assert_eq!((status, &body["error"]), (503, &json!("oauth_provider_unavailable")));
    assert_eq!(head["retry-after"], "5");
    assert_eq!(guarded.governed.asked(), 0, "nothing is open by accident");
    guarded.provider.set_away(false).await;
    guarded.clock.advance(Duration::from_secs(6));
    assert_eq!(guarded.refusal(&token).await.0, 200);
    guarded.provider.set_away(true).await;
    for hours in [1, 12] {
        guarded.clock.advance(Duration::from_hours(hours));
        assert_eq!(guarded.refusal(&token).await.0, 200);
        let other = guarded
            .token(
                json!({}),
                json!({"exp": Clock::system().unix_ns() / 1_000_000_000 + 90_000, "jti": hours}),
            )
            .await;
        assert_eq!(guarded.refusal(&other).await.0, 200, "tokens that were never seen, too");
    }
}

#[tokio::test]
async fn a_token_without_a_scope_that_is_needed_is_told_which() {
    let guarded = Guarded::with(GatewayLimits::default(), |document| {
        document["auth"]["required_scopes"] = json!(["tools:read", "tools:write"]);
    });
    let token = guarded.provider.service_token(AUDIENCE, "tools:read").await;
    let (status, head, body) = guarded.call(&format!("Bearer {token}")).await;
    assert_eq!(status, 403);
    assert_eq!(body["error"]["data"]["reason"], "insufficient_scope");
    let challenge = head["www-authenticate"].to_str().unwrap();
    for part in ["error=\"insufficient_scope\"", "tools:write", "resource_metadata=\""] {
        assert!(challenge.contains(part), "{challenge}");
    }
    let token = guarded.provider.service_token(AUDIENCE, "tools:read tools:write").await;
    assert_eq!(guarded.refusal(&token).await.0, 200);
    let list = guarded
        .token(json!({}), json!({"scope": null, "scp": ["tools:read", "tools:write"]}))
        .await;
    assert_eq!(guarded.refusal(&list).await.0, 200, "some issuers write a list");
}

#[tokio::test]
async fn without_an_audience_the_address_of_the_server_is_one_where_it_is_certain() {
    let no_audience = |document: &mut Value| drop(document["auth"].as_object_mut().unwrap().remove("audience"));
    let unknown = Guarded::with(GatewayLimits::default(), no_audience);
    let token = unknown.token(json!({}), json!({})).await;
    assert_eq!(
        unknown.refusal(&token).await,
        (503, "oauth_config_missing".to_owned()),
        "a host is what callers say it is"
    );
    let limits = GatewayLimits {
        identity: IdentityRules {
            external_base_url: Some("https://mcp.example.com".to_owned()),
            trusted_proxy: None,
        },
        ..GatewayLimits::default()
    };
    let known = Guarded::with(limits, no_audience);
    let token = known.token(json!({}), json!({})).await;
    assert_eq!(known.refusal(&token).await.0, 200);
    let (_, head, _) = known.governed.post(&[], call("list")).await;
    let challenge = head["www-authenticate"].to_str().unwrap();
    let url = "https://mcp.example.com/.well-known/oauth-protected-resource/payments/mcp";
    assert!(challenge.contains(url), "{challenge}");
}

#[tokio::test]
async fn a_token_may_come_in_a_header_of_its_own_and_that_goes_no_further_either() {
    let guarded = Guarded::with(GatewayLimits::default(), |document| {
        document["auth"]["token_header"] = json!("x-mcp-token");
    });
    let token = guarded.token(json!({}), json!({})).await;
    for value in [token.clone(), format!("Bearer {token}")] {
        let (status, _, body) = guarded.governed.post(&[("x-mcp-token", &value)], call("list")).await;
        assert_eq!((status, &body["result"]["headers"]["x-mcp-token"]), (200, &Value::Null));
    }
    let (status, _, body) = guarded.call(&format!("Bearer {token}")).await;
    assert_eq!((status, &body["error"]), (401, &json!("missing_bearer_token")));
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let guarded = Guarded::start();
    let token = guarded.token(json!({}), json!({})).await;
    let mut open = guarded.governed.setup.request(Method::GET, "");
    open.headers_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let response = guarded.governed.setup.send(open).await;
    assert_eq!(response.status(), 200);
    guarded.clock.advance(Duration::from_mins(12));
    // What wakes the stream is a change of the policy, since the test's clock wakes nobody.
    guarded.governed.apply(&document(guarded.provider.issuer()));
    let ended = soon("the end of the stream", whole(response)).await;
    assert_eq!(ended.body().as_ref(), b": open\n\n");
    let payload = guarded.governed.setup.event().await.payload;
    assert_eq!(payload.reason.as_deref(), Some("identity_expired"));
}

#[tokio::test]
async fn observing_lets_everybody_pass_and_records_who_was_not_proven() {
    let guarded = Guarded::with(GatewayLimits::default(), |document| {
        document["policy"]["mode"] = json!("observe");
    });
    assert_eq!(guarded.refusal("nonsense").await.0, 200);
    let payload = guarded.governed.setup.event().await.payload;
    assert_eq!(payload.attributes["identity_refused"], "invalid_token");
    assert_eq!(payload.decision, Some(Decision::Deny), "it would have been refused");
}
