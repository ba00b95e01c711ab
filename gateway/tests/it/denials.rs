//! Refusals as the official SDK clients see them: in the default mode none ends a connection, and each shows its reason.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use service_kit::Tasks;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::governed::parsed;
use crate::support::Setup;

/// The server is Python and each client is a program of its own.
const DEADLINE: Duration = Duration::from_mins(3);

/// Each generation of each SDK, in each era that it speaks.
const CLIENTS: [(&str, &str); 6] = [
    ("ts1", "legacy"),
    ("ts2", "legacy"),
    ("ts2", "modern"),
    ("py1", "legacy"),
    ("py2", "legacy"),
    ("py2", "modern"),
];

/// What is called that the policy refuses, and why.
const REFUSED: [(&str, &str); 9] = [
    ("add", "tool_denied"),
    ("fail", "trust_too_low"),
    ("no-such-tool", "tool_not_granted"),
    ("raise_rpc", "arguments_not_allowed"),
    ("ask", "side_effect_not_allowed"),
    ("big", "tool_side_effect_unknown"),
    ("test://greeting", "kind_denied"),
    ("test://nothing", "kind_denied"),
    ("review", "kind_denied"),
];

/// Steps that take time and have nothing to do with refusals.
const SKIPPED: [&str; 2] = ["progress", "cancel"];

fn policy() -> Value {
    json!({
        "schema_version": "v1",
        "server": {"name": "payments", "namespace": "acme"},
        "policy": {"mode": "allow-list", "resources": "deny", "prompts": "deny", "others": "identified", "lists": "whole"},
        "tools": [
            {"name": "echo", "side_effect": "read"},
            {"name": "add", "side_effect": "read"},
            {"name": "fail", "side_effect": "read", "required_trust": "high"},
            {"name": "raise_rpc", "side_effect": "read"},
            {"name": "ask", "side_effect": "destructive"},
        ],
        "grants": [{
            "name": "alice", "human_id": "alice", "max_trust": "low", "allowed_side_effects": ["read"],
            "tool_rules": [
                {"name": "echo"},
                {"name": "add", "decision": "deny"},
                {"name": "fail"},
                {"name": "raise_rpc", "when": "arguments.code == 7"},
                {"name": "ask"},
                {"name": "big"},
            ],
        }],
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

/// The official server in Python. It ends with its input.
async fn python_server() -> (Child, std::net::SocketAddr) {
    let mut server = Command::new(script("services/python_server.sh"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("running python_server.sh");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.expect("the server in time");
    let said: Value = serde_json::from_str(&line.unwrap().expect("a line")).unwrap();
    let url: http::Uri = said["url"].as_str().unwrap().parse().unwrap();
    (server, url.authority().unwrap().as_str().parse().unwrap())
}

/// What a client saw, call by call.
async fn ledger(setup: &Setup, client: &str, mode: &str) -> Value {
    let url = format!("http://{}/payments/mcp", setup.address);
    let mut command = Command::new(script("clients/run"));
    command.args([client, "--url", &url, "--server", "python", "--mode", mode]);
    command.args(["--header", "X-MCP-Human-ID=alice"]);
    for (name, _) in REFUSED {
        command.args(["--denied", name]);
    }
    for step in SKIPPED {
        command.args(["--skip", step]);
    }
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{client} {mode} does not end")).unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{client} {mode}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_refusal_ends_the_connection_of_an_official_client_and_each_shows_its_reason() {
    let (_server, address) = python_server().await;
    let setup = Setup::before(Tasks::for_test(), gateway::GatewayLimits::default(), address);
    setup.gateway.routes().routes()[0].policy.apply(parsed(&policy()));
    let mut wrong = Vec::new();
    for (client, mode) in CLIENTS {
        let ledger = ledger(&setup, client, mode).await;
        // Everything went as it should, which includes the calls after the first refusal, and the end.
        if ledger["ok"] != true {
            wrong.push(format!("{client} {mode}: {}", ledger["failures"]));
        }
        let calls = ledger["calls"].as_array().unwrap();
        for (name, reason) in REFUSED {
            let Some(call) = calls.iter().find(|call| call["name"] == name) else {
                wrong.push(format!("{client} {mode}: {name} was not called"));
                continue;
            };
            let observed = &call["observed"];
            let told = observed["sdk"]["message"].as_str().unwrap_or_default();
            if observed["reason"] != reason || !told.contains(reason) {
                wrong.push(format!("{client} {mode}: {name} should be {reason}: {observed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
