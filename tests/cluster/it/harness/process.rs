//! Programs of the product as processes: each with its log in a file, none outliving its test.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::{http, setting, until};

/// Lines of a process's log that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// A program of this workspace as built before the suite.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    let path = own.ancestors().nth(2).expect("the folder of built programs").join(name);
    assert!(
        path.exists(),
        "{} does not exist; build it first: cargo build -p sentinel-ingest -p sentinel-processor -p platform-api --bins --features \
         sentinel-ingest/cluster,sentinel-processor/cluster,platform-api/cluster",
        path.display()
    );
    path
}

fn command(name: &str, args: &[String]) -> Command {
    let mut command = Command::new(program(name));
    command.args(args).env_clear().env("RUST_BACKTRACE", "1").kill_on_drop(true);
    for name in ["PATH", "LANG", "TMPDIR"] {
        command.envs(setting(name).map(|value| (name, value)));
    }
    command
}

/// Runs a program to its end and gives what it prints; it must end well.
pub(crate) async fn run(name: &str, args: &[String]) -> String {
    let output = command(name, args)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("starting a program");
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{name} {args:?}: {}\n{said}{complained}",
        output.status
    );
    said.into_owned()
}

/// A running service. A failing test shows the end of its log.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    args: Vec<String>,
    child: Child,
    folder: PathBuf,
    log: PathBuf,
    starts: u32,
}

impl Process {
    /// Starts it. Its addresses are known once it tells them.
    pub(crate) fn start(name: &'static str, folder: &Path, args: Vec<String>) -> Self {
        let (child, log) = launch(name, folder, &args, 0);
        Self {
            name,
            args,
            child,
            folder: folder.to_owned(),
            log,
            starts: 0,
        }
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("killing a process");
    }

    /// Asks it to end, and gives whether it ended well.
    pub(crate) async fn stop(&mut self) -> bool {
        self.signal("TERM");
        let ended = tokio::time::timeout(super::DEADLINE, self.child.wait()).await;
        ended.expect("a process that ends when asked").expect("its status").success()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().expect("a running process").to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("running kill").success(), "{name} to {}", self.name);
    }

    /// Starts it again after its end, with the same settings.
    pub(crate) fn restart(&mut self) {
        self.starts += 1;
        (self.child, self.log) = launch(self.name, &self.folder, &self.args, self.starts);
    }

    /// Where one of its listeners is.
    pub(crate) async fn address(&self, listener: &str) -> SocketAddr {
        until(&format!("{} tells where its {listener} listens", self.name), async || {
            self.listens(listener).ok_or_else(|| self.log_end())
        })
        .await
    }

    fn listens(&self, listener: &str) -> Option<SocketAddr> {
        let text = std::fs::read_to_string(&self.log).ok()?;
        let told = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields").unwrap_or(&line);
            (fields["listener"] == listener).then(|| fields["address"].as_str()?.parse().ok())?
        };
        text.lines().find_map(told)
    }

    /// What its admin page says.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address("admin").await);
        match http(Duration::from_secs(5)).get(url).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) {
        until(&format!("{} is ready", self.name), async || match self.page("/ready").await {
            (200, _) => Ok(()),
            (status, text) => Err(format!("{status} {text}\n{}", self.log_end())),
        })
        .await;
    }

    /// The end of its log.
    pub(crate) fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("{}:\n{}", self.log.display(), shown.join("\n"))
    }
}

fn launch(name: &str, folder: &Path, args: &[String], number: u32) -> (Child, PathBuf) {
    // Processors of one installation have the same name and number.
    let log = folder.join(format!("{name}-{number}-{}.log", uuid::Uuid::now_v7()));
    let file = File::create(&log).expect("a log file");
    let child = command(name, args)
        .args(["--log-format", "json", "--log-level", "info"])
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle of the log"))
        .stderr(file)
        .spawn()
        .expect("starting a program");
    (child, log)
}
