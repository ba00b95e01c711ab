//! Pulling and pushing images: who may, by token and by a proxy.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Request;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use platform_api::{ControlConfig, RegistryTokens};
use serde_json::{Value, json};

use crate::control::{PASSWORD, Platform, server};
use crate::world::json_body;

fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

/// A request as container tools send it: status, whether it was challenged, and the answer.
async fn ask(
    platform: &Platform,
    uri: &str,
    authorization: Option<&str>,
    forwarded: Option<(&str, &str)>,
) -> (u16, bool, Value) {
    let mut request = Request::get(uri).header("host", "localhost");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    if let Some((method, uri)) = forwarded {
        request = request.header("x-forwarded-method", method).header("x-forwarded-uri", uri);
    }
    let response = platform.world.send(request.body(axum::body::Body::empty()).unwrap()).await;
    let is_challenged = response.headers().contains_key("www-authenticate");
    let status = response.status().as_u16();
    let answer = if status == 204 {
        Value::Null
    } else {
        json_body(response).await
    };
    (status, is_challenged, answer)
}

#[tokio::test]
async fn a_token_gives_what_its_holder_may_do_and_no_more() {
    let keys = tempfile::tempdir().unwrap();
    let path = keys.path().join("registry.pem");
    let tokens = RegistryTokens::open(&path, "mcp-runtime", "registry.example.com").unwrap();
    let again = RegistryTokens::open(&path, "mcp-runtime", "registry.example.com").unwrap();
    assert_eq!(tokens.jwks(), again.jwks(), "the key is kept");
    let config = ControlConfig {
        registry_tokens: Some(tokens),
        ..ControlConfig::default()
    };
    let platform = Platform::with(config).await;
    let ada = platform.person("ada@example.com", &[("acme", "member")]).await;
    platform.person("eve@example.com", &[("globex", "member")]).await;
    let wish = json!({"name": "laptop"});
    let made = platform.done("POST", "/api/v1/user/registry-credentials", &ada, wish).await;
    let secret = made["password"].as_str().unwrap();
    let (_, _, jwks) = ask(&platform, "/api/v1/registry/jwks", None, None).await;
    let jwks: JwkSet = serde_json::from_value(jwks).unwrap();
    let claims = async |authorization: &str, scopes: &[&str]| -> Value {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("service", "registry.example.com");
        query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
        let uri = format!("/api/v1/registry/token?{}", query.finish());
        let (status, _, answer) = ask(&platform, &uri, Some(authorization), None).await;
        assert_eq!(status, 200, "{answer}");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["registry.example.com"]);
        validation.set_issuer(&["mcp-runtime"]);
        let key = DecodingKey::from_jwk(jwks.keys.first().unwrap()).unwrap();
        let token = jsonwebtoken::decode::<Value>(answer["token"].as_str().unwrap(), &key, &validation).unwrap();
        assert_eq!(token.header.kid, jwks.keys[0].common.key_id);
        token.claims
    };
    let both = [
        "repository:acme/payments:pull,push",
        "repository:globex/x:pull",
        "registry:catalog:*",
    ];
    let given = claims(&basic("ada@example.com", secret), &both).await;
    assert_eq!(given["access"][0]["actions"], json!(["pull", "push"]));
    assert_eq!(given["access"][1]["actions"], json!([]));
    assert_eq!(
        (given["access"].as_array().unwrap().len(), &given["sub"]),
        (2, &json!("ada@example.com"))
    );
    let given = claims(&basic("eve@example.com", PASSWORD), &both).await;
    assert_eq!(
        (&given["access"][0]["actions"], &given["access"][1]["actions"]),
        (&json!([]), &json!(["pull"]))
    );
    let root = claims(&basic("root@example.com", PASSWORD), &["registry:catalog:*"]).await;
    assert_eq!(root["access"][0]["actions"], json!(["*"]));
    // Somebody else's name, a wrong password, none at all: challenged, and told nothing.
    for authorization in [
        Some(basic("eve@example.com", secret)),
        Some(basic("ada@example.com", "wrong wrong wrong")),
        Some("Basic !".to_owned()),
        None,
    ] {
        let (status, is_challenged, _) = ask(&platform, "/api/v1/registry/token", authorization.as_deref(), None).await;
        assert_eq!((status, is_challenged), (401, true), "{authorization:?}");
    }
    let body: Vec<_> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    assert!(!format!("{:?}", RegistryTokens::open(&path, "a", "b").unwrap()).contains(&body[1]));
    assert!(URL_SAFE_NO_PAD.decode(jwks.keys[0].common.key_id.as_ref().unwrap()).is_ok());
}

#[tokio::test]
async fn a_proxy_lets_pass_what_the_caller_may_do() {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    platform.person("bob@example.com", &[("acme", "member")]).await;
    platform.person("eve@example.com", &[("globex", "member")]).await;
    for scope in ["tenant", "org"] {
        let mut published = server(&format!("{scope}-server"));
        published["scope"] = json!(scope);
        platform.done("POST", "/api/v1/runtime/servers", &ada, published).await;
    }
    let wish = json!({"name": "puller", "rights": ["pull"], "namespaces": ["mcp-team-acme"]});
    let puller = platform.done("POST", "/api/v1/service-keys", &platform.root, wish).await;
    let puller = basic("any", puller["api_key"].as_str().unwrap());
    let of = |name: &str| basic(&format!("{name}@example.com"), PASSWORD);
    for (authorization, method, uri, expected) in [
        (of("eve"), "GET", "/v2/", 204),
        (of("eve"), "GET", "/v2/acme/x/manifests/v1", 403),
        (of("bob"), "GET", "/v2/acme/tenant-server/manifests/v1", 204),
        // A member pushes a new image, and not over the server of a teammate; an owner does.
        (of("bob"), "PUT", "/v2/acme/new/manifests/v1", 204),
        (of("bob"), "PUT", "/v2/acme/tenant-server/manifests/v1", 403),
        (of("ada"), "PUT", "/v2/mcp-team-acme/tenant-server/manifests/v1", 204),
        // Everybody pulls from the catalogue; what is published there is not overwritten by others.
        (of("eve"), "GET", "/v2/org/org-server/manifests/v1", 204),
        (of("eve"), "PUT", "/v2/org/org-server/manifests/v1", 403),
        (of("ada"), "PUT", "/v2/org/org-server/manifests/v1", 204),
        (of("bob"), "DELETE", "/v2/acme/new/manifests/v1", 403),
        (of("ada"), "DELETE", "/v2/acme/new/manifests/v1", 204),
        // A blob is mounted only from where one may pull.
        (
            of("bob"),
            "POST",
            "/v2/acme/new/blobs/uploads/?mount=sha256:1&from=globex/y",
            403,
        ),
        (
            of("bob"),
            "POST",
            "/v2/acme/new/blobs/uploads/?mount=sha256:1&from=acme/y",
            204,
        ),
        (of("bob"), "GET", "/v2/_catalog", 403),
        (of("root"), "GET", "/v2/_catalog", 204),
        (puller.clone(), "GET", "/v2/acme/x/manifests/v1", 204),
        (puller.clone(), "PUT", "/v2/acme/x/manifests/v1", 403),
        (puller, "GET", "/v2/org/org-server/manifests/v1", 403),
        (of("bob"), "GET", "/api/v1/users", 403),
    ] {
        let (status, is_challenged, answer) =
            ask(&platform, "/api/v1/registry/authz", Some(&authorization), Some((method, uri))).await;
        assert_eq!((status, is_challenged), (expected, false), "{method} {uri}: {answer}");
    }
    let (status, is_challenged, _) = ask(&platform, "/api/v1/registry/authz", None, Some(("GET", "/v2/"))).await;
    assert_eq!((status, is_challenged), (401, true));
}
