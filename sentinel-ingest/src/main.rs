//! Sentinel ingest: accepts events over HTTP and appends them to the embedded log.

use clap::Parser as _;
use domain::Timestamp;
use sentinel_ingest::service::{Command, start};
use sentinel_queue::log::{self, LogConfig};

/// Events consist of some thirty texts each, and this takes about half the time of the system's own for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let args = Command::parse();
    service_kit::run("sentinel-ingest", args.process, async move |tasks| {
        let clock = tasks.clock().clone();
        let now = move || Timestamp::from_nanos(clock.unix_ns());
        let (appender, _tail) = log::open(LogConfig::new(args.log_dir), now)?;
        start(&args.ingest, &args.tokens, appender, &tasks)
    })
}
