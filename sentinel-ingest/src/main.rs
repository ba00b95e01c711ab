//! Sentinel ingest: accepts events over HTTP and appends them to Kafka.

use clap::Parser as _;
use sentinel_ingest::service::{Bound, Command};

/// Events consist of some thirty texts each, and this takes about half the time of the system's own for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let args = Command::parse();
    service_kit::run("sentinel-ingest", args.process.clone(), async move |tasks| {
        let ingest = Bound::new(args, &tasks)?;
        let queue = ingest.open_queue(&tasks).await?;
        ingest.serve(queue, &tasks)
    })
}
