//! Makes, lists and ends the keys in the file that ingest reads, for installations whose keys are no matter of the API.

use clap::Parser as _;
use sentinel_ingest::keys_command::{Command, run};

fn main() -> std::process::ExitCode {
    run(Command::parse())
}
