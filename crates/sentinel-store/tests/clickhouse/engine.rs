//! A ClickHouse to test with: the engine of `tests/services`, in a folder of its own, or the server that `CLICKHOUSE_URL` names.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sentinel_store::clickhouse::{ClickHouseStore, Config, apply};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Longest wait for the engine to answer: its library is a few hundred megabytes.
const START_MAX: Duration = Duration::from_mins(2);

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A running engine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Engine {
    folder: Option<TempDir>,
    child: Option<Child>,
    port: u16,
    url: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[expect(clippy::disallowed_methods, reason = "a test is told by the environment what it may use")]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether there is an engine; told and not tested when there is none, except where everything must be there.
pub(crate) fn available() -> bool {
    let installed = told("MCP_RUNTIME_SERVICES").map_or_else(|| repository().join(".services"), PathBuf::from);
    let there = told("CLICKHOUSE_URL").is_some() || installed.join("clickhouse/.installed").exists();
    assert!(
        there || told("CI").is_none(),
        "no ClickHouse engine: run tests/services/install.sh clickhouse, or set CLICKHOUSE_URL"
    );
    if !there {
        eprintln!("skipped: no ClickHouse engine; run tests/services/install.sh clickhouse, or set CLICKHOUSE_URL");
    }
    there
}

/// How many seeds to try: more on demand.
pub(crate) fn runs(usual: u64) -> u64 {
    told("CLICKHOUSE_FAULT_RUNS")
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(usual)
}

impl Engine {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        if let Some(url) = told("CLICKHOUSE_URL") {
            return Self {
                folder: None,
                child: None,
                port: 0,
                url,
            };
        }
        let folder = tempfile::tempdir().expect("making a folder");
        let mut engine = Self {
            folder: Some(folder),
            child: None,
            port: 0,
            url: String::new(),
        };
        engine.launch().await;
        engine
    }

    /// Whether it may be killed.
    pub(crate) fn is_ours(&self) -> bool {
        self.folder.is_some()
    }

    async fn launch(&mut self) {
        let folder = self.folder.as_ref().expect("an engine of ours").path();
        let mut command = Command::new(repository().join("tests/services/clickhouse/start.sh"));
        command
            .arg(folder)
            .args(["--port", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("starting the engine");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = tokio::time::timeout(START_MAX, lines.next_line())
            .await
            .expect("the engine answers in time")
            .expect("reading what it says")
            .expect("it says where it listens");
        let address = line.strip_prefix("listening on ").expect("where it listens");
        self.port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("its port");
        self.url = format!("http://{address}");
        self.child = Some(child);
    }

    /// Kills it at once, as a lost machine would.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("killing the engine");
        }
    }

    /// Starts it again on the same folder and port.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.launch().await;
    }

    /// Settings of a store in a database that nobody else has.
    pub(crate) fn config(&self) -> Config {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        Config {
            database: format!("mcp_test_{}_{number}", std::process::id()),
            ..Config::single(&self.url)
        }
    }

    /// An empty store.
    pub(crate) async fn store(&self) -> ClickHouseStore {
        open(self.config()).await
    }
}

/// Applies the migrations and opens the store.
pub(crate) async fn open(config: Config) -> ClickHouseStore {
    apply(&config).await.expect("applying the migrations");
    ClickHouseStore::open(config).await.expect("opening the store")
}
