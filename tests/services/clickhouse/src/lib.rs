//! A ClickHouse to test with: the engine of `server.py` beside this crate, in a folder of its own, or the server that
//! `CLICKHOUSE_URL` names.
#![expect(
    clippy::panic,
    reason = "only tests use this crate, and a test without its engine ends here"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Longest wait for the engine to answer: its library is a few hundred megabytes.
const START_WAIT_MAX: Duration = Duration::from_mins(2);
const HERE: &str = env!("CARGO_MANIFEST_DIR");

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A running engine. Dropping it ends it.
#[derive(Debug)]
pub struct Engine {
    folder: Option<TempDir>,
    child: Mutex<Option<Child>>,
    port: u16,
    url: String,
}

#[expect(clippy::disallowed_methods, reason = "a test is told by the environment what it may use")]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether there is an engine; told and not tested when there is none, except where everything must be there.
pub fn available() -> bool {
    let installed = told("MCP_RUNTIME_SERVICES").map_or_else(|| Path::new(HERE).join("../../../.services"), PathBuf::from);
    let there = told("CLICKHOUSE_URL").is_some() || installed.join("clickhouse/.installed").exists();
    assert!(
        there || told("CI").is_none(),
        "no ClickHouse engine: run tests/services/install.sh clickhouse, or set CLICKHOUSE_URL"
    );
    if !there {
        // Past the capture of test output, so that whoever reads the run sees it.
        let _closed = writeln!(
            std::io::stderr(),
            "skipped: no ClickHouse engine; run tests/services/install.sh clickhouse, or set CLICKHOUSE_URL"
        );
    }
    there
}

impl Engine {
    /// Starts one, or takes the one that is named.
    pub fn start() -> Self {
        let mut engine = Self {
            folder: None,
            child: Mutex::default(),
            port: 0,
            url: told("CLICKHOUSE_URL").unwrap_or_default(),
        };
        if engine.url.is_empty() {
            engine.folder = Some(TempDir::with_prefix("clickhouse.").expect("a temporary folder"));
            engine.port = engine.launch();
            engine.url = format!("http://127.0.0.1:{}", engine.port);
        }
        engine
    }

    /// Its HTTP interface.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it may be killed.
    pub fn is_ours(&self) -> bool {
        self.folder.is_some()
    }

    /// The name of a database that nobody else has.
    pub fn database(&self) -> String {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        format!("mcp_test_{}_{number}", std::process::id())
    }

    /// Kills it at once, as a lost machine would.
    pub fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _gone = child.kill();
            child.wait().expect("the end of the engine");
        }
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&self) {
        self.kill();
        self.launch();
    }

    /// Gives the port.
    fn launch(&self) -> u16 {
        let folder = self.folder.as_ref().expect("an engine of ours").path();
        let mut child = Command::new(Path::new(HERE).join("start.sh"))
            .arg(folder)
            // Some engines are shared by all tests of a process and end with it.
            .args(["--forget", "--port", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the engine");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (say, said) = sync_channel(1);
        thread::spawn(move || {
            let line = output.lines().next().and_then(Result::ok);
            let _unwanted = say.send(line);
        });
        let line = said.recv_timeout(START_WAIT_MAX).ok().flatten();
        let port = line.as_deref().and_then(|line| line.rsplit(':').next()?.parse().ok());
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        port.unwrap_or_else(|| panic!("the engine does not say where it listens: {line:?}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}
