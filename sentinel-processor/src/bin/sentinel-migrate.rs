//! Brings the database to the version of this program: what would be done, or doing it. `mcp-runtime sentinel migrate` runs it.

use clap::Parser as _;
use sentinel_processor::migrate::{Command, run};

fn main() -> std::process::ExitCode {
    run(Command::parse())
}
