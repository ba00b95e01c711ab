//! Who may do what: every route of the control half with every kind of caller. A route without a row fails.

use serde_json::{Value, json};

use crate::control::{PASSWORD, Platform, server};

/// The callers, in the order of the columns: nobody, an administrator, an owner of `acme`, a member of it (who published `payments`), an
/// owner of another team, a key of the member that may only read, a revoked key, a program's key for `acme`.
const CALLERS: usize = 8;

const FINISH: &str = r#"{"flow":"x","state":"x","code":"x","redirect_uri":"http://127.0.0.1/cb"}"#;

/// A route, its address, a body, and the status for each caller. `{…}` is filled in by `Stage::fill`.
pub(crate) const ROWS: &[(&str, &str, &str, [u16; CALLERS])] = &[
    (
        "POST /api/v1/auth/login",
        "",
        r#"{"email":"{n}@example.com","password":"x"}"#,
        [401; CALLERS],
    ),
    (
        "POST /api/v1/auth/signup",
        "",
        r#"{"email":"x@example.com","password":"correct horse battery"}"#,
        [403; CALLERS],
    ),
    ("POST /api/v1/auth/refresh", "", r#"{"refresh_token":"x"}"#, [401; CALLERS]),
    ("GET /api/v1/auth/methods", "", "", [200; CALLERS]),
    // No identity provider is set up here; `oidc.rs` has one.
    (
        "POST /api/v1/auth/oidc/start",
        "",
        r#"{"redirect_uri":"http://127.0.0.1/cb"}"#,
        [501; CALLERS],
    ),
    ("POST /api/v1/auth/oidc/finish", "", FINISH, [501; CALLERS]),
    (
        "POST /api/v1/auth/oidc/link",
        "",
        FINISH,
        [401, 501, 501, 501, 501, 403, 401, 501],
    ),
    ("POST /api/v1/auth/oidc/device", "", "", [501; CALLERS]),
    (
        "POST /api/v1/auth/oidc/device/poll",
        "",
        r#"{"device_code":"x"}"#,
        [501; CALLERS],
    ),
    ("POST /api/v1/auth/oidc", "", r#"{"id_token":"x"}"#, [501; CALLERS]),
    // Keys belong to no login, so they cannot end one.
    ("POST /api/v1/auth/logout", "", "", [401, 200, 200, 200, 200, 403, 401, 422]),
    (
        "POST /api/v1/auth/password",
        "",
        r#"{"current":"wrong wrong wrong","new":"another horse battery"}"#,
        [401, 403, 403, 403, 403, 403, 401, 403],
    ),
    ("GET /api/v1/auth/me", "", "", [401, 200, 200, 200, 200, 200, 401, 200]),
    ("GET /api/v1/user/logins", "", "", [401, 200, 200, 200, 200, 200, 401, 403]),
    (
        "DELETE /api/v1/user/logins/{id}",
        "/api/v1/user/logins/none",
        "",
        [401, 404, 404, 404, 404, 403, 401, 403],
    ),
    ("GET /api/v1/user/api-keys", "", "", [401, 200, 200, 200, 200, 200, 401, 403]),
    (
        "POST /api/v1/user/api-keys",
        "",
        r#"{"name":"x"}"#,
        [401, 201, 201, 201, 201, 403, 401, 403],
    ),
    (
        "DELETE /api/v1/user/api-keys/{id}",
        "/api/v1/user/api-keys/none",
        "",
        [401, 404, 404, 404, 404, 403, 401, 403],
    ),
    (
        "POST /api/v1/user/api-keys/{id}/revoke",
        "/api/v1/user/api-keys/none/revoke",
        "",
        [401, 404, 404, 404, 404, 403, 401, 403],
    ),
    (
        "GET /api/v1/user/registry-credentials",
        "",
        "",
        [401, 200, 200, 200, 200, 200, 401, 403],
    ),
    (
        "POST /api/v1/user/registry-credentials",
        "",
        r#"{"name":"x"}"#,
        [401, 201, 201, 201, 201, 403, 401, 403],
    ),
    (
        "DELETE /api/v1/user/registry-credentials/{id}",
        "/api/v1/user/registry-credentials/none",
        "",
        [401, 404, 404, 404, 404, 403, 401, 403],
    ),
    (
        "POST /api/v1/user/registry-credentials/{id}/revoke",
        "/api/v1/user/registry-credentials/none/revoke",
        "",
        [401, 404, 404, 404, 404, 403, 401, 403],
    ),
    ("GET /api/v1/service-keys", "", "", [401, 200, 403, 403, 403, 403, 401, 403]),
    (
        "POST /api/v1/service-keys",
        "",
        r#"{"name":"x","namespaces":["mcp-team-acme"]}"#,
        [401, 201, 403, 403, 403, 403, 401, 403],
    ),
    (
        "DELETE /api/v1/service-keys/{id}",
        "/api/v1/service-keys/none",
        "",
        [401, 404, 403, 403, 403, 403, 401, 403],
    ),
    ("GET /api/v1/users", "", "", [401, 200, 403, 403, 403, 403, 401, 403]),
    (
        "POST /api/v1/users",
        "",
        r#"{"email":"{n}@example.com","password":"correct horse battery"}"#,
        [401, 201, 403, 403, 403, 403, 401, 403],
    ),
    (
        "GET /api/v1/users/{id}",
        "/api/v1/users/eve@example.com",
        "",
        [401, 200, 403, 403, 403, 403, 401, 403],
    ),
    (
        "PATCH /api/v1/users/{id}",
        "/api/v1/users/eve@example.com",
        r#"{"role":"user"}"#,
        [401, 200, 403, 403, 403, 403, 401, 403],
    ),
    (
        "DELETE /api/v1/users/{id}",
        "/api/v1/users/none",
        "",
        [401, 404, 403, 403, 403, 403, 401, 403],
    ),
    ("GET /api/v1/invitations", "", "", [401, 200, 403, 403, 403, 403, 401, 403]),
    (
        "POST /api/v1/invitations",
        "",
        r#"{"email":"new@example.com"}"#,
        [401, 201, 403, 403, 403, 403, 401, 403],
    ),
    (
        "DELETE /api/v1/invitations/{id}",
        "/api/v1/invitations/none",
        "",
        [401, 404, 403, 403, 403, 403, 401, 403],
    ),
    ("GET /api/v1/runtime/teams", "", "", [401, 200, 200, 200, 200, 200, 401, 200]),
    (
        "POST /api/v1/runtime/teams",
        "",
        r#"{"slug":"team-{n}"}"#,
        [401, 201, 403, 403, 403, 403, 401, 403],
    ),
    (
        "GET /api/v1/runtime/teams/{slug}",
        "/api/v1/runtime/teams/acme",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "PATCH /api/v1/runtime/teams/{slug}",
        "/api/v1/runtime/teams/acme",
        r#"{"name":"Acme"}"#,
        [401, 200, 200, 403, 404, 403, 401, 200],
    ),
    // It still has a server.
    (
        "DELETE /api/v1/runtime/teams/{slug}",
        "/api/v1/runtime/teams/acme",
        "",
        [401, 409, 409, 403, 404, 403, 401, 409],
    ),
    (
        "GET /api/v1/runtime/teams/{slug}/members",
        "/api/v1/runtime/teams/acme/members",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/teams/{slug}/members",
        "/api/v1/runtime/teams/acme/members",
        r#"{"user":"bob@example.com"}"#,
        [401, 200, 200, 403, 404, 403, 401, 200],
    ),
    (
        "PUT /api/v1/runtime/teams/{slug}/members/{user}",
        "/api/v1/runtime/teams/acme/members/bob@example.com",
        r#"{"role":"member"}"#,
        [401, 200, 200, 403, 404, 403, 401, 200],
    ),
    // Eve is not in it, whoever asks.
    (
        "DELETE /api/v1/runtime/teams/{slug}/members/{user}",
        "/api/v1/runtime/teams/acme/members/eve@example.com",
        "",
        [401, 404, 404, 403, 404, 403, 401, 404],
    ),
    (
        "POST /api/v1/runtime/teams/{slug}/users",
        "/api/v1/runtime/teams/acme/users",
        r#"{"email":"bob@example.com"}"#,
        [401, 200, 200, 403, 404, 403, 401, 200],
    ),
    (
        "GET /api/v1/runtime/namespaces",
        "",
        "",
        [401, 200, 200, 200, 200, 200, 401, 200],
    ),
    (
        "GET /api/v1/runtime/namespaces/{name}",
        "/api/v1/runtime/namespaces/mcp-team-acme",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "GET /api/v1/runtime/servers",
        "/api/v1/runtime/servers?namespace=mcp-team-acme",
        "",
        [401, 200, 200, 200, 403, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/servers",
        "",
        "{server}",
        [401, 200, 200, 200, 403, 403, 401, 200],
    ),
    (
        "POST /api/runtime/servers",
        "",
        "{server}",
        [401, 200, 200, 200, 403, 403, 401, 200],
    ),
    (
        "GET /api/v1/runtime/servers/{namespace}/{name}",
        "{runtime}/servers/mcp-team-acme/payments",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "DELETE /api/v1/runtime/servers/{namespace}/{name}",
        "{runtime}/servers/mcp-team-acme/payments?dryRun=true",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "GET /api/v1/runtime/grants",
        "/api/v1/runtime/grants?namespace=mcp-team-acme",
        "",
        [401, 200, 200, 200, 403, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/grants",
        "",
        "{grant}",
        [401, 200, 200, 200, 422, 403, 401, 200],
    ),
    (
        "GET /api/v1/runtime/grants/{namespace}/{name}",
        "{runtime}/grants/mcp-team-acme/g",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "PATCH /api/v1/runtime/grants/{namespace}/{name}",
        "{runtime}/grants/mcp-team-acme/g",
        r#"{"disabled":false}"#,
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "DELETE /api/v1/runtime/grants/{namespace}/{name}",
        "{runtime}/grants/mcp-team-acme/g?dryRun=true",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "POST /api/v1/runtime/grants/{namespace}/{name}/enable",
        "{runtime}/grants/mcp-team-acme/g/enable",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "POST /api/v1/runtime/grants/{namespace}/{name}/disable",
        "{runtime}/grants/mcp-team-acme/g/disable",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "GET /api/v1/runtime/sessions",
        "/api/v1/runtime/sessions?namespace=mcp-team-acme",
        "",
        [401, 200, 200, 200, 403, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/sessions",
        "",
        "{session}",
        [401, 200, 403, 403, 403, 403, 401, 403],
    ),
    (
        "GET /api/v1/runtime/sessions/{namespace}/{name}",
        "{runtime}/sessions/mcp-team-acme/s",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "PATCH /api/v1/runtime/sessions/{namespace}/{name}",
        "{runtime}/sessions/mcp-team-acme/s",
        r#"{"revoked":false}"#,
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "DELETE /api/v1/runtime/sessions/{namespace}/{name}",
        "{runtime}/sessions/mcp-team-acme/s?dryRun=true",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "POST /api/v1/runtime/sessions/{namespace}/{name}/revoke",
        "{runtime}/sessions/mcp-team-acme/s/revoke",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "POST /api/v1/runtime/sessions/{namespace}/{name}/unrevoke",
        "{runtime}/sessions/mcp-team-acme/s/unrevoke",
        "",
        [401, 200, 200, 200, 404, 403, 401, 200],
    ),
    (
        "GET /api/v1/runtime/tools",
        "{runtime}/tools?namespace=mcp-team-acme",
        "",
        [401, 200, 200, 200, 403, 200, 401, 200],
    ),
    // Containers' tools bring a name and a password; `registry.rs` has them. Without a credential they are challenged.
    ("GET /api/v1/registry/token", "", "", [501; CALLERS]),
    ("GET /api/v1/registry/jwks", "", "", [501; CALLERS]),
    ("GET /api/v1/registry/authz", "", "", [401; CALLERS]),
    (
        "GET /api/v1/runtime/servers/{namespace}/{name}/policy",
        "{runtime}/servers/mcp-team-acme/payments/policy",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "GET /api/v1/runtime/policy",
        "{runtime}/policy?namespace=mcp-team-acme&server=payments",
        "",
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/policy/explain",
        "",
        r#"{"namespace":"mcp-team-acme","server":"payments","agent":"cursor","tool":"list_invoices"}"#,
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/policy/diff",
        "",
        r#"{"namespace":"mcp-team-acme","server":"payments","remove_grants":["g"]}"#,
        [401, 200, 200, 200, 404, 200, 401, 200],
    ),
    (
        "GET /api/v1/runtime/adapter/sessions",
        "",
        "",
        [401, 200, 200, 200, 200, 200, 401, 200],
    ),
    (
        "POST /api/v1/runtime/adapter/sessions",
        "",
        r#"{"serverName":"payments","namespace":"mcp-team-acme","agentID":"claude"}"#,
        [401, 201, 201, 201, 404, 403, 401, 201],
    ),
    (
        "POST /api/v1/runtime/adapter/sessions/{namespace}/{name}/refresh",
        "{runtime}/adapter/sessions/mcp-team-acme/none/refresh",
        "",
        [401, 404, 404, 404, 404, 403, 401, 404],
    ),
    (
        "DELETE /api/v1/runtime/adapter/sessions/{namespace}/{name}",
        "{runtime}/adapter/sessions/mcp-team-acme/none",
        "",
        [401, 404, 404, 404, 404, 403, 401, 404],
    ),
    (
        "GET /api/v1/runtime/adapter/anonymous/{name}",
        "{runtime}/adapter/anonymous/open",
        "",
        [200; CALLERS],
    ),
];

/// Everybody and everything the rows speak of.
struct Stage {
    platform: Platform,
    credentials: [Option<String>; CALLERS],
}

impl Stage {
    async fn new() -> Self {
        let platform = Platform::new().await;
        let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
        let bob = platform.person("bob@example.com", &[("acme", "member")]).await;
        let eve = platform.person("eve@example.com", &[("globex", "owner")]).await;
        let key = async |wish: Value| {
            let made = platform.done("POST", "/api/v1/user/api-keys", &bob, wish).await;
            (
                made["api_key"].as_str().unwrap().to_owned(),
                made["key"]["id"].as_str().unwrap().to_owned(),
            )
        };
        let (reading, _) = key(json!({"name": "reading", "rights": ["read"]})).await;
        let (revoked, id) = key(json!({"name": "revoked"})).await;
        platform
            .done("DELETE", &format!("/api/v1/user/api-keys/{id}"), &bob, Value::Null)
            .await;
        let wish = json!({"name": "ci", "namespaces": ["mcp-team-acme"]});
        let service = platform.done("POST", "/api/v1/service-keys", &platform.root, wish).await;
        platform
            .done("POST", "/api/v1/runtime/servers", &bob, server("payments"))
            .await;
        let open = json!({"name": "open", "scope": "public", "spec": {"image": "open"}});
        platform.done("POST", "/api/v1/runtime/servers", &platform.root, open).await;
        let mut other = grant();
        (other["name"], other["subject"]) = (json!("claude"), json!({"agentID": "claude"}));
        platform.done("POST", "/api/v1/runtime/grants", &bob, other).await;
        platform.done("POST", "/api/v1/runtime/grants", &bob, grant()).await;
        platform
            .done("POST", "/api/v1/runtime/sessions", &platform.root, session())
            .await;
        let service = service["api_key"].as_str().map(str::to_owned);
        let credentials = [
            None,
            Some(platform.root.clone()),
            Some(ada),
            Some(bob),
            Some(eve),
            Some(reading),
            Some(revoked),
            service,
        ];
        Self { platform, credentials }
    }

    fn fill(text: &str, number: usize) -> String {
        let mut published = server("payments");
        published["namespace"] = json!("mcp-team-acme");
        published["update"] = json!(true);
        text.replace("{runtime}", "/api/v1/runtime")
            .replace("{n}", &format!("n{number}"))
            .replace("{server}", &published.to_string())
            .replace("{grant}", &grant().to_string())
            .replace("{session}", &session().to_string())
    }

    /// The credential of a column. Logging out ends a login, so that row gets one of its own.
    async fn credential(&self, route: &str, column: usize) -> Option<String> {
        let people = [
            (1, "root@example.com"),
            (2, "ada@example.com"),
            (3, "bob@example.com"),
            (4, "eve@example.com"),
        ];
        match people.iter().find(|(at, _)| *at == column && route.ends_with("/auth/logout")) {
            Some((_, email)) => Some(self.platform.login(email).await),
            None => self.credentials[column].clone(),
        }
    }
}

fn grant() -> Value {
    json!({
        "name": "g", "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": {"agentID": "cursor"},
        "maxTrust": "low", "allowedSideEffects": ["read"],
    })
}

fn session() -> Value {
    json!({
        "name": "s", "namespace": "mcp-team-acme", "serverRef": {"name": "payments"}, "subject": {"agentID": "cursor"},
        "consentedTrust": "low",
    })
}

#[tokio::test]
async fn every_route_answers_every_kind_of_caller_as_listed() {
    assert_eq!(PASSWORD.len(), 21, "the bodies above hold it");
    let stage = Stage::new().await;
    let document = crate::described::document();
    let mut wrong = Vec::new();
    for (number, (route, uri, body, expected)) in ROWS.iter().enumerate() {
        let (method, path) = route.split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        for (column, expected) in expected.iter().enumerate() {
            let number = number * CALLERS + column;
            let uri = Stage::fill(if uri.is_empty() { path } else { uri }, number);
            let body: Value = if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&Stage::fill(body, number)).unwrap()
            };
            let credential = stage.credential(route, column).await;
            let response = stage.platform.send(method, &uri, credential.as_deref(), &body).await;
            let status = response.status();
            let answer = crate::world::json_body(response).await;
            if status != *expected {
                wrong.push(format!("{route} for caller {column}: expected {expected}: {answer}"));
            }
            let described = &operation["responses"][status.as_str()];
            let schema = if status.is_success() {
                &described["content"]["application/json"]["schema"]
            } else {
                &document["components"]["schemas"]["Problem"]
            };
            if described.is_null() {
                wrong.push(format!("{route}: {status} is not described"));
            } else if let Err(fault) = crate::described::fits(&document, schema, &answer, route) {
                wrong.push(fault);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
