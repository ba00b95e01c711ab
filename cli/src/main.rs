//! The `mcp-runtime` command: runs the standalone stack, and asks a running one.

mod args;
mod client;
mod command;
mod fault;
mod kubectl;
mod metadata;
mod profile;
mod render;
mod text;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    #[cfg(feature = "tls")]
    // Whoever installed one before us means the same.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    render::finish(command::run(args::Cli::parse()))
}
