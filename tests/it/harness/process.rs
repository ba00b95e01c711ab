//! Processes of the product: each in a folder of its own, with an environment of its own, never outliving its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Answer, DEADLINE, setting, until};

/// Lines of a process's log that a failure shows.
const LOG_LINES_SHOWN: usize = 60;
/// Longest wait for one HTTP answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(90);

/// One test's place on disk: home folder, data folder, logs.
#[derive(Debug)]
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder that `up` keeps its data in.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// `up` on the data folder, with nothing else asked for.
    pub(crate) fn launch(&self) -> Launch {
        Launch {
            home: self.path().to_owned(),
            data: self.data(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }
}

/// A program of this workspace as built before the suite.
pub(crate) fn program(name: &str) -> PathBuf {
    let named = (name == "mcp-runtime").then(|| setting("MCP_RUNTIME_BIN")).flatten();
    let path = named.map_or_else(
        || {
            let own = std::env::current_exe().expect("the path of this test");
            own.ancestors().nth(2).expect("the folder of built programs").join(name)
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} does not exist; build it first: cargo build -p cli -p demo-server",
        path.display()
    );
    path
}

/// How to start the standalone.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    home: PathBuf,
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Launch {
    pub(crate) fn arg(mut self, name: &str, value: impl Into<String>) -> Self {
        self.args.extend([name.to_owned(), value.into()]);
        self
    }

    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    pub(crate) fn server(self, name: &str, url: &str) -> Self {
        self.arg("--server", format!("{name}={url}"))
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// On another data folder.
    pub(crate) fn data(mut self, dir: PathBuf) -> Self {
        self.data = dir;
        self
    }

    /// Small files, written soon: a run of seconds sees what a day of use would.
    pub(crate) fn busy_store(self) -> Self {
        self.arg("--flush-age", "250ms")
    }

    /// Nothing is written to files while a test runs: events are in the log and in memory.
    pub(crate) fn idle_store(self) -> Self {
        self.arg("--flush-age", "1h")
    }

    /// Starts and waits until it is ready.
    pub(crate) async fn start(&self) -> Standalone {
        let mut standalone = self.spawn();
        let run = until("the standalone notes its address", async || {
            if let Some(status) = standalone.child.try_wait().expect("the state of a child") {
                panic!("it ended while starting: {status}");
            }
            self.note(standalone.pid)
        })
        .await;
        run["url"]
            .as_str()
            .expect("a URL in run.json")
            .clone_into(&mut standalone.url);
        let key = std::fs::read_to_string(self.data.join("ingest.key")).expect("an ingest key in the data folder");
        key.trim().clone_into(&mut standalone.key);
        let key = std::fs::read_to_string(self.data.join("owner.key")).expect("the owner's key in the data folder");
        key.trim().clone_into(&mut standalone.owner_key);
        standalone
    }

    /// Waits until the process of this number says that it is ready.
    pub(crate) async fn noted(&self, pid: u32) {
        until("the standalone notes its address", async || self.note(pid).map(drop)).await;
    }

    fn note(&self, pid: u32) -> Result<Value, String> {
        let path = self.data.join("run.json");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let run: Value = serde_json::from_str(&text).map_err(|error| format!("run.json is not whole: {error}: {text}"))?;
        // A process that was killed leaves its note behind.
        if run["pid"] == json!(pid) {
            Ok(run)
        } else {
            Err(format!("the note of an earlier process: {run}"))
        }
    }

    /// Starts without waiting for anything.
    pub(crate) fn spawn(&self) -> Standalone {
        let log = tempfile::Builder::new()
            .prefix("up-")
            .suffix(".log")
            .tempfile_in(&self.home)
            .expect("a log file");
        let (log_file, log) = log.keep().expect("a log file that stays");
        let mut command = bare(&program("mcp-runtime"), &self.home);
        command
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.data)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().expect("a second handle of the log"))
            .stderr(log_file);
        let child = command.spawn().expect("starting mcp-runtime");
        let pid = child.id().expect("a process that was just started");
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_WAIT_MAX)
            .build()
            .expect("an HTTP client");
        Standalone {
            child,
            pid,
            url: String::new(),
            key: String::new(),
            owner_key: String::new(),
            http,
            log,
            home: self.home.clone(),
        }
    }

    /// Starts and waits until it gives up by itself.
    pub(crate) async fn refused(&self) -> Exit {
        let mut standalone = self.spawn();
        let status = timeout(DEADLINE, standalone.child.wait()).await;
        let status = status
            .unwrap_or_else(|_| panic!("it went on running instead of refusing to start"))
            .expect("an exit status");
        Exit {
            status,
            stdout: String::new(),
            stderr: standalone.log(),
        }
    }
}

/// A program with nothing of our environment but what every program needs.
fn bare(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", home)
        .env("RUST_BACKTRACE", "1")
        .kill_on_drop(true);
    for name in ["PATH", "LANG", "TMPDIR", "MCP_RUNTIME_SERVICES"] {
        command.envs(setting(name).map(|value| (name, value)));
    }
    command
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Exit {
    /// Its standard output, when it ended well.
    #[track_caller]
    pub(crate) fn well(&self, what: &str) -> &str {
        assert!(self.status.success(), "{what}: {self:?}");
        &self.stdout
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self, what: &str) -> Value {
        serde_json::from_str(self.well(what)).unwrap_or_else(|error| panic!("{what}: no JSON: {error}: {self:?}"))
    }
}

/// Runs a program to its end.
pub(crate) async fn run(program: &Path, home: &Path, args: &[&str]) -> Exit {
    let output = timeout(ANSWER_WAIT_MAX, bare(program, home).args(args).stdin(Stdio::null()).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{} {args:?} did not end", program.display()));
    let output = output.unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Exit {
        status: output.status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A running `mcp-runtime up`. A failing test shows the end of its log.
#[derive(Debug)]
pub(crate) struct Standalone {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) url: String,
    /// Ingest key of the default namespace.
    pub(crate) key: String,
    /// Key of whoever owns the data folder.
    owner_key: String,
    pub(crate) http: reqwest::Client,
    log: PathBuf,
    home: PathBuf,
}

impl Standalone {
    /// Everything it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap_or_else(|error| panic!("no answer: {error:?}"));
        Answer::of(response)
            .await
            .unwrap_or_else(|error| panic!("the answer broke off: {error:?}"))
    }

    /// A request; those to the API come from the owner of the data folder.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        if path.starts_with("/api/") {
            request.bearer_auth(&self.owner_key)
        } else {
            request
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(self.request(reqwest::Method::GET, path)).await
    }

    /// A body for ingest, with the key of the default namespace.
    pub(crate) fn ingest(&self, content_type: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.request(reqwest::Method::POST, "/events").header("x-api-key", &self.key);
        request.header("content-type", content_type).body(body)
    }

    /// Events as one JSON body; each must be taken.
    pub(crate) async fn send(&self, events: &[Value]) {
        let answer = self.ask(self.ingest("application/json", json!(events).to_string())).await;
        assert_eq!(
            answer.taken(),
            Some((events.len() as u64, 0)),
            "sending {} events: {answer:?}",
            events.len()
        );
    }

    /// Asks in SQL, and takes the answer as it is.
    pub(crate) async fn ask_sql(&self, sql: &str) -> Answer {
        self.ask(
            self.request(reqwest::Method::POST, "/api/v1/query")
                .json(&json!({ "sql": sql })),
        )
        .await
    }

    /// One number in SQL; an empty sum is 0.
    pub(crate) async fn number(&self, sql: &str) -> u64 {
        let answer = self.ask_sql(sql).await.expect(200, sql);
        let cell = &answer.body["rows"][0][0];
        let number = cell
            .as_u64()
            .or_else(|| cell.as_str().and_then(|text| text.parse().ok()))
            .or(cell.is_null().then_some(0));
        number.unwrap_or_else(|| panic!("{sql}: no number: {answer:?}"))
    }

    /// Waits until so many events are counted, and checks that they do not become more in the same look.
    pub(crate) async fn counts(&self, events: u64, what: &str) {
        until(what, async || {
            let stored = self.number("select count(*) from events").await;
            assert!(stored <= events, "{what}: {stored} events stored, {events} expected");
            if stored == events {
                Ok(())
            } else {
                Err(format!("{stored} of {events} events stored"))
            }
        })
        .await;
    }

    /// Waits until there are events.
    pub(crate) async fn has_events(&self, what: &str) {
        until(what, async || match self.number("select count(*) from events").await {
            0 => Err("no event is stored".to_owned()),
            _ => Ok(()),
        })
        .await;
    }

    pub(crate) async fn is_ready(&self) {
        self.get("/ready").await.expect(200, "it must still be ready");
    }

    /// The command line against this process.
    pub(crate) async fn cli(&self, args: &[&str]) -> Exit {
        let mut all = vec!["--api-url", &self.url];
        all.extend(args);
        run(&program("mcp-runtime"), &self.home, &all).await
    }

    /// The command line against this process, left running.
    pub(crate) fn cli_follow(&self, args: &[&str]) -> (Child, PathBuf) {
        let out = tempfile::Builder::new()
            .prefix("follow-")
            .tempfile_in(&self.home)
            .expect("a file for the output");
        let (file, path) = out.keep().expect("a file that stays");
        let child = bare(&program("mcp-runtime"), &self.home)
            .args(["--api-url", &self.url])
            .args(args)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(File::create(path.with_extension("err")).expect("a file for the errors"))
            .spawn()
            .expect("starting mcp-runtime");
        (child, path)
    }

    /// Most memory it ever had resident, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the state of the process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Asks it to stop.
    pub(crate) async fn ask_to_stop(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.pid.to_string()])
            .status()
            .await
            .expect("running kill");
        assert!(sent.success(), "sending SIGTERM to {}", self.pid);
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = timeout(DEADLINE, self.child.wait()).await;
        status
            .unwrap_or_else(|_| panic!("it did not stop within {} s", DEADLINE.as_secs()))
            .expect("an exit status")
    }

    /// Stops it as an operator would; it must say that all went well.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop().await;
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "after SIGTERM it ended with {status}");
    }

    /// Ends it with SIGKILL. It must have been running.
    pub(crate) async fn kill(mut self) {
        if let Some(status) = self.child.try_wait().expect("the state of a child") {
            panic!("it had ended by itself before it was killed: {status}");
        }
        self.child.kill().await.expect("killing a child");
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- end of the log of process {} ---\n{}", self.pid, lines[from..].join("\n"));
        }
    }
}
