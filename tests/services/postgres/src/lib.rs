//! A real PostgreSQL server for tests, from the programs of the system. `postgres.sh` beside this crate works by hand as well.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/postgres.sh");

/// A server of one's own. It ends with this value, and with this process.
#[derive(Debug)]
pub struct Server {
    address: Address,
    script: Child,
}

/// How other processes reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    folder: String,
    programs: String,
}

impl Server {
    /// Starts a server and waits until it answers. Fails with what is missing.
    pub fn start() -> Result<Self, String> {
        let mut script = Command::new(SCRIPT)
            .arg("run")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("running postgres.sh");
        let mut line = String::new();
        let output = script.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line of postgres.sh");
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            let status = script.wait().expect("the end of postgres.sh");
            return Err(format!("postgres.sh ended with {status}; what it lacked is above"));
        };
        let text = |name: &str| said[name].as_str().expect("a text").to_owned();
        Ok(Self {
            address: Address {
                folder: text("folder"),
                programs: text("bin"),
            },
            script,
        })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        drop(self.script.wait());
    }
}

impl Address {
    /// One word for an environment variable.
    pub fn to_word(&self) -> String {
        format!("{}:{}", self.folder, self.programs)
    }

    /// Reads such a word.
    pub fn of_word(word: &str) -> Option<Self> {
        let (folder, programs) = word.split_once(':')?;
        Some(Self {
            folder: folder.to_owned(),
            programs: programs.to_owned(),
        })
    }

    /// Makes an empty database, and gives its address as programs take it.
    pub fn create(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(format!("{}/createdb", self.programs))
            .args(["--host", &self.folder, "--username", "postgres", &name])
            .output()
            .expect("running createdb");
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://postgres@localhost/{name}?host={}", self.folder)
    }
}
