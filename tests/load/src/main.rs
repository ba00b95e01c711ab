//! `load`: the processes and the measurements behind `make bench`.

use clap::Parser as _;
use load::Cli;

/// What the measured programs have: ingest allocates thirty texts an event.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    load::run(Cli::parse())
}
