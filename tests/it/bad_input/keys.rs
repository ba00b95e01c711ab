//! Keys that are missing, wrong, over, or for somebody else.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::{a_neighbour_is_taken, refused};
use crate::harness::{Answer, Home, Standalone, event, until};

async fn post(standalone: &Standalone, header: Option<(&str, &str)>, events: Value) -> Answer {
    let mut request = standalone
        .request(reqwest::Method::POST, "/ingest/events")
        .header("content-type", "application/json");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    standalone.ask(request.body(events.to_string())).await
}

/// Makes a key and waits until it is known, so that what follows is about something else.
async fn known(standalone: &Standalone, wish: Value) -> (String, String) {
    let (id, key) = make(standalone, wish).await;
    until("a new key is known", async || {
        let answer = post(standalone, Some(("x-api-key", &key)), json!({})).await;
        if answer.status == 401 {
            Err(format!("{answer:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    (id, key)
}

/// Makes a key over the API.
async fn make(standalone: &Standalone, wish: Value) -> (String, String) {
    let answer = standalone
        .ask(standalone.request(reqwest::Method::POST, "/api/v1/sentinel/keys").json(&wish))
        .await;
    assert_eq!(answer.status, 201, "{wish}: {answer:?}");
    let text = |name: &str| answer.body[name].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    (text("id"), text("key"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_living_key_of_the_right_place_may_send() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let unknown = "mcpi_0123456789ab_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef0";
    refused(&post(&standalone, None, event("x")).await, 401, "unauthorized", "no key");
    for wrong in [
        unknown,
        "",
        "secret",
        "mcpi_",
        "mcpi__",
        &standalone.key.to_uppercase(),
        &format!("{}x", standalone.key),
    ] {
        let answer = post(&standalone, Some(("x-api-key", wrong)), event("x")).await;
        assert_eq!(answer.status, 401, "key {wrong:?}: {answer:?}");
        let answer = post(&standalone, Some(("authorization", &format!("Bearer {wrong}"))), event("x")).await;
        assert_eq!(answer.status, 401, "bearer {wrong:?}: {answer:?}");
        assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
    }
    a_neighbour_is_taken(&standalone, "wrong keys").await;

    let (id, revoked) = known(&standalone, json!({ "namespace": "acme" })).await;
    let answer = post(&standalone, Some(("x-api-key", &revoked)), event("x")).await;
    answer.expect(202, "a key");
    revoke(&standalone, &id).await;
    until("a revoked key is refused", async || {
        let answer = post(&standalone, Some(("x-api-key", &revoked)), json!({})).await;
        if answer.status == 401 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;

    let (_, short) = make(&standalone, json!({ "namespace": "acme", "expires_in": "2s" })).await;
    until("a key ends when it should", async || {
        let answer = post(&standalone, Some(("x-api-key", &short)), json!([])).await;
        if answer.status == 401 {
            Ok(answer)
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    assert_eq!(
        standalone
            .number("select count(*) from events where namespace = 'acme'")
            .await,
        1
    );
    secrets_stay_secret(&home, &standalone, &[&revoked, &short]).await;
    standalone.stop().await;
}

async fn revoke(standalone: &Standalone, id: &str) {
    let request = standalone.request(reqwest::Method::DELETE, &format!("/api/v1/sentinel/keys/{id}"));
    standalone.ask(request).await.expect(200, "revoking a key");
}

/// An operator who was told that a key is made or revoked may rely on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_works_once_it_is_made_and_ends_once_it_is_revoked() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let (id, key) = make(&standalone, json!({ "namespace": "acme" })).await;
    let answer = post(&standalone, Some(("x-api-key", &key)), event("x")).await;
    answer.expect(202, "a fresh key");
    revoke(&standalone, &id).await;
    let answer = post(&standalone, Some(("x-api-key", &key)), event("x")).await;
    refused(&answer, 401, "invalid_token", "a revoked key");
    standalone.stop().await;
}

/// No secret of a key is written anywhere but into the file for the operator.
async fn secrets_stay_secret(home: &Home, standalone: &Standalone, keys: &[&str]) {
    let list = standalone.get("/api/v1/sentinel/keys").await.expect(200, "listing keys").text;
    let log = standalone.log();
    let logs = standalone.get("/api/v1/sentinel/logs/all?tail=1000").await.text;
    let metrics = standalone.get("/metrics").await.text;
    for key in keys.iter().copied().chain([standalone.key.as_str()]) {
        let secret = key.rsplit('_').next().expect("a key has parts");
        for (place, text) in [
            ("the list of keys", &list),
            ("the log", &log),
            ("the log over the API", &logs),
            ("the metrics", &metrics),
        ] {
            assert!(!text.contains(secret), "{place} shows a secret");
        }
    }
    let mode = std::fs::metadata(home.data().join("ingest.key"))
        .expect("the key file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "the key file can be read by others: {mode:o}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_writes_its_own_namespace_and_server_alone() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let (_, acme) = known(&standalone, json!({ "namespace": "acme" })).await;
    let (_, payments) = known(&standalone, json!({ "namespace": "acme", "server": "payments" })).await;
    let (_, any) = known(&standalone, json!({ "namespace": "*" })).await;
    let of = |namespace: Option<&str>, server: Option<&str>| {
        let mut event = event("x");
        event["payload"]["namespace"] = json!(namespace);
        event["payload"]["server"] = json!(server);
        event
    };
    let cases = [
        ("a namespace of one's own", &acme, of(Some("acme"), None), 202, ""),
        ("no namespace", &acme, of(None, None), 202, ""),
        (
            "another namespace",
            &acme,
            of(Some("globex"), None),
            403,
            "namespace_mismatch",
        ),
        (
            "any namespace by its word",
            &acme,
            of(Some("*"), None),
            403,
            "namespace_mismatch",
        ),
        (
            "another letter case",
            &acme,
            of(Some("ACME"), None),
            403,
            "namespace_mismatch",
        ),
        ("one's own server", &payments, of(None, Some("payments")), 202, ""),
        (
            "another server",
            &payments,
            of(None, Some("search")),
            403,
            "namespace_mismatch",
        ),
        ("any key, named namespace", &any, of(Some("globex"), None), 202, ""),
        ("any key, no namespace", &any, of(None, None), 400, "missing_fields"),
    ];
    for (what, key, event, status, code) in cases {
        let answer = post(&standalone, Some(("x-api-key", key)), event).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{what}: {answer:?}");
    }
    standalone.counts(4, "events with the right key").await;
    assert_eq!(
        standalone
            .number("select count(*) from events where namespace = 'acme'")
            .await,
        3
    );
    assert_eq!(
        standalone
            .number("select count(*) from events where namespace = 'globex'")
            .await,
        1
    );
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_over_its_rate_is_asked_to_wait_and_then_taken() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    let (_, slow) = known(&standalone, json!({ "namespace": "acme", "events_per_second_max": 20 })).await;
    let batch = |count: usize| json!((0..count).map(|_| event("x")).collect::<Vec<_>>());
    let mut taken = 0;
    let mut refusal = None;
    for _ in 0..20 {
        let answer = post(&standalone, Some(("x-api-key", &slow)), batch(10)).await;
        match answer.status {
            202 => taken += 10,
            _ => refusal = Some(answer),
        }
    }
    let refusal = refusal.expect("200 events at once are over a rate of 20 a second");
    refused(&refusal, 429, "rate_limited", "over the rate");
    assert!(
        refusal.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok()),
        "{refusal:?}"
    );
    a_neighbour_is_taken(&standalone, "a key over its rate").await;
    until("the key may send again", async || {
        let answer = post(&standalone, Some(("x-api-key", &slow)), batch(1)).await;
        if answer.status == 202 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    standalone.counts(taken + 2, "events within the rate").await;
    standalone.stop().await;
}
