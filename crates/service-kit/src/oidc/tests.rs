//! Against a provider of our own: real HTTP, real RSA and EC keys.

use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::StatusCode;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;

const NOW_SECONDS: i64 = 1_795_359_845;
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

    fn oidc(&self) -> Issuer {
        Issuer::new(&self.issuer()).unwrap()
    }

    fn claims(&self) -> Value {
        json!({"iss": self.issuer(), "aud": ["sentinel", "other"], "sub": "agent-7", "exp": NOW_SECONDS + 300})
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

async fn verify(oidc: &Issuer, token: &str, seconds: u64) -> Result<Arc<Token>, Refusal> {
    let now = Moment {
        unix_ns: (NOW_SECONDS + i64::try_from(seconds).unwrap()) * 1_000_000_000,
        monotonic: Duration::from_secs(seconds),
    };
    oidc.verify(token, &["sentinel", "elsewhere"], now).await
}

async fn fault(oidc: &Issuer, token: &str) -> TokenFault {
    match verify(oidc, token, 0).await {
        Err(Refusal::Token(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tokens_of_both_kinds_of_keys_are_taken() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    for token in [
        signed(&provider.claims()),
        token(Algorithm::RS256, Some("r"), &rsa(), &provider.claims()),
        token(Algorithm::ES256, None, &ec(), &provider.claims_with("aud", json!("sentinel"))),
    ] {
        assert_eq!(verify(&oidc, &token, 0).await.unwrap().subject(), "agent-7");
    }
    let token = signed(&provider.claims_with("groups", json!(["b", "a"])));
    let token = verify(&oidc, &token, 0).await.unwrap();
    assert_eq!((token.texts("groups"), token.text("groups")), (vec!["b", "a"], None));
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
        ("exp", json!(NOW_SECONDS - 61), TokenFault::Expired),
        ("exp", Value::Null, TokenFault::NoExpiry),
        ("exp", json!("tomorrow"), TokenFault::NoExpiry),
        ("exp", json!(1e300), TokenFault::NoExpiry),
        ("exp", json!(-1), TokenFault::NoExpiry),
        ("nbf", json!(NOW_SECONDS + 61), TokenFault::NotYet),
        ("nbf", json!("now"), TokenFault::NotYet),
    ] {
        let token = signed(&provider.claims_with(claim, value.clone()));
        assert_eq!(fault(&oidc, &token).await, expected, "{claim}: {value}");
    }
    let soon = signed(&provider.claims_with("nbf", json!(NOW_SECONDS + 50)));
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
    assert!(verify(&oidc, &token, 359).await.is_ok());
    assert!(matches!(
        verify(&oidc, &token, 361).await,
        Err(Refusal::Token(TokenFault::Expired))
    ));
}

#[tokio::test]
async fn a_key_that_was_withdrawn_takes_its_tokens_with_it() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    let old = signed(&provider.claims_with("exp", json!(NOW_SECONDS + 10_000)));
    assert!(verify(&oidc, &old, 0).await.is_ok());
    *provider.keys.lock().unwrap() = vec![jwk(&rsa(), Algorithm::RS256, "r")];
    assert!(verify(&oidc, &old, 599).await.is_ok(), "keys are fresh for ten minutes");
    assert!(
        verify(&oidc, &old, 601).await.is_ok(),
        "nobody waits while they are asked for again"
    );
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while verify(&oidc, &old, 602).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the key is still taken");
        tokio::task::yield_now().await;
    }
    assert_eq!(fault(&oidc, &old).await, TokenFault::Key);
}

#[tokio::test]
async fn what_the_head_of_a_token_asks_for_beyond_us_is_refused() {
    let provider = Provider::start(both()).await;
    let oidc = provider.oidc();
    let with = |change: &dyn Fn(&mut jsonwebtoken::Header)| {
        let mut header = jsonwebtoken::Header::new(Algorithm::ES256);
        header.kid = Some("e".to_owned());
        change(&mut header);
        jsonwebtoken::encode(&header, &provider.claims(), &ec()).unwrap()
    };
    let typed = |typ: &str| with(&|header| header.typ = Some(typ.to_owned()));
    for typ in ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"] {
        assert!(verify(&oidc, &typed(typ), 0).await.is_ok(), "{typ}");
    }
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "application/", ""] {
        assert_eq!(fault(&oidc, &typed(typ)).await, TokenFault::Type, "{typ}");
    }
    let critical = with(&|header| header.crit = Some(vec!["b64".to_owned()]));
    assert_eq!(fault(&oidc, &critical).await, TokenFault::Form);
}

#[test]
fn documents_are_looked_for_where_both_standards_put_them() {
    let places = |issuer: &str| {
        let places = fetch::places(issuer, &issuer.parse().unwrap());
        places.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        places("https://id.example/realms/a/"),
        [
            "https://id.example/realms/a/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server/realms/a",
            "https://id.example/.well-known/openid-configuration/realms/a",
        ]
    );
    assert_eq!(
        places("https://id.example"),
        [
            "https://id.example/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server",
        ]
    );
}

#[test]
fn issuers_that_anyone_on_the_way_could_play_are_refused() {
    for issuer in [
        "http://id.example.com",
        "ftp://localhost",
        "id.example.com",
        "",
        "https://id.example.com?tenant=1",
        "http://127.0.0.1.evil.example",
    ] {
        assert_eq!(Issuer::new(issuer).unwrap_err(), IssuerFault(issuer.to_owned()));
    }
    assert!(Issuer::new("https://id.example.com/realms/mcp/").is_ok());
}
