//! The commands in README.md and docs/, run as they stand there.
//!
//! Each fenced block of `sh` runs in one shell, in the order of the page, against a demo of its own. The shell finds our programs on its path
//! and has the address of the demo put in for the documented one; nothing else is changed. A block that a suite of its own covers
//! is listed in [`ELSEWHERE`] with that suite.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::harness::{Home, Standalone, program};

/// The address that pages show.
const SHOWN: &str = "http://127.0.0.1:8080";
/// Longest run of a block, and how long a command that follows is watched at most.
const DEADLINE: Duration = Duration::from_mins(1);

/// Commands that are run by something else, and by what.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "make demo",
        "`up --demo` is what every block here runs against; the build is the suite's own",
    ),
    ("make test", "is what runs this test"),
    ("make check", "is part of `make test`"),
    ("make bench", "measures for an hour, on a quiet machine"),
    (
        "mcp-runtime up ",
        "starts a stack of its own: restart.rs, kill.rs and sdk_clients.rs start it with these options",
    ),
    ("alias ", "the shell here finds the program on its path"),
];

/// Commands that change a file and have nothing to say.
const EDITS: &str = "sed -i ";

/// The page that begins with nothing: it is run against a standalone without the demo, which has a server of the same name.
const FROM_NOTHING: &str = "getting-started.md";

/// Pages whose commands are run against a demo.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace's folder");
    ["README.md", "docs/alerts.md", "docs/getting-started.md"]
        .iter()
        .map(|page| root.join(page))
        .filter(|page| page.exists())
        .collect()
}

/// The blocks of a page that a shell would run, with the line each begins at.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut block, line.trim_start()) {
            (None, "```sh") => block = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(block.is_none(), "a block does not end");
    blocks
}

/// The commands of a block: lines that end in a backslash go on.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(ToOwned::to_owned)
        .collect()
}

struct Shell<'a> {
    home: &'a Home,
    demo: &'a Standalone,
    key: String,
}

impl Shell<'_> {
    fn command(&self, command: &str) -> Command {
        let programs = program("mcp-runtime");
        let programs = programs.parent().expect("the folder of programs");
        let mut shell = Command::new("bash");
        shell
            .args(["-e", "-o", "pipefail", "-c", &command.replace(SHOWN, &self.demo.url)])
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display()))
            .env("HOME", self.home.path())
            .env("KEY", &self.key)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        shell
    }

    /// Runs a command that ends; gives what it printed.
    async fn run(&mut self, command: &str, place: &str) {
        let ended = tokio::time::timeout(DEADLINE, self.command(command).output()).await;
        let output = ended
            .unwrap_or_else(|_| panic!("{place}: `{command}` has not ended"))
            .expect("a shell");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{place}: `{command}` ended with {}\n{out}\n{err}",
            output.status
        );
        assert!(
            !out.trim().is_empty() || command.starts_with(EDITS),
            "{place}: `{command}` printed nothing"
        );
        assert!(!out.contains("\"rejected\":[{"), "{place}: `{command}`: {out}");
        if let Some(key) = out.split_whitespace().find(|word| word.starts_with("mcpi_")) {
            key.clone_into(&mut self.key);
        }
    }

    /// Runs a command that goes on until it is left; it must show something.
    async fn watch(&self, command: &str, place: &str) {
        let mut child = self.command(command).spawn().expect("a shell");
        let mut out = child.stdout.take().expect("its output");
        let mut seen = vec![0; 4_096];
        let read = tokio::time::timeout(DEADLINE, out.read(&mut seen)).await;
        let bytes = read
            .unwrap_or_else(|_| panic!("{place}: `{command}` shows nothing"))
            .expect("its output");
        assert!(bytes > 0, "{place}: `{command}` ended without a word");
    }
}

fn is_elsewhere(command: &str) -> bool {
    ELSEWHERE
        .iter()
        .any(|(start, _)| command.starts_with(start) || command == start.trim_end())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_pages_works() {
    let home = Home::new();
    let demo = home.launch().flag("--demo").start().await;
    demo.has_events("calls of the demo to look at").await;
    let others: Vec<_> = pages().into_iter().filter(|page| !page.ends_with(FROM_NOTHING)).collect();
    let ran = run_pages(&others, &home, &demo).await;
    assert!(ran >= 7, "only {ran} commands were found in the pages");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_getting_started_can_be_walked() {
    let home = Home::new();
    let programs = program("mcp-demo-server");
    let programs = programs.parent().expect("the folder of programs");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
    let standalone = home.launch().env("PATH", path).start().await;
    let page: Vec<_> = pages().into_iter().filter(|page| page.ends_with(FROM_NOTHING)).collect();
    let ran = run_pages(&page, &home, &standalone).await;
    assert!(ran >= 15, "only {ran} commands were found in the page");
    standalone.stop().await;
}

/// Runs the commands of pages, and gives how many there were.
async fn run_pages(pages: &[PathBuf], home: &Home, demo: &Standalone) -> usize {
    let mut ran = 0;
    for page in pages {
        let text = std::fs::read_to_string(page).expect("a page");
        let name = page.file_name().expect("a name").to_string_lossy().into_owned();
        let mut shell = Shell {
            home,
            demo,
            key: String::new(),
        };
        for (line, block) in blocks(&text) {
            let place = format!("{name}:{line}");
            for command in commands(&block).into_iter().filter(|command| !is_elsewhere(command)) {
                if command.contains("--follow") || command.contains("--watch") {
                    shell.watch(&command, &place).await;
                } else {
                    shell.run(&command, &place).await;
                }
                ran += 1;
            }
        }
    }
    ran
}
