//! Puts a gateway between a client and the server of one of the suite's client scenarios.
//!
//! ```text
//! conformance-through CLIENT ARGUMENT... URL
//! ```
//!
//! The suite appends the address of its server. The client gets the gateway's in its place, and its exit code is ours.

use std::process::ExitCode;

use anyhow::Context as _;
use conformance::Governed;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let upstream = arguments.pop().context("the address of the server is missing")?;
    let (client, rest) = arguments.split_first().context("the client is missing")?;
    let governed = Governed::start(&upstream)?;
    let mut command = tokio::process::Command::new(client);
    command.args(rest).arg(&governed.url);
    let status = command.status().await.context("running the client")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
