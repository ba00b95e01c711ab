//! The way of docs/getting-started.md: from an empty folder to a published server, an agent that may call one tool of it, and the record
//! of what it did.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{Home, Launch, Standalone, program, run, setting, skip, until};
use crate::sdk_clients::Upstream;

/// Whoever owns the data folder.
const OWNER: &str = "owner@localhost";

/// A server of the demo as metadata has it, in place of an image.
fn as_command(home: &Home) -> String {
    let demo = program("mcp-demo-server");
    // Run by a shell in the folder beside the metadata: what is given relative to it must be found there.
    std::os::unix::fs::symlink(demo, home.path().join("run-me")).expect("a link to the demo server");
    "    command: [./run-me]\n    args: [serve, --listen, '127.0.0.1:$(PORT)']\n".to_owned()
}

/// One line of the agent about each thing it did.
async fn agent(home: &Home, words: &[&str]) -> Result<Vec<Value>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/getting_started/agent.py");
    let script = script.display().to_string();
    let exit = run(&python(), home.path(), &[&[script.as_str()], words].concat()).await;
    let lines: Result<Vec<Value>, _> = exit.stdout.lines().map(serde_json::from_str).collect();
    match lines {
        Ok(lines) if exit.status.success() => Ok(lines),
        _ => Err(format!("the agent failed: {exit:?}")),
    }
}

fn python() -> PathBuf {
    let root = setting("MCP_RUNTIME_SERVICES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.services"), PathBuf::from);
    root.join("mcp1/bin/python")
}

/// Installs the official SDK, or says why that cannot be.
async fn has_sdk(test: &str) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/install.sh");
    let installed = Command::new(script).arg("python").output().await.expect("running install.sh");
    if !installed.status.success() {
        skip(test, &String::from_utf8_lossy(&installed.stderr));
    }
    installed.status.success()
}

/// One walk: the folder, and what it goes on with.
struct Walk {
    home: Home,
    launch: Launch,
    standalone: Standalone,
}

impl Walk {
    async fn begin() -> Self {
        let home = Home::new();
        let launch = home.launch().idle_store();
        let standalone = launch.start().await;
        Self {
            home,
            launch,
            standalone,
        }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// A command that must end well; gives what it printed.
    async fn does(&self, args: &[&str]) -> String {
        self.standalone.cli(args).await.well(&args.join(" ")).to_owned()
    }

    async fn publishes_a_command(&self) {
        let folder = self.path(".mcp");
        self.does(&[
            "server",
            "init",
            "payments",
            "--metadata-dir",
            &folder,
            "--tool",
            "list_invoices",
            "--tool-spec",
            "refund_invoice:high:destructive",
        ])
        .await;
        let file = Path::new(&folder).join("servers.yaml");
        let text = std::fs::read_to_string(&file).expect("metadata");
        let image = "    image: payments\n    imageTag: latest\n";
        assert!(text.contains(image), "{text}");
        std::fs::write(&file, text.replace(image, &as_command(&self.home))).expect("writing metadata");
        self.does(&["server", "validate", "--metadata-dir", &folder]).await;
        let said = self.does(&["server", "deploy", "payments", "--metadata-dir", &folder]).await;
        assert!(said.contains("payments in mcp-servers is ready: http://127.0.0.1:"), "{said}");
    }

    /// A grant and a session for the agent `cursor`; gives the session's token.
    async fn grants(&self, session: &str) -> String {
        let (grant, file) = (self.path("grant.yaml"), self.path(&format!("{session}.yaml")));
        self.does(&[
            "access",
            "grant",
            "init",
            "cursor",
            "--server",
            "payments",
            "--human-id",
            OWNER,
            "--agent-id",
            "cursor",
            "--tool",
            "list_invoices",
            "--output",
            &grant,
            "--force",
        ])
        .await;
        self.does(&["access", "grant", "apply", "--file", &grant]).await;
        let said = self
            .does(&[
                "access",
                "session",
                "init",
                session,
                "--server",
                "payments",
                "--human-id",
                OWNER,
                "--agent-id",
                "cursor",
                "--expires-in",
                "1h",
                "--output",
                &file,
            ])
            .await;
        let token = said
            .split_whitespace()
            .find(|word| word.starts_with("mcpa_"))
            .expect("a token");
        let text = std::fs::read_to_string(&file).expect("a manifest");
        assert!(
            text.contains("tokenHash: sha256:") && !text.contains(token),
            "the manifest tells the token: {text}"
        );
        self.does(&["access", "session", "apply", "--file", &file]).await;
        token.to_owned()
    }

    fn url(&self) -> String {
        format!("{}/payments/mcp", self.standalone.url)
    }

    /// What becomes of calls that present a session.
    async fn calls(&self, token: &str, tools: &[&str]) -> Result<Vec<Value>, String> {
        let (url, session) = (self.url(), format!("X-MCP-Agent-Session={token}"));
        let words = ["http", &url, &session, "X-MCP-Agent-ID=cursor", "--"];
        agent(&self.home, &[&words[..], tools].concat()).await
    }

    /// Waits until the next call is refused for this reason.
    async fn refuses(&self, token: &str, reason: &str) {
        until("a change of access comes into force", async || {
            let told = self.calls(token, &["list_invoices"]).await?;
            if told
                .last()
                .is_some_and(|call| call["ok"] == false && call["reason"] == reason)
            {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        })
        .await;
    }

    async fn restart(self) -> Self {
        let Self {
            home,
            launch,
            standalone,
        } = self;
        standalone.stop().await;
        let standalone = launch.start().await;
        Self {
            home,
            launch,
            standalone,
        }
    }

    async fn is_ready(&self, server: &str) {
        until("a server is ready", async || {
            let told = self
                .standalone
                .cli(&["server", "get", server, "-o", "json"])
                .await
                .json("a server");
            if told["ready"] == true {
                Ok(())
            } else {
                Err(told["message"].to_string())
            }
        })
        .await;
    }
}

fn by_tool<'a>(told: &'a [Value], tool: &str) -> &'a Value {
    told.iter()
        .find(|call| call["tool"] == tool)
        .unwrap_or_else(|| panic!("no call of {tool}: {told:?}"))
}

/// Number of the process that runs a server, as the log tells it.
fn pid_of(standalone: &Standalone, server: &str) -> String {
    let log = standalone.log();
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains("server started") && line.contains(&format!("server=\"{server}\"")));
    let pid = line
        .and_then(|line| line.split("pid=").nth(1))
        .and_then(|rest| rest.split_whitespace().next());
    pid.unwrap_or_else(|| panic!("no server {server} was started: {log}"))
        .to_owned()
}

async fn ends(pid: &str) {
    until("a server's process ends", async || {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(state) if !state.contains(") Z ") => Err(state),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_a_governed_server_and_back() {
    if !has_sdk("getting started").await {
        return;
    }
    let walk = Walk::begin().await;
    let upstream = Upstream::start(&program("mcp-demo-server"), &["serve", "--listen", "127.0.0.1:0"]).await;
    let said = walk.does(&["auth", "login", "--api-url", &walk.standalone.url]).await;
    assert!(said.contains(OWNER), "{said}");
    walk.publishes_a_command().await;
    let said = walk.does(&["server", "deploy", "books", "--upstream", &upstream.url]).await;
    assert!(said.contains("books in mcp-servers is ready"), "{said}");

    let token = walk.grants("first").await;
    is_judged(&walk, &token).await;

    let walk = walk.restart().await;
    walk.is_ready("payments").await;
    walk.is_ready("books").await;
    let told = walk.calls(&token, &["list_invoices"]).await.expect("calls after a restart");
    assert_eq!(by_tool(&told, "list_invoices")["ok"], true, "{told:?}");
    walk.does(&["access", "session", "revoke", "first"]).await;
    walk.refuses(&token, "session_revoked").await;

    let token = walk.grants("second").await;
    let told = walk
        .calls(&token, &["list_invoices"])
        .await
        .expect("calls with another session");
    assert_eq!(by_tool(&told, "list_invoices")["ok"], true, "{told:?}");
    walk.does(&["access", "grant", "delete", "cursor"]).await;
    walk.refuses(&token, "no_matching_grant").await;

    let logs = walk.does(&["server", "logs", "payments"]).await;
    assert!(
        logs.contains("started `./run-me serve --listen 127.0.0.1:") && logs.contains("{\"url\":"),
        "{logs}"
    );
    assert_eq!(walk.does(&["sentinel", "logs", "server", "payments"]).await, logs);
    seen_in_events(&walk).await;

    let pid = pid_of(&walk.standalone, "payments");
    let said = walk.does(&["server", "delete", "payments"]).await;
    assert!(said.contains("payments in mcp-servers is retired"), "{said}");
    ends(&pid).await;
    assert!(!walk.does(&["server", "list"]).await.contains("payments"));
    walk.standalone.stop().await;
}

/// One tool is allowed, the other refused with its reason, which can be asked for.
async fn is_judged(walk: &Walk, token: &str) {
    let told = walk
        .calls(token, &["list_invoices", "refund_invoice={\"id\":\"inv-1\"}"])
        .await
        .expect("calls");
    assert_eq!(
        told[0]["listed"],
        serde_json::json!(["list_invoices"]),
        "a list shows more than the caller may use"
    );
    assert_eq!(by_tool(&told, "list_invoices")["ok"], true, "{told:?}");
    let refused = by_tool(&told, "refund_invoice");
    assert_eq!(
        (&refused["ok"], &refused["reason"]),
        (&Value::Bool(false), &"tool_not_granted".into()),
        "{told:?}"
    );
    assert!(refused["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{refused}");

    let said = walk
        .does(&[
            "server",
            "policy",
            "explain",
            "payments",
            "--agent",
            "cursor",
            "--session",
            "first",
            "--tool",
            "refund_invoice",
        ])
        .await;
    assert!(said.contains("tool_not_granted") && said.contains("cursor"), "{said}");
    let said = walk
        .does(&["server", "call", "payments", "list_invoices", "--agent", "cursor"])
        .await;
    assert!(said.contains("invoices"), "{said}");
}

/// Calls and changes are in one record.
async fn seen_in_events(walk: &Walk) {
    until("calls and changes are recorded", async || {
        let page = walk
            .standalone
            .cli(&["sentinel", "events", "--limit", "500", "-o", "json"])
            .await
            .json("events");
        let events = page["events"].as_array().cloned().unwrap_or_default();
        let has = |wanted: &[(&str, &str)]| {
            let is = |event: &Value, name: &str| {
                event["payload"][name]
                    .as_str()
                    .or(event["payload"]["attributes"][name].as_str())
                    .map(str::to_owned)
            };
            events
                .iter()
                .any(|event| wanted.iter().all(|(name, value)| is(event, name).as_deref() == Some(*value)))
        };
        let wanted: [&[(&str, &str)]; 7] = [
            &[("tool_name", "list_invoices"), ("outcome", "ok"), ("agent_id", "cursor")],
            &[
                ("tool_name", "refund_invoice"),
                ("outcome", "denied"),
                ("reason", "tool_not_granted"),
            ],
            &[
                ("action", "server_publish"),
                ("resource", "server/payments"),
                ("actor_email", OWNER),
            ],
            &[("action", "grant_apply"), ("resource", "grant/cursor")],
            &[("action", "session_apply"), ("resource", "session/first")],
            &[("action", "session_revoke")],
            &[("action", "grant_delete")],
        ];
        match wanted.iter().find(|wanted| !has(wanted)) {
            None => Ok(()),
            Some(missing) => Err(format!("no event {missing:?} among {}", events.len())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_calls_through_the_adapter() {
    if !has_sdk("the adapter").await {
        return;
    }
    let walk = Walk::begin().await;
    walk.publishes_a_command().await;
    walk.grants("unused").await;
    let command = program("mcp-runtime").display().to_string();
    let url = walk.standalone.url.clone();
    let words = [
        "stdio",
        &command,
        "--api-url",
        &url,
        "adapter",
        "stdio",
        "--server",
        "payments",
        "--agent",
        "cursor",
        "--",
    ];
    let told = agent(
        &walk.home,
        &[&words[..], &["list_invoices", "refund_invoice={\"id\":\"inv-1\"}"]].concat(),
    )
    .await;
    let told = told.expect("an agent behind the adapter");
    assert_eq!(by_tool(&told, "list_invoices")["ok"], true, "{told:?}");
    assert_eq!(by_tool(&told, "refund_invoice")["ok"], false, "{told:?}");
    walk.standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_ran_ends_too() {
    let walk = Walk::begin().await;
    walk.publishes_a_command().await;
    let pid = pid_of(&walk.standalone, "payments");
    walk.standalone.kill().await;
    ends(&pid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_run_says_why() {
    let walk = Walk::begin().await;
    let fails = async |args: &[&str]| {
        let exit = walk.standalone.cli(args).await;
        assert_eq!(exit.status.code(), Some(6), "{exit:?}");
        exit.stderr
    };
    let said = fails(&[
        "server",
        "deploy",
        "short",
        "--timeout",
        "2s",
        "--",
        "sh",
        "-c",
        "echo tick; echo 'no battery' >&2; exit 3",
    ])
    .await;
    assert!(said.contains("ended (exit status: 3); its last words: no battery"), "{said}");
    let said = fails(&["server", "deploy", "absent", "--timeout", "2s", "--", "no-such-program"]).await;
    assert!(said.contains("`no-such-program` is on no folder of the PATH"), "{said}");
    let said = fails(&[
        "server",
        "deploy",
        "away",
        "--timeout",
        "7s",
        "--upstream",
        "http://127.0.0.1:9/mcp",
    ])
    .await;
    assert!(said.contains("nothing listens on 127.0.0.1:9"), "{said}");
    let logs = walk.does(&["server", "logs", "short", "--grep", "tick"]).await;
    assert!(logs.contains("tick"), "{logs}");
    let status = walk.does(&["sentinel", "status"]).await;
    assert!(
        status.contains("mcp-servers/short") && status.contains("not answering"),
        "{status}"
    );
    walk.standalone.stop().await;
}

/// A container engine as far as a server needs one: it runs the demo server on the published port.
const ENGINE: &str = r#"#!/bin/sh
[ "$1" = run ] || exit 0
for word; do case $word in 127.0.0.1:*:8088) port=${word#127.0.0.1:} ;; esac; done
echo "asked: $*" >&2
exec DEMO serve --listen "127.0.0.1:${port%%:*}"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_run_by_the_container_engine_that_is_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let programs = home.path().join("bin");
    std::fs::create_dir(&programs).expect("a folder");
    let launch = home.launch().idle_store().env("PATH", programs.display().to_string());
    let standalone = launch.start().await;
    let deploy = [
        "server",
        "deploy",
        "img",
        "--image",
        "acme/payments",
        "--tag",
        "v1",
        "--env",
        "TOKEN=secret-value",
    ];
    let exit = standalone.cli(&[&deploy[..], &["--timeout", "2s"]].concat()).await;
    assert_eq!(exit.status.code(), Some(6), "{exit:?}");
    assert!(
        exit.stderr.contains("neither docker nor podman is on the PATH; install one"),
        "{exit:?}"
    );

    let demo = program("mcp-demo-server").display().to_string();
    let engine = programs.join("podman");
    std::fs::write(&engine, ENGINE.replace("DEMO", &demo)).expect("an engine");
    std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let said = standalone.cli(&[&deploy[..], &["--update"]].concat()).await;
    assert!(
        said.well("deploying an image").contains("img in mcp-servers is ready"),
        "{said:?}"
    );
    let logs = standalone.cli(&["server", "logs", "img", "--grep", "asked"]).await;
    let logs = logs.well("the log of a container");
    assert!(
        logs.contains("--cap-drop=ALL") && logs.contains("acme/payments:v1") && logs.contains("--env TOKEN"),
        "{logs}"
    );
    assert!(!logs.contains("secret-value"), "a value is in the list of processes: {logs}");
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_no_key_may_look_and_change_nothing() {
    let walk = Walk::begin().await;
    let servers = format!("{}/api/v1/runtime/servers", walk.standalone.url);
    let wish = serde_json::json!({ "name": "evil", "spec": { "command": ["touch", "/tmp/x"] } });
    let http = &walk.standalone.http;
    assert_eq!(http.get(&servers).send().await.expect("an answer").status(), 200);
    let answer = http.post(&servers).json(&wish).send().await.expect("an answer");
    assert_eq!(answer.status(), 401);
    let text = answer.text().await.expect("a body");
    assert!(
        text.contains("changes need a credential") && text.contains("owner.key"),
        "{text}"
    );
    assert!(walk.does(&["server", "list"]).await.starts_with("No servers."));
    walk.standalone.stop().await;
}

const MANIFESTS: &str = "\
apiVersion: mcpruntime.org/v1alpha1
kind: MCPServer
metadata: {name: payments}
spec:
  gateway: {enabled: true, upstreamURL: UPSTREAM}
  session: {required: true, verification: name}
  tools: [{name: list_invoices, sideEffect: read}]
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: cursor}
spec: {serverRef: {name: payments}, subject: {agentID: cursor}, allowedSideEffects: [read]}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAgentSession
metadata: {name: s1}
spec: {serverRef: {name: payments}, subject: {agentID: cursor}, revoked: REVOKED}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_watched_and_one_bad_file_takes_no_other_down() {
    if !has_sdk("manifests").await {
        return;
    }
    let home = Home::new();
    let upstream = Upstream::start(&program("mcp-demo-server"), &["serve", "--listen", "127.0.0.1:0"]).await;
    let folder = home.path().join("manifests");
    let put = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("writing a manifest");
    let good = MANIFESTS.replace("UPSTREAM", &upstream.url);
    std::fs::create_dir(&folder).expect("a folder");
    put("payments.yaml", &good.replace("REVOKED", "false"));
    put(
        "bad.yaml",
        "apiVersion: mcpruntime.org/v1alpha1\nkind: MCPServer\nmetadata: {name: hr}\nspec: {prot: 1}\n",
    );
    let launch = home.launch().idle_store().arg("--manifests", folder.display().to_string());
    let standalone = launch.start().await;
    let walk = Walk {
        home,
        launch,
        standalone,
    };
    let told = walk
        .calls("s1", &["list_invoices", "get_invoice={\"id\":\"inv-1\"}"])
        .await
        .expect("calls");
    assert_eq!(by_tool(&told, "list_invoices")["ok"], true, "{told:?}");
    assert_eq!(by_tool(&told, "get_invoice")["ok"], false, "{told:?}");
    let log = walk.standalone.log();
    assert!(log.contains("bad.yaml:4: unknown field `prot`"), "{log}");
    assert!(walk.does(&["sentinel", "status"]).await.contains("enforce"));
    put("payments.yaml", &good.replace("REVOKED", "true"));
    walk.refuses("s1", "session_revoked").await;
    walk.standalone.stop().await;
}
