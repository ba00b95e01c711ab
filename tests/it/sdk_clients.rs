//! The official SDKs through the gateway: what their drivers saw on the wire is what is stored, call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Home, Standalone, program, run, skip};

/// Drivers with the modes that a server of both eras is called in.
const BOTH_ERAS: [(&str, &str); 8] = [
    ("ts1", "legacy"),
    ("ts2", "legacy"),
    ("ts2", "auto"),
    ("ts2", "modern"),
    ("py1", "legacy"),
    ("py2", "legacy"),
    ("py2", "auto"),
    ("py2", "modern"),
];
/// The same for a server that knows the older era alone.
const LEGACY: [(&str, &str); 6] = [
    ("ts1", "legacy"),
    ("ts2", "legacy"),
    ("ts2", "auto"),
    ("py1", "legacy"),
    ("py2", "legacy"),
    ("py2", "auto"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_server_everything_are_stored_as_the_clients_saw_them() {
    compare("everything", "node", &script("services/everything.sh"), &[], &LEGACY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_the_python_server_are_stored_as_the_clients_saw_them() {
    compare("python", "all", &script("services/python_server.sh"), &[], &BOTH_ERAS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_the_demo_server_are_stored_as_the_clients_saw_them() {
    compare(
        "demo",
        "all",
        &program("mcp-demo-server"),
        &["serve", "--listen", "127.0.0.1:0"],
        &BOTH_ERAS,
    )
    .await;
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Drives one server through the gateway with each driver, then compares.
async fn compare(server: &str, parts: &str, program: &Path, args: &[&str], drivers: &[(&str, &str)]) {
    let home = Home::new();
    // Two of the drivers are Python whichever the server; installing all once is quicker than finding out.
    let installed = timeout(DEADLINE * 10, Command::new(script("services/install.sh")).arg("all").output()).await;
    match installed.map(|output| output.expect("running install.sh")) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return skip(
                server,
                &format!("installing {parts}: {}", String::from_utf8_lossy(&output.stderr).trim()),
            );
        }
        Err(_) => return skip(server, "installing the MCP components took too long"),
    }
    let upstream = Upstream::start(program, args).await;
    let standalone = home.launch().server(server, &upstream.url).start().await;
    let url = format!("{}/{server}/mcp", standalone.url);
    let mut failures = Vec::new();
    for (driver, mode) in drivers {
        let agent = format!("{driver}-{mode}");
        let header = format!("X-MCP-Agent-ID={agent}");
        let args = [driver, "--url", &url, "--server", server, "--mode", mode, "--header", &header];
        let exit = run(&script("clients/run"), home.path(), &args).await;
        let Ok(ledger) = serde_json::from_str::<Value>(&exit.stdout) else {
            failures.push(format!("{agent}: no ledger: {exit:?}"));
            continue;
        };
        let told = ledger["failures"].as_array().map_or(0, Vec::len);
        if told > 0 || ledger["ok"] != true {
            failures.push(format!(
                "{agent}: the client was not served as by the server itself: {}",
                ledger["failures"]
            ));
        }
        if let Err(fault) = stored_as_seen(&standalone, &agent, &ledger).await {
            failures.push(format!("{agent}: {fault}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{server}: {} faults\n{}",
        failures.len(),
        failures.join("\n")
    );
    standalone.stop().await;
}

/// Waits until every request of the ledger is stored, then compares.
async fn stored_as_seen(standalone: &Standalone, agent: &str, ledger: &Value) -> Result<(), String> {
    let http = |name: &str| ledger["http"][name].as_u64().unwrap_or_default();
    let sent = |names: &[&str]| names.iter().map(|name| http(name)).sum::<u64>();
    let posts = sent(&["post_requests", "post_notifications", "post_responses"]);
    let wanted = [
        ("POST", posts, posts),
        ("DELETE", http("delete"), http("delete")),
        ("GET", 0, sent(&["get", "get_resumed"])),
    ];
    let mut events = Vec::new();
    let mut faults = Vec::new();
    // What is missing at the deadline is part of the comparison below, with names.
    let look = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            events = stored(standalone, agent).await;
            faults = requests_told(&wanted, &events);
            if faults.is_empty() {
                return;
            }
        }
    };
    timeout(DEADLINE / 4, look).await.ok();
    let calls = ledger["calls"].as_array().cloned().unwrap_or_default();
    let requests: Vec<&Value> = events
        .iter()
        .filter(|event| !event["payload"]["request_id"].is_null())
        .collect();
    outcomes(&calls, &requests, &mut faults);
    progress(&calls, &requests, &mut faults);
    clients(ledger, &requests, &mut faults);
    eras(ledger, &requests, &mut faults);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n    "))
    }
}

/// Every HTTP request is one event. A stream asked for and given up at once may never have left the client, so of these there may be
/// fewer.
fn requests_told(wanted: &[(&str, u64, u64)], events: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for (method, least, most) in wanted {
        let count = events.iter().filter(|event| event["payload"]["method"] == *method).count() as u64;
        if !(*least..=*most).contains(&count) {
            let kinds = tally(events.iter().map(kind));
            faults.push(format!("{most} times {method} was sent, {count} are stored: {kinds:?}"));
        }
    }
    faults
}

/// All events of one agent, oldest first.
async fn stored(standalone: &Standalone, agent: &str) -> Vec<Value> {
    let path = format!("/api/v1/events?agent_id={agent}&limit=1000");
    let page = standalone.get(&path).await.expect(200, &path);
    assert_eq!(page.body["meta"]["has_more"], false, "one page holds a whole run");
    let mut events = page.body["events"].as_array().cloned().unwrap_or_default();
    events.reverse();
    events
}

fn kind(event: &Value) -> String {
    key(
        &event["payload"]["method"],
        &event["payload"]["rpc_method"],
        &event["event_type"],
    )
}

fn key(first: &Value, second: &Value, third: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    format!("{} {} {}", text(first), text(second), text(third))
}

/// How often each key comes.
type Tally = BTreeMap<String, u64>;

fn tally(keys: impl Iterator<Item = String>) -> Tally {
    let mut tally = Tally::new();
    for key in keys {
        *tally.entry(key).or_default() += 1;
    }
    tally
}

/// Calls by method, name and outcome.
fn outcomes(calls: &[Value], requests: &[&Value], faults: &mut Vec<String>) {
    let seen = tally(
        calls
            .iter()
            .map(|call| key(&call["rpc_method"], &call["name"], &call["expected_outcome"])),
    );
    let kept = tally(requests.iter().map(|event| {
        let payload = &event["payload"];
        let name = ["tool_name", "prompt_name", "resource_uri"]
            .map(|name| &payload[name])
            .into_iter()
            .find(|name| !name.is_null());
        key(&payload["rpc_method"], name.unwrap_or(&Value::Null), &payload["outcome"])
    }));
    let keys: BTreeSet<&String> = seen.keys().chain(kept.keys()).collect();
    for key in keys {
        let (seen, kept) = (seen.get(key).unwrap_or(&0), kept.get(key).unwrap_or(&0));
        if seen != kept {
            faults.push(format!("{key}: the client saw {seen}, stored are {kept}"));
        }
    }
}

/// Every call names its client.
fn clients(ledger: &Value, requests: &[&Value], faults: &mut Vec<String>) {
    let client = &ledger["client"];
    let others = requests.iter().filter(|event| &event["payload"]["client_name"] != client);
    let others = tally(others.map(|event| {
        key(
            &event["payload"]["rpc_method"],
            &event["payload"]["client_name"],
            &event["payload"]["era"],
        )
    }));
    if !others.is_empty() {
        faults.push(format!("calls whose client_name is not {client}: {others:?}"));
    }
}

/// Progress by name of the call, but for those that were given up: these may have got more than their client looked at.
fn progress(calls: &[Value], requests: &[&Value], faults: &mut Vec<String>) {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for call in calls
        .iter()
        .filter(|call| call["rpc_method"] == "tools/call" && call["expected_outcome"] != "cancelled")
    {
        sums.entry(call["name"].as_str().unwrap_or("-")).or_default().0 += call["progress_count"].as_u64().unwrap_or(0);
    }
    for event in requests
        .iter()
        .filter(|event| event["payload"]["rpc_method"] == "tools/call" && event["payload"]["outcome"] != "cancelled")
    {
        let payload = &event["payload"];
        sums.entry(payload["tool_name"].as_str().unwrap_or("-")).or_default().1 +=
            payload["progress_count"].as_u64().unwrap_or(0);
    }
    for (name, (seen, kept)) in sums {
        if seen != kept {
            faults.push(format!("progress of {name}: the client saw {seen}, stored are {kept}"));
        }
    }
}

/// Every call but the question for the era spoke the era that was agreed on.
fn eras(ledger: &Value, requests: &[&Value], faults: &mut Vec<String>) {
    let agreed = &ledger["era"];
    let others = tally(
        requests
            .iter()
            .filter(|event| event["payload"]["rpc_method"] != "server/discover" && &event["payload"]["era"] != agreed)
            .map(|event| {
                key(
                    &event["payload"]["rpc_method"],
                    &event["payload"]["era"],
                    &event["payload"]["protocol_version"],
                )
            }),
    );
    if !others.is_empty() {
        faults.push(format!("calls whose era is not {agreed}: {others:?}"));
    }
}

/// An MCP server as a process; it ends when its standard input closes.
pub(crate) struct Upstream {
    _child: Child,
    _input: ChildStdin,
    pub(crate) url: String,
}

impl Upstream {
    pub(crate) async fn start(program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        let input = child.stdin.take().expect("its standard input");
        let mut lines = BufReader::new(child.stdout.take().expect("its standard output")).lines();
        let line = timeout(DEADLINE, lines.next_line())
            .await
            .expect("a server says in time where it is");
        let line = line
            .expect("reading from a server")
            .unwrap_or_else(|| panic!("{} ended before it listened", program.display()));
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        Self {
            _child: child,
            _input: input,
            url: said["url"].as_str().expect("a URL").to_owned(),
        }
    }
}
