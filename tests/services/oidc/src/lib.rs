//! A real `OpenID` provider for tests, the npm package `oidc-provider`. `oidc.mjs` beside this crate describes its clients (`service`, `web`,
//! `cli`), its accounts and its controls, and works by hand as well.
//!
//! ```no_run
//! # async fn example() {
//! let provider = oidc_service::Provider::start();
//! // A service's JWT access token for one resource:
//! let token = provider.service_token("https://gateway.example/mcp", "tools:read").await;
//! // A person at the device page (after POST /device/auth), and one in the browser (with a URL of /auth):
//! provider.approve("ABCD-EFGH", "alice").await;
//! let redirect = provider.log_in(&format!("{}/auth?client_id=web&…&login_hint=alice", provider.issuer())).await;
//! # }
//! ```
#![expect(
    clippy::panic,
    reason = "only tests use this crate, and a test without its provider ends here"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/oidc.sh");
/// Redirects of one login: to the login, back, to the consent, back, and away.
const REDIRECTS_MAX: usize = 10;

/// A provider of one's own. It ends with this value, and with this process.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    script: Child,
    client: Client,
}

impl Provider {
    /// Starts a provider on a free port and waits until it listens.
    pub fn start() -> Self {
        let mut script = Command::new(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("running oidc.sh");
        let mut line = String::new();
        let output = script.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line of oidc.sh");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("oidc.sh said `{line}`: {error}"));
        Self {
            issuer: said["issuer"].as_str().expect("an issuer").to_owned(),
            script,
            client: Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .build()
                .expect("an HTTP client"),
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A JWT access token of the client `service`, whose audience is `resource`.
    pub async fn service_token(&self, resource: &str, scope: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "service"),
            ("client_secret", "service-secret"),
            ("resource", resource),
            ("scope", scope),
        ];
        let answer = self.post_form("/token", &form).await;
        let token = answer["access_token"].as_str();
        token.unwrap_or_else(|| panic!("no token in {answer}")).to_owned()
    }

    /// Posts a form to a path of the provider, such as `/token` or `/device/auth`, and reads the JSON answer whatever its status.
    pub async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.post(format!("{}{path}", self.issuer)).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.send().await.expect("an answer of the provider");
        answer.json().await.expect("JSON of the provider")
    }

    /// Logs in and consents as a browser would, and gives back where the provider sends it in the end, with `code` and `state`.
    pub async fn log_in(&self, authorization_url: &str) -> String {
        let mut cookies: Vec<(String, String)> = Vec::new();
        let mut url = authorization_url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = self.client.get(&url).header(COOKIE, pairs.join("; "));
            let answer = request.send().await.expect("an answer of the provider");
            for cookie in answer.headers().get_all(SET_COOKIE) {
                let pair = cookie
                    .to_str()
                    .ok()
                    .and_then(|text| text.split(';').next())
                    .unwrap_or_default();
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                cookies.retain(|(known, _)| known != name);
                cookies.push((name.to_owned(), value.to_owned()));
            }
            let Some(location) = answer.headers().get(LOCATION) else {
                panic!("{url} answered {} instead of going on", answer.status());
            };
            let location = location.to_str().expect("a location in ASCII");
            url = match location.strip_prefix('/') {
                Some(path) => format!("{}/{path}", self.issuer),
                None => location.to_owned(),
            };
            if !url.starts_with(&self.issuer) {
                return url;
            }
        }
        panic!("the login does not end; it is at {url}")
    }

    /// Lets a device in, as the account.
    pub async fn approve(&self, user_code: &str, account: &str) {
        self.control("approve", json!({"user_code": user_code, "account": account}))
            .await;
    }

    /// Refuses a device.
    pub async fn deny(&self, user_code: &str) {
        self.control("approve", json!({"user_code": user_code, "deny": true})).await;
    }

    /// Claims that every JWT access token carries from now on.
    pub async fn set_token_claims(&self, claims: Value) {
        self.control("claims", claims).await;
    }

    /// Who approves logins by default from now on, and what its identity token says besides.
    pub async fn set_account(&self, account: &str, claims: Value) {
        self.control("account", json!({"account": account, "claims": claims})).await;
    }

    /// Signs with new keys from now on, and publishes them alone.
    pub async fn rotate(&self) {
        self.control("rotate", json!({})).await;
    }

    /// Drops every connection, or answers again.
    pub async fn set_away(&self, is_away: bool) {
        self.control("away", json!({"away": is_away})).await;
    }

    /// Any token, signed by the provider's key of the kind that the header's `alg` names; members that are `null` are left out.
    pub async fn sign(&self, header: Value, claims: Value) -> String {
        self.signed("current", header, claims).await
    }

    /// The same, under the key id of the provider but by a key that is not its own.
    pub async fn sign_as_stranger(&self, header: Value, claims: Value) -> String {
        self.signed("stranger", header, claims).await
    }

    /// How often the path was asked: `discovery`, `jwks`, `token`, …
    pub async fn count(&self, path: &str) -> u64 {
        self.control("counts", json!({})).await[path].as_u64().unwrap_or_default()
    }

    async fn signed(&self, key: &str, header: Value, claims: Value) -> String {
        let asked = json!({"key": key, "header": header, "claims": claims});
        let answer = self.control("sign", asked).await;
        answer["token"].as_str().expect("a token").to_owned()
    }

    async fn control(&self, name: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}/test/{name}", self.issuer)).json(&body);
        let answer = request.send().await.expect("an answer of the provider's controls");
        let status = answer.status();
        let answer: Value = answer.json().await.expect("JSON of the provider's controls");
        assert_eq!(status, StatusCode::OK, "{name} {body}: {answer}");
        answer
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _gone = self.script.wait();
    }
}
