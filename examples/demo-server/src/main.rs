//! The payments desk as a process of its own, and a client to keep such a server busy.

use std::process::ExitCode;

use clap::Parser as _;
use demo_server::command::Command;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    demo_server::command::run(Command::parse()).await
}
