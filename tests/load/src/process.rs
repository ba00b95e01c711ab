//! Processes under measurement: starting them, waiting for them, and what the kernel says they used.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Ticks of a second in `/proc/<pid>/stat`; a constant of Linux towards programs.
const TICKS: f64 = 100.0;
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(40);

/// Where a process may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Anywhere.
    All,
    /// On the second core only, where the machine has two and `taskset`.
    Second,
}

/// A child process; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: u32,
    name: String,
}

/// What a process used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Resident memory, in MiB.
    pub rss: f64,
    /// Most resident memory ever, in MiB.
    pub rss_peak: f64,
}

/// A port that is free at this moment.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Running {
    /// Starts a program; its log goes to a file.
    pub fn start(program: &Path, args: &[&str], cores: Cores, log: &Path) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let mut line: Vec<OsString> = Vec::new();
        if cores == Cores::Second && can_pin() {
            line.extend(["taskset", "-c", "1"].map(OsString::from));
        }
        line.push(program.as_os_str().to_owned());
        line.extend(args.iter().map(OsString::from));
        let child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        Ok(Self { child, pid, name })
    }

    /// Waits until the process accepts connections.
    pub async fn listening(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended before it listened: {status}", self.name);
            }
            if start.elapsed() > START_MAX {
                bail!("{} did not listen on {address} within {} s", self.name, START_MAX.as_secs());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// What it used so far.
    pub fn used(&self) -> anyhow::Result<Used> {
        used(self.pid).with_context(|| format!("reading what {} used", self.name))
    }

    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        if !told.success() {
            bail!("{} was gone before it was asked to stop", self.name);
        }
        timeout(STOP_MAX, self.child.wait())
            .await
            .with_context(|| format!("{} did not stop", self.name))??;
        Ok(())
    }
}

fn can_pin() -> bool {
    Path::new("/usr/bin/taskset").exists()
        && std::thread::available_parallelism().is_ok()
        && fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.matches("processor").count() > 1)
}

#[expect(clippy::cast_precision_loss, reason = "ticks and KiB far below 2^53")]
fn used(pid: u32) -> anyhow::Result<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything, so fields are counted from the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks =
        |index: usize| -> anyhow::Result<u64> { Ok(fields.split(' ').nth(index).context("stat is too short")?.parse()?) };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |field: &str| -> anyhow::Result<f64> {
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .context("no such line in status")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number in status")?.parse()?;
        Ok(kib as f64 / 1_024.0)
    };
    Ok(Used {
        cpu: (ticks(11)? + ticks(12)?) as f64 / TICKS,
        rss: mib("VmRSS:")?,
        rss_peak: mib("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let used = used(std::process::id()).unwrap();
        assert!(used.rss > 0.5 && used.rss_peak >= used.rss, "{used:?}");
    }
}
