//! Instructions of a governed call, counted by valgrind: a figure that a busy machine does not change.
//!
//! Two runs of different length are counted, and the difference is divided by the difference of their calls, so that start and stop
//! do not matter. Only what runs in the process counts; the kernel does not.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{gateway_options, policy, tool_call};
use crate::drive::Client;
use crate::process::{Cores, Running, free_address};
use crate::report::Report;

const CALLS: [u64; 2] = [500, 2_500];

/// Counts and prints.
pub(super) async fn count(gateway: &Path, folder: &Path) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let upstream = free_address()?;
    let mut server = Running::start(
        &own,
        &["upstream", "--listen", &upstream.to_string()],
        Cores::All,
        &folder.join("upstream.log"),
    )?;
    server.listening(upstream).await?;
    let policy_file = folder.join("policy.json");
    std::fs::write(&policy_file, policy::document(1_000))?;

    let mut report = Report::new("Instructions of a tools/call in the process, by valgrind".to_owned());
    let mut counted = [0; CALLS.len()];
    for (calls, counted) in CALLS.into_iter().zip(&mut counted) {
        let (address, admin) = (free_address()?, free_address()?);
        let options = gateway_options(address, admin, upstream, Some(&policy_file));
        *counted = count_one(gateway, &options, address, calls, folder).await?;
    }
    report.row("gateway, judged and recorded", format!("{}", per_call(counted)), "");
    report.note("Difference of two runs; one connection, so batches of events are as small as they get.");
    report.print();
    Ok(())
}

fn per_call(counted: [u64; 2]) -> u64 {
    counted[1].saturating_sub(counted[0]) / (CALLS[1] - CALLS[0])
}

async fn count_one(
    program: &Path,
    options: &[String],
    address: std::net::SocketAddr,
    calls: u64,
    folder: &Path,
) -> anyhow::Result<u64> {
    let log = folder.join(format!("valgrind-{calls}.log"));
    let out = format!("--callgrind-out-file={}", folder.join(format!("callgrind-{calls}")).display());
    let program = program.display().to_string();
    let mut line = vec!["--tool=callgrind", &out, &program];
    line.extend(options.iter().map(String::as_str));
    let mut running = Running::start(Path::new("valgrind"), &line, Cores::All, &log).context("is valgrind installed?")?;
    running.listening(address).await?;
    let mut client = Client::connect(address).await?;
    let request = tool_call("echo");
    for _ in 0..calls {
        let status = client.call(&request).await?;
        ensure!(status == 200, "a call was answered with {status}");
    }
    drop(client);
    running.stop().await?;
    let text = String::from_utf8_lossy(&tokio::fs::read(&log).await?).into_owned();
    let collected = text
        .rsplit("Collected : ")
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    collected
        .and_then(|number| number.parse().ok())
        .context("valgrind told no count")
}
