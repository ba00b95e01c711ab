//! The session of an adapter: had from the platform, renewed across its end, ended by somebody, and kept through a restart.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::harness::{DEADLINE, mcp_runtime};
use crate::platform::Platform;

struct Adapter {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Adapter {
    fn start(home: &Path, platform: &Platform, options: &[&str]) -> Self {
        let mut command = mcp_runtime(home);
        command.args([
            "--api-url",
            &platform.url,
            "adapter",
            "stdio",
            "--server",
            "payments",
            "--agent",
            "cursor",
        ]);
        command
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        Self {
            input: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            next: 0,
        }
    }

    async fn call(&mut self) -> Value {
        self.next += 1;
        let message = json!({ "jsonrpc": "2.0", "id": self.next, "method": "tools/call", "params": { "name": "pay" } });
        self.input
            .as_mut()
            .unwrap()
            .write_all(format!("{message}\n").as_bytes())
            .await
            .unwrap();
        let line = timeout(DEADLINE, self.lines.next_line()).await.expect("no answer in time");
        let answer: Value = serde_json::from_str(&line.unwrap().expect("standard output ended")).unwrap();
        assert_eq!(answer["id"], self.next);
        answer
    }

    async fn leave(mut self) {
        drop(self.input.take());
        assert!(timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap().success());
        assert_eq!(
            self.lines.next_line().await.unwrap(),
            None,
            "standard output holds answers alone"
        );
    }
}

#[tokio::test]
async fn a_session_is_renewed_across_its_end() {
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_secs(2)).await;
    let mut adapter = Adapter::start(home.path(), &platform, &["--auto-refresh"]);
    assert_eq!(adapter.call().await["result"]["agent"], "cursor");
    // Well past the first end, by the platform's own count of renewals.
    let renewed = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while platform.memory().refreshed < 3 {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, renewed).await.expect("the session was not renewed");
    assert_eq!(adapter.call().await["result"]["agent"], "cursor");
    assert_eq!(platform.counts(), (1, 2));
    adapter.leave().await;
}

#[tokio::test]
async fn a_revoked_session_is_told_and_no_other_one_is_made() {
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_hours(1)).await;
    let mut adapter = Adapter::start(home.path(), &platform, &["--auto-refresh"]);
    adapter.call().await;
    platform.memory().is_revoked = true;
    for _ in 0..3 {
        let error = adapter.call().await["error"].take();
        assert_eq!(error["data"]["reason"], "session_revoked", "{error}");
        assert!(error["message"].as_str().unwrap().contains("revoked"), "{error}");
        assert_eq!(error["data"]["hint"], "ask an owner");
    }
    assert_eq!(platform.counts(), (1, 1));
    adapter.leave().await;
}

#[tokio::test]
async fn calls_wait_for_a_platform_that_restarts() {
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_hours(1)).await;
    let mut adapter = Adapter::start(home.path(), &platform, &["--auto-refresh", "--reconnect-timeout", "1m"]);
    adapter.call().await;
    let restart = platform.stop().await;
    let (answer, platform) = tokio::join!(adapter.call(), restart());
    assert_eq!(answer["result"]["agent"], "cursor", "{answer}");
    assert_eq!(platform.counts(), (1, 2));
    adapter.leave().await;
}

#[tokio::test]
async fn an_adapter_without_a_platform_says_so_to_its_client() {
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_hours(1)).await;
    let restart = platform.stop().await;
    let gone = restart().await;
    let url = gone.url.clone();
    drop(gone.stop().await);
    let mut command = mcp_runtime(home.path());
    command.args([
        "--api-url",
        &url,
        "adapter",
        "stdio",
        "--server",
        "payments",
        "--agent",
        "cursor",
        "--exit-wait",
        "1m",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}\n")
        .await
        .unwrap();
    drop(input);
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["error"]["data"]["reason"], "platform_unreachable", "{told}");
}
