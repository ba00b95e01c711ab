//! The command line against a running standalone.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Home, Standalone, event, program, run, until};

/// A standalone with a few events.
async fn with_events(home: &Home) -> Standalone {
    let standalone = home.launch().start().await;
    let events: Vec<Value> = ["list_invoices", "list_invoices", "refund_invoice"]
        .into_iter()
        .map(event)
        .collect();
    standalone.send(&events).await;
    standalone.counts(3, "events to ask about").await;
    standalone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_serves_everything_and_says_so() {
    let home = Home::new();
    let standalone = home.launch().start().await;
    for path in [
        "/live",
        "/ready",
        "/health",
        "/metrics",
        "/api/v1/openapi.json",
        "/api/v1/stats",
        "/api/v1/sources",
        "/api/v1/event-types",
    ] {
        standalone.get(path).await.expect(200, path);
    }
    let metrics = standalone.get("/metrics").await.text;
    assert!(
        metrics.contains("# TYPE ") && metrics.contains("ingest"),
        "no metrics: {metrics:.300}"
    );
    standalone.send(&[event("probe")]).await;
    standalone.counts(1, "an event over /events").await;
    assert_eq!(standalone.get("/api/v1/stats").await.body["events_total"], 1);
    let address = standalone.url.trim_start_matches("http://");
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
    standalone.stop().await;
    assert!(
        !home.data().join("run.json").exists(),
        "after an orderly stop nobody should be sent to an address that is gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_answers_in_every_form() {
    let home = Home::new();
    let standalone = with_events(&home).await;
    let commands: [(&[&str], &str, &str); 9] = [
        (&["status"], "components", "COMPONENT"),
        (&["sentinel", "status"], "components", "COMPONENT"),
        (&["sentinel", "events", "--limit", "10"], "events", "list_invoices"),
        (
            &["sentinel", "events", "--tool", "refund_invoice", "--since", "1h"],
            "events",
            "refund_invoice",
        ),
        (&["sentinel", "tools"], "tools", "list_invoices"),
        (
            &[
                "sentinel",
                "query",
                "select tool_name, count(*) as calls from events group by tool_name order by 2 desc",
            ],
            "rows",
            "list_invoices",
        ),
        (&["sentinel", "logs", "all"], "", ""),
        (&["sentinel", "keys", "list"], "keys", "NAMESPACE"),
        (&["sentinel", "dlq", "list"], "dead_letters", "No dead letters"),
    ];
    for (command, field, shown) in commands {
        let with = |form: &'static str| [command, &["-o", form]].concat();
        let table = standalone.cli(&with("table")).await;
        assert!(
            table.well("as a table").contains(shown),
            "{command:?}: the table does not show `{shown}`: {table:?}"
        );
        assert!(table.stderr.is_empty(), "{command:?}: {table:?}");
        let json = standalone.cli(&with("json")).await.json("as JSON");
        let list = if field.is_empty() { &json } else { &json[field] };
        assert!(list.is_array(), "{command:?}: no list `{field}`: {json}");
        let yaml = standalone.cli(&with("yaml")).await;
        assert!(
            yaml.well("as YAML")
                .lines()
                .any(|line| line.starts_with(&format!("{field}:")) || field.is_empty() && line.starts_with("- ")),
            "{command:?}: {yaml:?}"
        );
    }
    let status = standalone.cli(&["status", "-o", "json"]).await.json("status");
    let components: Vec<&Value> = status["components"].as_array().expect("components").iter().collect();
    assert!(
        components.iter().all(|component| component["state"] == "Ready"),
        "not all ready: {status}"
    );
    assert_eq!(status["pipeline"]["accepted"], 3, "{status}");
    assert_eq!(status["storage"]["events"], 3, "{status}");
    let query = standalone
        .cli(&["sentinel", "query", "select count(*) as calls from events", "--format", "csv"])
        .await;
    assert_eq!(query.well("as CSV").lines().collect::<Vec<_>>(), ["calls", "3"]);
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose_the_same_events_everywhere() {
    let home = Home::new();
    let standalone = with_events(&home).await;
    let count = async |args: &[&str]| {
        let page = standalone
            .cli(&[&["sentinel", "events", "-o", "json"], args].concat())
            .await
            .json("events");
        page["events"].as_array().expect("events").len()
    };
    assert_eq!(count(&[]).await, 3);
    assert_eq!(count(&["--tool", "list_invoices"]).await, 2);
    assert_eq!(count(&["--server", "probe"]).await, 3);
    assert_eq!(count(&["--outcome", "tool_error"]).await, 0);
    assert_eq!(count(&["--until", "1h"]).await, 0);
    assert_eq!(count(&["--limit", "1"]).await, 1);
    let tools = standalone.cli(&["sentinel", "tools", "-o", "json"]).await.json("tools");
    let calls: u64 = tools["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .filter_map(|tool| tool["events"].as_u64())
        .sum();
    assert_eq!(calls, 3, "{tools}");
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_prints_a_new_event_and_ends_with_the_process() {
    let home = Home::new();
    let standalone = with_events(&home).await;
    let (mut child, out) = standalone.cli_follow(&["sentinel", "events", "--follow", "--limit", "2", "-o", "json"]);
    let tools = || -> Vec<String> {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        // The last line may be half written.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter_map(|event| event["payload"]["tool_name"].as_str().map(str::to_owned))
            .collect()
    };
    let seen = |wanted: usize| {
        let tools = tools();
        if tools.len() >= wanted {
            Ok(tools)
        } else {
            Err(format!("followed so far: {tools:?}"))
        }
    };
    until("the newest events are printed first", async || seen(2)).await;
    for number in 0..3 {
        standalone.send(&[event(&format!("new-{number}"))]).await;
    }
    let all = until("new events are printed as they come", async || seen(5)).await;
    assert_eq!(all[2..], ["new-0", "new-1", "new-2"], "all of it: {all:?}");
    assert!(
        child.try_wait().expect("the state of a child").is_none(),
        "it stopped following"
    );
    standalone.stop().await;
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
    let status = ended
        .expect("a follower ends when there is nobody to follow")
        .expect("an exit status");
    assert_eq!(status.code(), Some(1), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_used_rotated_and_ended() {
    let home = Home::new();
    let standalone = with_events(&home).await;
    let made = standalone
        .cli(&[
            "sentinel",
            "keys",
            "create",
            "--namespace",
            "acme",
            "--expires-in",
            "90d",
            "--note",
            "for tests",
            "-o",
            "json",
        ])
        .await;
    let made = made.json("making a key");
    let text = |document: &Value, name: &str| {
        document[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {document}"))
            .to_owned()
    };
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    assert_eq!(post(&standalone, &key).await, 202);
    let rotated = standalone
        .cli(&["sentinel", "keys", "rotate", &id, "--overlap", "1h", "-o", "json"])
        .await
        .json("rotating a key");
    let successor = text(&rotated, "key");
    assert_eq!(
        (post(&standalone, &key).await, post(&standalone, &successor).await),
        (202, 202),
        "both keys work during the overlap"
    );
    let list = standalone.cli(&["sentinel", "keys", "list"]).await;
    let secret = key.rsplit('_').next().expect("a key has parts");
    assert!(
        list.well("listing keys").contains(&id) && !list.stdout.contains(secret),
        "{list:?}"
    );
    standalone
        .cli(&["sentinel", "keys", "revoke", &id])
        .await
        .well("revoking a key");
    let codes = (post(&standalone, &key).await, post(&standalone, &successor).await);
    assert_eq!(codes, (401, 202), "the old key is ended, the new one works");
    let missing = standalone.cli(&["sentinel", "keys", "revoke", "000000000000"]).await;
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    standalone.stop().await;
    let again = home.launch().start().await;
    let codes = (post(&again, &key).await, post(&again, &successor).await);
    assert_eq!(codes, (401, 202), "the same after a restart");
    again.stop().await;
}

/// Sends an event with a key, and gives the status.
async fn post(standalone: &Standalone, key: &str) -> u16 {
    let request = standalone
        .request(reqwest::Method::POST, "/events")
        .header("x-api-key", key)
        .header("content-type", "application/json");
    standalone.ask(request.body(event("by-key").to_string())).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_have_words_advice_and_exit_codes() {
    let home = Home::new();
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let binary = program("mcp-runtime");
    for command in [
        &["status"][..],
        &["sentinel", "status"],
        &["sentinel", "events"],
        &["sentinel", "events", "--follow"],
        &["sentinel", "keys", "list"],
    ] {
        let exit = run(&binary, home.path(), &[&["--api-url", &nobody], command].concat()).await;
        assert_eq!(exit.status.code(), Some(1), "{command:?}: {exit:?}");
        assert!(
            exit.stdout.is_empty() && exit.stderr.starts_with("error: ") && exit.stderr.contains("\ntry: "),
            "{command:?}: {exit:?}"
        );
        assert!(
            exit.stderr.contains(&nobody),
            "{command:?}: the address is not named: {exit:?}"
        );
    }
    let standalone = home.launch().start().await;
    let cases: [(&[&str], i32, &str); 9] = [
        (&["sentinel", "query", "drop table events"], 2, ""),
        (&["sentinel", "query", "select nothing from events"], 2, "nothing"),
        (&["sentinel", "events", "--since", "yesterday"], 2, "since"),
        (&["sentinel", "events", "--outcome", "splendid"], 2, "outcome"),
        (&["sentinel", "events", "--limit", "5000"], 2, "5000"),
        (&["sentinel", "logs", "nobody"], 3, ""),
        (&["sentinel", "dlq", "show", "99"], 3, ""),
        (&["sentinel", "dlq", "discard", "99"], 3, ""),
        (&["sentinel", "nothing"], 2, "nothing"),
    ];
    for (command, code, word) in cases {
        let exit = standalone.cli(command).await;
        assert_eq!(exit.status.code(), Some(code), "{command:?}: {exit:?}");
        assert!(
            exit.stdout.is_empty() && exit.stderr.starts_with("error:") && exit.stderr.contains(word),
            "{command:?}: {exit:?}"
        );
        assert!(!exit.stderr.contains("panicked"), "{command:?}: {exit:?}");
    }
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standalone_started_last_is_found_without_an_address() {
    let home = Home::new();
    let standalone = with_events(&home).await;
    let exit = run(
        &program("mcp-runtime"),
        home.path(),
        &["sentinel", "query", "select count(*) from events", "-o", "json"],
    )
    .await;
    assert_eq!(exit.json("without --api-url")["rows"][0][0], 3, "{exit:?}");
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = Home::new();
    let standalone = with_events(&home).await;
    let binary = program("mcp-runtime").display().to_string();
    let script = format!("'{binary}' --api-url {} sentinel events -o json | head -c 1", standalone.url);
    let exit = run("/bin/sh".as_ref(), home.path(), &["-c", &script]).await;
    assert!(exit.status.success() && !exit.stderr.contains("panicked"), "{exit:?}");
    standalone.stop().await;
}
