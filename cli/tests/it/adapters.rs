//! Official SDK clients and the inspector with the adapter as their server.

use tokio::process::Command;

use crate::harness::{Upstream, installed, mcp_runtime, run, script, skip};

const DRIVERS: [(&str, &str); 8] = [
    ("ts1", "legacy"),
    ("ts2", "legacy"),
    ("ts2", "auto"),
    ("ts2", "modern"),
    ("py1", "legacy"),
    ("py2", "legacy"),
    ("py2", "auto"),
    ("py2", "modern"),
];

#[tokio::test]
async fn official_clients_are_served_on_standard_input_and_output() {
    for part in ["node", "python"] {
        if let Err(reason) = installed(part).await {
            return skip("adapters", &reason);
        }
    }
    let upstream = Upstream::start("services/python_server.sh").await;
    let mut failures = Vec::new();
    for (driver, mode) in DRIVERS {
        let adapter = env!("CARGO_BIN_EXE_mcp-runtime");
        let words = [driver, mode, "--", adapter, "adapter", "stdio", "--url", &upstream.url];
        let exit = run(Command::new(script("adapters/run")).args(words)).await;
        if exit.code != Some(0) || exit.json()["ok"] != true {
            failures.push(format!("{driver} {mode}: {exit:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn the_inspector_calls_a_tool_of_server_everything() {
    let services = match installed("node").await {
        Ok(services) => services,
        Err(reason) => return skip("inspector", &reason),
    };
    let upstream = Upstream::start("services/everything.sh").await;
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(services.join("bin/node"));
    command.arg(services.join("npm/node_modules/.bin/mcp-inspector")).arg("--cli");
    command.args([env!("CARGO_BIN_EXE_mcp-runtime"), "adapter", "stdio", "--url", &upstream.url]);
    command.args(["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"]);
    let exit = run(command.env("HOME", home.path())).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains("Echo: hello"), "{exit:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_a_json_rpc_error() {
    use tokio::io::AsyncWriteExt as _;
    let home = tempfile::tempdir().unwrap();
    let mut command = mcp_runtime(home.path());
    command.args([
        "adapter",
        "stdio",
        "--url",
        "http://127.0.0.1:1/mcp",
        "--reconnect-timeout",
        "0s",
        "--exit-wait",
        "1m",
    ]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/list\"}\n")
        .await
        .unwrap();
    let output = child.wait_with_output().await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (told["id"].as_i64(), told["error"]["data"]["reason"].as_str()),
        (Some(7), Some("unreachable"))
    );
    assert!(output.status.success());
}
