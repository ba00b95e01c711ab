//! A process with everything it starts, as one thing that never outlives us.
//!
//! The process leads a group of its own, and a guard waits beside it: a shell that reads from a pipe of ours. When we want the group to
//! end, or when we end in whatever way, the pipe closes and the guard ends the group: politely first, then for certain.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// Ends the group named by `$1` once the pipe is closed: SIGTERM, and SIGKILL for what is left after three seconds.
const GUARD: &str = r#"
read -r _
kill -s TERM -- "-$1" 2>/dev/null || exit 0
left=30
while [ "$left" -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do sleep 0.1; left=$((left - 1)); done
kill -s KILL -- "-$1" 2>/dev/null
exit 0
"#;

/// Longest wait for the guard to be done, and for the process to be gone after that.
const END_WAIT_MAX: Duration = Duration::from_secs(6);

/// A running process and its group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    guard: Child,
}

/// What a process writes.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

impl Process {
    /// Starts a command at the head of a group of its own.
    pub(crate) fn start(mut command: Command) -> io::Result<(Self, Output)> {
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let group = child.id().ok_or_else(|| io::Error::other("the process has no number"))?;
        let missing = || io::Error::other("the process has no output");
        let output = Output {
            stdout: child.stdout.take().ok_or_else(missing)?,
            stderr: child.stderr.take().ok_or_else(missing)?,
        };
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "mcp-runtime-guard", &group.to_string()])
            // Signals of our terminal are ours to pass on.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((Self { child, guard }, output))
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the process has ended. What it started may still run. Dropping the future loses nothing.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the whole group, and returns when it is gone.
    pub(crate) async fn stop(mut self) {
        drop(self.guard.stdin.take());
        let gone = async {
            // Together: the group is gone only once its head is waited for.
            let (_status, _guard) = tokio::join!(self.child.wait(), self.guard.wait());
        };
        if tokio::time::timeout(END_WAIT_MAX, gone).await.is_err() {
            tracing::warn!(pid = self.child.id(), "a process cannot be ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn first_line(output: Output) -> String {
        let mut line = String::new();
        BufReader::new(output.stdout).read_line(&mut line).await.unwrap();
        line.trim().to_owned()
    }

    fn lives(pid: &str) -> bool {
        // What has ended and is not waited for yet is no life.
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    }

    /// Waits until a process that was told to end has done so.
    async fn gone(pid: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while lives(pid) {
            assert!(tokio::time::Instant::now() < deadline, "process {pid} lives on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_group_ends_as_a_whole_also_when_it_does_not_listen() {
        let stubborn = "trap '' TERM; (trap '' TERM; sleep 600) & echo $!; wait";
        let (process, output) = Process::start(shell(stubborn)).unwrap();
        let inner = first_line(output).await;
        assert!(lives(&inner), "{inner}");
        process.stop().await;
        gone(&inner).await;
    }

    #[tokio::test]
    async fn what_an_ended_process_left_behind_ends_too() {
        let (mut process, output) = Process::start(shell("sleep 600 & echo $!; exit 3")).unwrap();
        let left = first_line(output).await;
        assert_eq!(process.ended().await.unwrap().code(), Some(3));
        process.stop().await;
        gone(&left).await;
    }

    #[tokio::test]
    async fn dropping_it_ends_the_group() {
        let (process, output) = Process::start(shell("sleep 600 & echo $!; wait")).unwrap();
        let inner = first_line(output).await;
        drop(process);
        gone(&inner).await;
    }
}
