//! A policy from the operator: in force as soon as it changes, acknowledged by the next request, never taken back by an older file.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use gateway::{PolicyCell, PolicyConfig, PolicyStreamConfig, watch_policy};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use service_kit::{Running, Tasks};
use tokio::sync::watch;

use crate::governed::{document, parsed};
use crate::support::{Body, answer, full, until, upstream};

/// An operator that hands out what it is told to.
#[derive(Clone)]
struct Operator {
    /// `None`: it answers 503.
    holds: Arc<watch::Sender<Option<Value>>>,
    /// What was asked: the revision in force, and the credential shown.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Operator {
    fn new(holds: Option<Value>) -> Self {
        Self {
            holds: Arc::new(watch::Sender::new(holds)),
            asked: Arc::default(),
        }
    }

    fn start(&self, tasks: &Tasks) -> PolicyStreamConfig {
        let operator = self.clone();
        let address = upstream(tasks, move |request| {
            let operator = operator.clone();
            async move { operator.answer(&request).await }.boxed()
        });
        PolicyStreamConfig {
            url: format!("http://{address}/policies/acme/payments").parse().unwrap(),
            token: None,
            authorities: None,
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let header = |name: &str| {
            let value = request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        let runs = header("if-none-match").trim_matches('"').to_owned();
        self.asked.lock().unwrap().push((runs.clone(), header("authorization")));
        let mut holds = self.holds.subscribe();
        let other = holds.wait_for(|holds| holds.as_ref().is_none_or(|holds| *parsed(holds).revision != *runs));
        match tokio::time::timeout(Duration::from_secs(5), other).await {
            Ok(holds) => match &*holds.unwrap() {
                Some(document) => answer(200, "application/json", document.to_string()),
                None => answer(503, "text/plain", "another operator answers"),
            },
            Err(_elapsed) => Response::builder().status(304).body(full("")).unwrap(),
        }
    }

    /// The last revision that was acknowledged, and the credential that was shown.
    fn last(&self) -> (String, String) {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// A policy made at a second of that hour.
fn made(second: u32, change: impl FnOnce(&mut Value)) -> Value {
    let mut document = document();
    document["generated_at"] = json!(format!("2026-11-22T00:00:{second:02}Z"));
    change(&mut document);
    document
}

fn revision(document: &Value) -> String {
    parsed(document).revision
}

async fn until_in_force(cell: &PolicyCell, document: &Value) {
    let wanted = revision(document);
    until("the policy", || {
        let policy = cell.current();
        if policy.revision() == wanted {
            Ok(())
        } else {
            Err(format!("{} {:?}", policy.revision(), policy.size()))
        }
    })
    .await;
}

async fn follow(operator: &Operator, file: Option<&Path>, running: &Running) -> PolicyCell {
    let tasks = running.tasks();
    let cell = PolicyCell::default();
    let config = PolicyConfig {
        file: file.map(Path::to_owned),
        stream: Some(operator.start(&tasks)),
        age_max: None,
    };
    watch_policy(config, cell.clone(), &tasks).await;
    cell
}

#[tokio::test]
async fn a_changed_policy_is_in_force_at_once_and_the_next_request_says_so() {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let first = made(1, |_| {});
    let operator = Operator::new(Some(first.clone()));
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "one\n").unwrap();
    let cell = PolicyCell::default();
    let config = PolicyConfig {
        file: None,
        stream: Some(PolicyStreamConfig {
            token: Some(token.path().to_owned()),
            ..operator.start(&tasks)
        }),
        age_max: None,
    };
    watch_policy(config, cell.clone(), &tasks).await;
    until_in_force(&cell, &first).await;
    let acknowledged = |document: &Value, token: &str| (revision(document), format!("Bearer {token}"));
    until("the first to be acknowledged", || {
        let last = operator.last();
        if last == acknowledged(&first, "one") {
            Ok(())
        } else {
            Err(format!("{last:?}"))
        }
    })
    .await;
    // The token is replaced while a request waits; the next one shows the new one.
    std::fs::write(token.path(), "two").unwrap();
    let second = made(2, |document| document["grants"] = json!([]));
    operator.holds.send_replace(Some(second.clone()));
    until_in_force(&cell, &second).await;
    until("the second to be acknowledged", || {
        let last = operator.last();
        if last == acknowledged(&second, "two") {
            Ok(())
        } else {
            Err(format!("{last:?}"))
        }
    })
    .await;
    drop(running);
}

#[tokio::test]
async fn an_older_file_takes_nothing_back_and_a_revoked_session_stays_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let old = made(1, |_| {});
    std::fs::write(&path, old.to_string()).unwrap();
    let running = Tasks::for_test();
    let newest = made(9, |document| document["sessions"][0]["revoked"] = json!(true));
    let operator = Operator::new(Some(newest.clone()));
    let cell = follow(&operator, Some(&path), &running).await;
    assert_eq!(cell.current().revision(), revision(&newest), "the stream is asked first");
    // The mounted file catches up by a step that is still behind.
    let step = made(5, |document| document["grants"] = json!([]));
    std::fs::write(&path, step.to_string()).unwrap();
    let text = until("the file to be read", || {
        let text = running.tasks().metrics().encode().unwrap();
        if text.contains("mcp_gateway_policy_reloads_total{result=\"outdated\"} 2") {
            Ok(text)
        } else {
            Err(text)
        }
    })
    .await;
    assert!(text.contains(&revision(&newest)), "{text}");
    assert_eq!(cell.current().revision(), revision(&newest));
    drop(running);
}

#[tokio::test]
async fn without_an_operator_the_file_is_in_force_until_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let file = made(1, |_| {});
    std::fs::write(&path, file.to_string()).unwrap();
    let running = Tasks::for_test();
    let operator = Operator::new(None);
    let cell = follow(&operator, Some(&path), &running).await;
    until_in_force(&cell, &file).await;
    // A newer file counts while nobody else answers.
    let newer = made(2, |document| document["grants"] = json!([]));
    std::fs::write(&path, newer.to_string()).unwrap();
    until_in_force(&cell, &newer).await;
    let newest = made(3, |document| document["tools"] = json!([]));
    operator.holds.send_replace(Some(newest.clone()));
    until_in_force(&cell, &newest).await;
    until("the newest to be acknowledged", || {
        let (last, _) = operator.last();
        if last == revision(&newest) { Ok(()) } else { Err(last) }
    })
    .await;
    drop(running);
}

#[test]
fn an_address_that_could_be_listened_in_on_is_refused() {
    use clap::Parser as _;
    let config = |url: &str| {
        let args = gateway::Args::try_parse_from(["mcp-gateway", "--server-name", "a", "--policy-url", url]).unwrap();
        gateway::Config::try_from(args.gateway).map(|config| config.policy.is_some())
    };
    for taken in [
        "https://mcp-operator.mcp-runtime.svc:9443/policies/a/b",
        "http://127.0.0.1:1/policies/a/b",
    ] {
        assert!(config(taken).unwrap(), "{taken}");
    }
    for refused in ["http://mcp-operator.mcp-runtime.svc:9443/policies/a/b", "/policies/a/b"] {
        let error = config(refused).unwrap_err();
        assert!(
            error.to_string().starts_with("`--policy-url` must be an https:// address"),
            "{error}"
        );
    }
}
