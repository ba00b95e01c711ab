use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use service_kit::Running;

use super::*;
use crate::config::Config;
use crate::session::{Session, SessionError, SessionSource, Sessions, secret};

struct Source(reqwest::Url);

impl SessionSource for Source {
    fn issue<'a>(&'a self, _last: Option<&'a Session>) -> BoxFuture<'a, Result<Session, SessionError>> {
        let headers = [("x-mcp-agent-id", "cursor"), ("x-mcp-agent-session", "mcpa_1")];
        let headers = headers.map(|(name, text)| (HeaderName::from_static(name), secret(text).unwrap()));
        Box::pin(async move {
            Ok(Session {
                endpoint: self.0.clone(),
                name: "s".to_owned(),
                headers: headers.into_iter().collect(),
                expires_at: None,
            })
        })
    }

    fn end<'a>(&'a self, _session: &'a Session) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// A server that answers with the headers it saw, behind a proxy.
async fn start(endpoint: Option<&str>) -> (String, Running) {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let echo = Router::new().fallback(async |headers: HeaderMap| {
        let told = headers
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or("?"))));
        axum::Json(Value::Object(told.collect()))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = service_kit::http::serve("echo", listener, echo, HttpLimits::default(), &tasks, Stage::Admin).unwrap();
    let endpoint = endpoint.map_or_else(|| format!("http://{server}/mcp"), str::to_owned);
    let sessions = Sessions::new(Source(endpoint.parse().unwrap()), true, &tasks);
    let config = Config {
        reconnect_max: Duration::ZERO,
        ..Config::default()
    };
    let upstream = Upstream::new(sessions, config, &tasks).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = serve(upstream, ProxyConfig::default(), listener, &tasks).unwrap();
    (format!("http://{address}/mcp"), running)
}

#[tokio::test]
async fn what_clients_say_about_themselves_gives_way_to_the_session() {
    let (url, running) = start(None).await;
    let request = reqwest::Client::new()
        .post(&url)
        .header("x-mcp-agent-id", "root")
        .header("authorization", "Bearer x");
    let request = request.header("x-mcp-human-id", "eve").header("mcp-session-id", "s-1");
    let seen: Value = request
        .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&seen["x-mcp-agent-id"], &seen["x-mcp-agent-session"]),
        (&"cursor".into(), &"mcpa_1".into())
    );
    assert_eq!(
        (&seen["mcp-session-id"], &seen["authorization"], &seen["x-mcp-human-id"]),
        (&"s-1".into(), &Value::Null, &Value::Null)
    );
    assert!(running.stop().await.is_clean());
}

#[tokio::test]
async fn pages_of_other_places_and_foreign_names_are_kept_out() {
    let (url, running) = start(None).await;
    let client = reqwest::Client::new();
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("host", "evil.example", 421),
        ("origin", "http://localhost:6274", 200),
    ] {
        let answer = client.post(&url).header(name, value).body("{}").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name}: {value}");
    }
    let found = client
        .get(url.replace("/mcp", "/.well-known/oauth-protected-resource"))
        .send()
        .await
        .unwrap();
    assert_eq!(found.status(), 404);
    assert!(running.stop().await.is_clean());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_under_the_id_of_the_request() {
    let (url, running) = start(Some("http://127.0.0.1:1/mcp")).await;
    let request = reqwest::Client::new()
        .post(&url)
        .body(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call"}"#);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let told: Value = answer.json().await.unwrap();
    assert_eq!(
        (&told["id"], &told["error"]["data"]["reason"]),
        (&"a".into(), &"unreachable".into())
    );
    assert!(running.stop().await.is_clean());
}
