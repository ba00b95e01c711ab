//! Real Kafka brokers for tests: started, killed, paused and restarted on demand. `kafka.sh` beside this crate does the work and
//! works by hand as well.
#![expect(
    clippy::panic,
    reason = "only tests use this crate, and a test without its broker ends here"
)]

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Longest wait for a broker to start: a loaded machine takes tens of seconds for what an idle one does in three.
const START_WAIT_MAX: Duration = Duration::from_mins(2);
/// Lines of a broker's log that a failure shows.
const LOG_LINES_SHOWN: usize = 20;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka.sh");

/// Brokers of one cluster. They end with it, and with this process.
#[derive(Debug)]
pub struct Cluster {
    bootstrap: String,
    sasl_bootstrap: String,
    brokers: Vec<Mutex<Broker>>,
    dir: TempDir,
}

#[derive(Debug)]
struct Broker {
    /// The script. It ends with the broker, and the broker with its input.
    script: Child,
    said: Receiver<String>,
    /// The broker itself.
    pid: String,
}

impl Cluster {
    /// One broker for all tests of this process; it ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1))
    }

    /// Starts 1 to 3 brokers and waits until all are ready.
    pub fn start(brokers: usize) -> Self {
        let dir = TempDir::with_prefix("kafka.").expect("a temporary folder");
        let output = Command::new(SCRIPT)
            .args(["format".as_ref(), dir.path().as_os_str(), brokers.to_string().as_ref()])
            .stderr(Stdio::inherit())
            .output()
            .expect("running kafka.sh");
        assert!(output.status.success(), "kafka.sh format: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let address = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}in: {text}")).to_owned()
        };
        let (bootstrap, sasl_bootstrap) = (address("bootstrap "), address("sasl "));
        let brokers: Vec<_> = (1..=brokers).map(|node| Broker::spawn(dir.path(), node)).collect();
        let cluster = Self {
            bootstrap,
            sasl_bootstrap,
            brokers: brokers.into_iter().map(Mutex::new).collect(),
            dir,
        };
        for node in 1..=cluster.brokers.len() {
            cluster.await_ready(node);
        }
        cluster
    }

    /// Addresses for clients, `host:port` with commas between.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The same for clients that show a name and a password: `tester` and `secret`, SASL PLAIN without TLS.
    pub fn sasl_bootstrap(&self) -> &str {
        &self.sasl_bootstrap
    }

    /// Ends a broker as a crash would.
    pub fn kill(&self, node: usize) {
        let mut broker = self.brokers[node - 1].lock().unwrap_or_else(PoisonError::into_inner);
        signal("KILL", &broker.pid);
        broker.script.wait().expect("the end of kafka.sh");
    }

    /// Stops a broker in its tracks; its connections stay open and silent.
    pub fn pause(&self, node: usize) {
        signal("STOP", &self.pid(node));
    }

    /// Lets a paused broker go on.
    pub fn resume(&self, node: usize) {
        signal("CONT", &self.pid(node));
    }

    /// Starts a killed broker on what it left behind, and waits until it is ready.
    pub fn restart(&self, node: usize) {
        *self.brokers[node - 1].lock().unwrap_or_else(PoisonError::into_inner) = Broker::spawn(self.dir.path(), node);
        self.await_ready(node);
    }

    fn pid(&self, node: usize) -> String {
        self.brokers[node - 1]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pid
            .clone()
    }

    fn await_ready(&self, node: usize) {
        let mut broker = self.brokers[node - 1].lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(fault) = broker.await_ready() {
            panic!(
                "broker {node} is not ready: {fault}; the end of its log:\n{}",
                self.log_end(node)
            );
        }
    }

    fn log_end(&self, node: usize) -> String {
        let log = std::fs::read_to_string(self.dir.path().join(format!("{node}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.iter().rev().take(LOG_LINES_SHOWN).rev();
        shown.fold(String::new(), |mut text, line| {
            let _infallible = writeln!(text, "  {line}");
            text
        })
    }
}

impl Broker {
    fn spawn(dir: &Path, node: usize) -> Self {
        let mut script = Command::new(SCRIPT)
            .args(["broker".as_ref(), dir.as_os_str(), node.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("running kafka.sh");
        let output = BufReader::new(script.stdout.take().expect("a pipe"));
        let (say, said) = sync_channel(8);
        thread::spawn(move || {
            for line in output.lines().map_while(io::Result::ok) {
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            script,
            said,
            pid: String::new(),
        }
    }

    fn await_ready(&mut self) -> Result<(), String> {
        loop {
            let line = self.said.recv_timeout(START_WAIT_MAX).map_err(|error| error.to_string())?;
            match line.split_once(' ') {
                Some(("pid", pid)) => pid.clone_into(&mut self.pid),
                Some(("ready", _)) => return Ok(()),
                _ => return Err(format!("kafka.sh says: {line}")),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A paused broker does not notice that it is killed on some systems.
        signal("CONT", &self.pid);
        drop(self.script.stdin.take());
        let _gone = self.script.wait();
    }
}

fn signal(name: &str, pid: &str) {
    if !pid.is_empty() {
        let _gone = Command::new("kill").args(["-s", name, pid]).stderr(Stdio::null()).status();
    }
}
