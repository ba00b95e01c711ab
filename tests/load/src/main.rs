//! `load`: the processes and the measurements behind `make bench`.

use clap::Parser as _;
use load::Cli;

fn main() -> std::process::ExitCode {
    load::run(Cli::parse())
}
