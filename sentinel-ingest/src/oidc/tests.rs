//! Against a provider of our own: real HTTP, real RSA and EC keys.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Namespace;
use domain::event::NamespaceRule;
use http::StatusCode;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;

const NOW_SECONDS: i64 = 1_795_359_845;
const NOW: Timestamp = Timestamp::from_seconds(NOW_SECONDS);
/// Made for these tests, and of no use elsewhere.
const RSA: &[u8] = include_bytes!("fixtures/rsa.pem");
const EC: &[u8] = include_bytes!("fixtures/ec.pem");

#[derive(Clone, Default)]
struct Provider {
    address: Arc<Mutex<String>>,
    keys: Arc<Mutex<Vec<Jwk>>>,
    asked: Arc<AtomicUsize>,
    is_away: Arc<Mutex<bool>>,
}

impl Provider {
    async fn start(keys: Vec<Jwk>) -> Self {
        let provider = Self::default();
        *provider.keys.lock().unwrap() = keys;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        *provider.address.lock().unwrap() = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(published))
            .with_state(provider.clone());
        #[expect(clippy::disallowed_methods, reason = "a test's own server, gone with its runtime")]
        tokio::spawn(async move { axum::serve(listener, app).await });
        provider
    }

    fn issuer(&self) -> String {
        self.address.lock().unwrap().clone()
    }

    fn oidc(&self) -> Oidc {
        let args = OidcArgs {
            issuer: Some(self.issuer()),
            audience: Some("sentinel".to_owned()),
            namespaces_claim: "namespaces".to_owned(),
        };
        Oidc::from_args(&args).unwrap().unwrap()
    }

    fn claims(&self) -> Value {
        json!({"iss": self.issuer(), "aud": ["sentinel", "other"], "sub": "agent-7", "exp": NOW_SECONDS + 300, "namespaces": "acme"})
    }

    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn discovery(State(provider): State<Provider>) -> Result<Json<Value>, StatusCode> {
    if *provider.is_away.lock().unwrap() {
        return Err(StatusCode::BAD_GATEWAY);
    }
    let issuer = provider.issuer();
    Ok(Json(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})))
}

async fn published(State(provider): State<Provider>) -> Json<JwkSet> {
    provider.asked.fetch_add(1, Ordering::SeqCst);
    let keys = provider.keys.lock().unwrap().clone();
    Json(JwkSet { keys })
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA).unwrap()
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC).unwrap()
}

fn jwk(key: &EncodingKey, algorithm: Algorithm, kid: &str) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    jwk
}

fn both() -> Vec<Jwk> {
    vec![jwk(&rsa(), Algorithm::RS256, "r"), jwk(&ec(), Algorithm::ES256, "e")]
}

fn token(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let header = jsonwebtoken::Header {
        kid: kid.map(str::to_owned),
        ..jsonwebtoken::Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn signed(claims: &Value) -> String {
    token(Algorithm::ES256, Some("e"), &ec(), claims)
}

async fn verify(oidc: &Oidc, token: &str, seconds: u64) -> Result<Arc<Grant>, Refusal> {
    let after = Duration::from_secs(seconds);
    oidc.verify(token, NOW.plus(after), after).await
}

async fn fault(oidc: &Oidc, token: &str) -> TokenFault {
    match verify(oidc, token, 0).await {
        Err(Refusal::Token(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tokens_of_both_kinds_of_keys_grant_their_namespaces() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    let acme = Namespace::parse("acme").unwrap();
    for token in [
        signed(&provider.claims()),
        token(Algorithm::RS256, Some("r"), &rsa(), &provider.claims()),
        token(Algorithm::ES256, None, &ec(), &provider.claims_with("aud", json!("sentinel"))),
    ] {
        let grant = verify(&oidc, &token, 0).await.unwrap();
        assert_eq!(
            (grant.id.as_str(), &grant.rule),
            ("oidc:agent-7", &NamespaceRule::Only(acme.clone(), None))
        );
    }
    let several = signed(&provider.claims_with("namespaces", json!(["beta", "acme"])));
    let beta = Namespace::parse("beta").unwrap();
    assert_eq!(
        verify(&oidc, &several, 0).await.unwrap().rule,
        NamespaceRule::OneOf([acme, beta].into())
    );
    let all = signed(&provider.claims_with("namespaces", json!("*")));
    assert_eq!(verify(&oidc, &all, 0).await.unwrap().rule, NamespaceRule::Any);
    assert_eq!(provider.asked(), 1, "the keys are fetched once");
}

#[tokio::test]
async fn each_claim_that_is_wrong_or_missing_refuses() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    for (claim, value, expected) in [
        ("iss", json!("https://evil.example"), TokenFault::Issuer),
        ("iss", json!([provider.issuer()]), TokenFault::Issuer),
        ("iss", Value::Null, TokenFault::Issuer),
        ("aud", json!("other"), TokenFault::Audience),
        ("aud", json!([]), TokenFault::Audience),
        ("aud", json!(["sentinel", 7]), TokenFault::Audience),
        ("aud", Value::Null, TokenFault::Audience),
        ("exp", json!(NOW_SECONDS - 31), TokenFault::Expired),
        ("exp", Value::Null, TokenFault::NoExpiry),
        ("exp", json!("tomorrow"), TokenFault::NoExpiry),
        ("exp", json!(1e300), TokenFault::NoExpiry),
        ("exp", json!(-1), TokenFault::NoExpiry),
        ("nbf", json!(NOW_SECONDS + 31), TokenFault::NotYet),
        ("nbf", json!("now"), TokenFault::NotYet),
        ("namespaces", Value::Null, TokenFault::Namespaces),
        ("namespaces", json!([]), TokenFault::Namespaces),
        ("namespaces", json!(["acme", "Not A Label"]), TokenFault::Namespaces),
        ("namespaces", json!(["acme", "*"]), TokenFault::Namespaces),
        ("namespaces", json!({"acme": true}), TokenFault::Namespaces),
    ] {
        let token = signed(&provider.claims_with(claim, value.clone()));
        assert_eq!(fault(&oidc, &token).await, expected, "{claim}: {value}");
    }
    let soon = signed(&provider.claims_with("nbf", json!(NOW_SECONDS + 20)));
    assert!(verify(&oidc, &soon, 0).await.is_ok(), "clocks may be apart");
}

#[tokio::test]
async fn no_token_chooses_how_it_is_verified() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(&json!({"alg": "none", "kid": "e"})), part(&provider.claims()));
    assert_eq!(fault(&oidc, &none).await, TokenFault::Form);
    // The published key as if it were a shared secret.
    let public = serde_json::to_vec(&both()[0]).unwrap();
    let confused = token(
        Algorithm::HS256,
        Some("r"),
        &EncodingKey::from_secret(&public),
        &provider.claims(),
    );
    assert_eq!(fault(&oidc, &confused).await, TokenFault::Algorithm);
    let other_kind = token(Algorithm::RS256, Some("e"), &rsa(), &provider.claims());
    assert_eq!(fault(&oidc, &other_kind).await, TokenFault::Key);
    let other_algorithm = token(Algorithm::PS256, Some("r"), &rsa(), &provider.claims());
    assert_eq!(fault(&oidc, &other_algorithm).await, TokenFault::Key, "the set says RS256");
    let good = signed(&provider.claims());
    let (head, _) = good.rsplit_once('.').unwrap();
    let (_, other_signature) = signed(&provider.claims_with("sub", json!("x")))
        .rsplit_once('.')
        .map(|(head, tail)| (head.to_owned(), tail.to_owned()))
        .unwrap();
    assert_eq!(
        fault(&oidc, &format!("{head}.{other_signature}")).await,
        TokenFault::Signature
    );
    for broken in ["a.b.c", "..", "a.b", &format!("{head}.!!"), &"x.".repeat(20_000)] {
        let fault = fault(&oidc, broken).await;
        assert!(matches!(fault, TokenFault::Form | TokenFault::Signature), "{fault:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_new_is_fetched_once_by_all_who_need_it() {
    let provider = Provider::start(vec![jwk(&rsa(), Algorithm::RS256, "r")]).await;
    let oidc = provider.oidc();
    let new = signed(&provider.claims());
    assert_eq!(fault(&oidc, &new).await, TokenFault::Key);
    assert_eq!(provider.asked(), 1);
    *provider.keys.lock().unwrap() = both();
    assert!(matches!(verify(&oidc, &new, 1).await, Err(Refusal::Token(TokenFault::Key))));
    assert_eq!(provider.asked(), 1, "unknown keys are not asked for without pause");
    let all = futures::future::join_all((0..20).map(|_| verify(&oidc, &new, 6))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(provider.asked(), 2, "one fetch for all");
}

#[tokio::test]
async fn while_the_provider_is_away_its_last_keys_serve() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    *provider.is_away.lock().unwrap() = true;
    let token = |name: &str| {
        signed(
            &provider
                .claims_with("exp", json!(NOW_SECONDS + 200_000))
                .as_object_mut()
                .map(|claims| {
                    claims.insert("sub".to_owned(), json!(name));
                    Value::Object(claims.clone())
                })
                .unwrap(),
        )
    };
    assert!(
        matches!(verify(&oidc, &token("a"), 0).await, Err(Refusal::Provider(_))),
        "nothing is open by accident"
    );
    assert!(matches!(verify(&oidc, &token("a"), 1).await, Err(Refusal::NotYet)));
    *provider.is_away.lock().unwrap() = false;
    assert!(verify(&oidc, &token("a"), 6).await.is_ok());
    *provider.is_away.lock().unwrap() = true;
    assert!(verify(&oidc, &token("b"), 3_600).await.is_ok());
    assert!(verify(&oidc, &token("c"), 86_400).await.is_ok());
    assert!(verify(&oidc, &token("d"), 86_500).await.is_err(), "not for ever");
}

#[tokio::test]
async fn a_token_that_was_good_is_not_good_after_its_end_or_its_keys() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    let token = signed(&provider.claims());
    assert!(verify(&oidc, &token, 0).await.is_ok());
    assert!(verify(&oidc, &token, 329).await.is_ok());
    assert!(matches!(
        verify(&oidc, &token, 331).await,
        Err(Refusal::Token(TokenFault::Expired))
    ));
}

#[test]
fn issuers_that_anyone_on_the_way_could_play_are_refused() {
    let with = |issuer: &str, audience: &str| {
        Oidc::from_args(&OidcArgs {
            issuer: Some(issuer.to_owned()),
            audience: Some(audience.to_owned()),
            namespaces_claim: "namespaces".to_owned(),
        })
    };
    for issuer in [
        "http://id.example.com",
        "ftp://localhost",
        "id.example.com",
        "",
        "http://127.0.0.1.evil.example",
    ] {
        assert_eq!(with(issuer, "a").unwrap_err(), OidcError::Issuer(issuer.to_owned()));
    }
    assert_eq!(with("https://id.example.com", " ").unwrap_err(), OidcError::Audience);
    assert!(with("https://id.example.com/realms/mcp/", "a").is_ok());
    assert!(Oidc::from_args(&OidcArgs::default()).unwrap().is_none());
}
