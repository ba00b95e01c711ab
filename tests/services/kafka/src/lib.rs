//! Real Kafka brokers for tests: started, killed, paused and restarted on demand. `kafka.sh` beside this crate does the work and
//! works by hand as well.
#![expect(
    clippy::panic,
    reason = "only tests use this crate, and a test without its broker ends here"
)]

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
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
    behind: Option<SocketAddr>,
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
        Self::launch(brokers, None)
    }

    /// Starts one broker that has one more address, which it sends clients to under another: that of a proxy, which the test puts
    /// between.
    pub fn start_behind(proxy: SocketAddr) -> Self {
        Self::launch(1, Some(proxy))
    }

    fn launch(brokers: usize, proxy: Option<SocketAddr>) -> Self {
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
        let behind = proxy.map(|proxy| listen_behind(dir.path(), proxy));
        let brokers: Vec<_> = (1..=brokers).map(|node| Broker::spawn(dir.path(), node)).collect();
        let cluster = Self {
            bootstrap,
            sasl_bootstrap,
            behind,
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

    /// Where the proxy reaches the broker.
    pub fn behind_proxy(&self) -> SocketAddr {
        self.behind.expect("a broker that was started behind a proxy")
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

/// Gives the broker an address whose clients are sent to the proxy, and returns it. Of a setting that is there twice, the later counts.
fn listen_behind(dir: &Path, proxy: SocketAddr) -> SocketAddr {
    // Free a moment ago, and below the ports that the system gives to clients.
    let own = (20_000..32_000)
        .step_by(37)
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok())
        .expect("a free port");
    let path = dir.join("1.properties");
    let text = std::fs::read_to_string(&path).expect("the broker's settings");
    let setting = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let added = format!(
        "listeners={},PROXIED://{own}\nadvertised.listeners={},PROXIED://{proxy}\nlistener.security.protocol.map={},PROXIED:PLAINTEXT\n",
        setting("listeners"),
        setting("advertised.listeners"),
        setting("listener.security.protocol.map"),
    );
    std::fs::write(&path, text.clone() + &added).expect("writing the broker's settings");
    own
}

fn signal(name: &str, pid: &str) {
    if !pid.is_empty() {
        let _gone = Command::new("kill").args(["-s", name, pid]).stderr(Stdio::null()).status();
    }
}
