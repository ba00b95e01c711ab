//! Programs and folders of a test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// Longest wait for anything. Machines are shared and builds are not optimised.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The command under test, with a home of its own.
pub(crate) fn mcp_runtime(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-runtime"));
    command
        .env("MCP_RUNTIME_CONFIG_DIR", home)
        .env("HOME", home)
        .kill_on_drop(true);
    command
}

/// A file of the repository's tests.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Exit {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub(crate) async fn run(command: &mut Command) -> Exit {
    // The first run installs and builds what the tests stand on.
    let output = timeout(DEADLINE * 20, command.stdin(Stdio::null()).output()).await;
    let output = output.expect("the command took too long").expect("starting the command");
    Exit {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Says that a test cannot run here. In CI that is a failure.
pub(crate) fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    assert!(setting("CI").as_deref() != Some("true"), "{test} was skipped: {reason}");
    // Past the capture of test output, so that whoever reads the run sees it.
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").ok();
}

#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Installs third-party parts, or says why that cannot be.
pub(crate) async fn installed(parts: &str) -> Result<PathBuf, String> {
    let output = run(Command::new(script("services/install.sh")).arg(parts)).await;
    match output.code {
        Some(0) => Ok(PathBuf::from(output.stdout.trim())),
        _ => Err(format!("installing {parts}: {}", output.stderr.trim())),
    }
}

/// A server that prints where it is, and ends with its standard input.
pub(crate) struct Upstream {
    pub(crate) url: String,
    _child: Child,
    _stdin: ChildStdin,
}

impl Upstream {
    pub(crate) async fn start(program: &str) -> Self {
        let mut child = Command::new(script(program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("starting the server");
        let stdin = child.stdin.take().expect("its standard input");
        let mut lines = BufReader::new(child.stdout.take().expect("its standard output")).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.expect("no address in time");
        let line: Value = serde_json::from_str(&line.unwrap().expect("a line")).expect("the address as JSON");
        Self {
            url: line["url"].as_str().expect("a URL").to_owned(),
            _child: child,
            _stdin: stdin,
        }
    }
}
