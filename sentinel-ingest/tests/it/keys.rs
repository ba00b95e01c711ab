//! Who may send what.

use std::time::Duration;

use sentinel_ingest::NewKeyRequest;
use serde_json::json;
use service_kit::logs::{LogFilter, LogLevel};

use crate::harness::{Harness, event, later, logs, of_namespace, until};

#[tokio::test]
async fn a_request_without_a_key_gets_401() {
    let harness = Harness::start().await;
    let bare = || harness.client.post(harness.url("/events")).body(event("a").to_string());
    for request in [
        bare(),
        bare().header("authorization", "Basic abc"),
        bare().header("authorization", "Bearer"),
    ] {
        let answer = harness.send(request).await;
        answer.assert_refused(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert!(answer.body["hint"].as_str().unwrap().contains("x-api-key"), "{answer:?}");
    }
}

#[tokio::test]
async fn both_headers_carry_a_key() {
    let harness = Harness::start().await;
    let request = || {
        harness
            .client
            .post(harness.url("/ingest/events"))
            .body(event("a").to_string())
    };
    for request in [
        request().header("x-api-key", format!("  {} ", harness.key)),
        request().bearer_auth(&harness.key),
        request().header("authorization", format!("bearer {}", harness.key)),
    ] {
        harness.send(request).await.assert_accepted(1);
    }
}

#[tokio::test]
async fn unknown_expired_and_revoked_keys_get_401_and_only_owners_learn_why() {
    let harness = Harness::start().await;
    let short = harness
        .keys
        .create(NewKeyRequest {
            expires_at: Some(later(60)),
            ..of_namespace("acme")
        })
        .unwrap();
    let revoked = harness.keys.create(of_namespace("acme")).unwrap();
    harness.ring.refresh();
    harness.post_as(&short.key).await.assert_accepted(1);
    harness.post_as(&revoked.key).await.assert_accepted(1);
    harness.keys.revoke(&revoked.view.id).unwrap();
    harness.hand.advance(Duration::from_mins(1));
    harness.ring.refresh();
    for (key, word) in [(&short, "expired"), (&revoked, "revoked")] {
        let answer = harness.post_as(&key.key).await;
        answer.assert_refused(401, "invalid_token");
        assert!(answer.body["message"].as_str().unwrap().contains(word), "{answer:?}");
        let guess = format!("mcpi_{}_{}", key.view.id, "0".repeat(43));
        let answer = harness.post_as(&guess).await;
        answer.assert_refused(401, "unauthorized");
        assert!(!answer.body.to_string().contains(word), "{answer:?}");
    }
    for key in ["mcpi_", "nonsense", "", "mcpi_aaaaaaaaaaaa_short", "mcpi_\u{e9}"] {
        harness.post_as(key).await.assert_refused(401, "unauthorized");
    }
    let bearer = harness
        .client
        .post(harness.url("/events"))
        .bearer_auth("eyJhbGciOi.J9.x")
        .body("{}");
    harness.send(bearer).await.assert_refused(401, "invalid_token");
}

#[tokio::test]
async fn another_namespace_or_server_than_the_keys_gets_403() {
    let harness = Harness::start().await;
    let mut foreign = event("a");
    foreign["payload"]["namespace"] = "umbrella".into();
    let answer = harness.post_json(&foreign).await;
    answer.assert_refused(403, "namespace_mismatch");
    let answer = harness.post_json(&json!([foreign, event("a")])).await;
    answer.assert_accepted(1);
    assert_eq!(answer.body["rejected"][0]["code"], "namespace_mismatch");
    assert_eq!(harness.status.snapshot().rejected["namespace_mismatch"], 2);
    let bound = NewKeyRequest {
        server: Some("payments".to_owned()),
        ..of_namespace("acme")
    };
    let key = harness.keys.create(bound).unwrap().key;
    harness.ring.refresh();
    let mut other = event("a");
    other["payload"]["server"] = "ledger".into();
    let request = harness
        .client
        .post(harness.url("/events"))
        .header("x-api-key", &key)
        .body(other.to_string());
    harness.send(request).await.assert_refused(403, "namespace_mismatch");
    harness.post_as(&key).await.assert_accepted(1);
}

#[tokio::test]
async fn a_key_of_all_namespaces_writes_the_one_each_event_names() {
    let harness = Harness::start().await;
    let key = harness.keys.create(of_namespace("*")).unwrap().key;
    harness.ring.refresh();
    harness.post_as(&key).await.assert_refused(400, "missing_fields");
    let mut named = event("a");
    named["payload"]["namespace"] = "umbrella".into();
    let request = harness
        .client
        .post(harness.url("/events"))
        .header("x-api-key", &key)
        .body(named.to_string());
    harness.send(request).await.assert_accepted(1);
    assert_eq!(harness.queue.events()[0].namespace(), "umbrella");
}

#[tokio::test]
async fn rotated_keys_overlap() {
    let harness = Harness::start().await;
    let old = harness.keys.list().unwrap()[0].clone();
    let new = harness.keys.rotate(&old.id, Duration::from_hours(1)).unwrap();
    assert_eq!((&new.view.namespace, new.view.expires_at), (&old.namespace, None));
    harness.ring.refresh();
    harness.post_as(&harness.key).await.assert_accepted(1);
    harness.post_as(&new.key).await.assert_accepted(1);
    harness.hand.advance(Duration::from_hours(1));
    harness.post_as(&harness.key).await.assert_refused(401, "invalid_token");
    harness.post_as(&new.key).await.assert_accepted(1);
}

#[tokio::test]
async fn keys_are_reloaded_without_a_restart() {
    let harness = Harness::start().await;
    let key = harness.keys.create(of_namespace("acme")).unwrap();
    let try_it = async |wanted: u16| match harness.post_as(&key.key).await {
        answer if answer.status == wanted => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    until("the new key works", async || try_it(202).await).await;
    harness.keys.revoke(&key.view.id).unwrap();
    until("the revoked key stops", async || try_it(401).await).await;
}

#[tokio::test]
async fn a_bad_key_file_changes_nothing_and_is_reported() {
    let harness = Harness::start().await;
    for bad in [
        "{",
        r#"{"version":2,"keys":[]}"#,
        r#"{"version":1,"keys":[{"id":"x"}]}"#,
        r#"{"version":1,"keys":[],"more":1}"#,
    ] {
        std::fs::write(&harness.key_file, bad).unwrap();
        harness.ring.refresh();
        assert!(harness.ring.state(later(0)).fault.is_some(), "{bad}");
        harness.post_as(&harness.key).await.assert_accepted(1);
    }
    std::fs::write(&harness.key_file, r#"{"version":1,"keys":[]}"#).unwrap();
    harness.ring.refresh();
    assert_eq!(harness.ring.state(later(0)).fault, None);
    harness.post_as(&harness.key).await.assert_refused(401, "unauthorized");
}

#[tokio::test]
async fn without_a_key_file_everything_is_refused_and_readiness_says_so() {
    let harness = Harness::start().await;
    std::fs::remove_file(&harness.key_file).unwrap();
    harness.ring.refresh();
    let answer = harness.post_as(&harness.key).await;
    answer.assert_refused(401, "unauthorized");
    assert!(
        answer.body["message"].as_str().unwrap().contains("no ingest keys"),
        "{answer:?}"
    );
    until("readiness names the keys", async || {
        let answer = harness.send(harness.client.get(harness.url("/ready"))).await;
        let text = answer.body.to_string();
        (answer.status == 503 && text.contains("no ingest key"))
            .then_some(())
            .ok_or(text)
    })
    .await;
}

#[tokio::test]
async fn no_key_gets_into_logs_or_debug() {
    let harness = Harness::start().await;
    let revoked = harness.keys.create(of_namespace("acme")).unwrap();
    harness.keys.revoke(&revoked.view.id).unwrap();
    harness.ring.refresh();
    let wrong = format!("mcpi_{}_{}", revoked.view.id, "Z".repeat(43));
    for key in [&harness.key, &revoked.key, &wrong] {
        harness.post_as(key).await;
    }
    let everything = LogFilter {
        level_min: LogLevel::Trace,
        ..LogFilter::default()
    };
    let text = format!("{:?} {:?} {:?}", logs().read(&everything), harness.ring, revoked);
    assert!(text.contains("request answered"), "the log was not captured: {text}");
    for key in [&harness.key, &revoked.key, &wrong] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!text.contains(secret), "found a secret");
    }
}
