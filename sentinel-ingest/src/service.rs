//! Ingest as a process of its own: its arguments, and starting it on any queue.

use std::path::PathBuf;

use anyhow::Context as _;
use sentinel_queue::EventAppender;
use service_kit::{ProcessArgs, Tasks};

use crate::keys::Senders;
use crate::oidc::{Oidc, OidcArgs};
use crate::{Args, Config, KeyRing};

/// Takes events about MCP calls over HTTP and appends them to a queue.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sentinel-ingest", version)]
pub struct Command {
    #[command(flatten)]
    pub ingest: Args,
    #[command(flatten)]
    pub tokens: OidcArgs,
    /// Folder of the embedded log that holds events until they are processed.
    #[arg(
        long = "ingest-log-dir",
        env = "SENTINEL_INGEST_LOG_DIR",
        hide_env_values = true,
        default_value = "/var/lib/mcp-sentinel/queue",
        value_name = "FOLDER",
        help_heading = "Ingest"
    )]
    pub log_dir: PathBuf,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Checks all settings, binds both addresses, and serves until the process is told to stop.
pub fn start<A: EventAppender>(args: &Args, tokens: &OidcArgs, appender: A, tasks: &Tasks) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    let senders = Senders::new(KeyRing::open(&args.keys_file), Oidc::from_args(tokens)?);
    let listener = service_kit::http::bind(args.listen)?;
    let admin = service_kit::http::bind(args.admin_listen)?;
    service_kit::health::serve_admin(admin, tasks).context("serving health and metrics")?;
    crate::serve(config, listener, appender, senders, tasks).context("serving senders")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn help_is_as_agreed() {
        insta::assert_snapshot!(Command::command().term_width(100).render_long_help());
    }

    #[test]
    fn an_issuer_without_an_audience_is_refused() {
        let args = ["sentinel-ingest", "--ingest-oidc-issuer", "https://id.example.com"];
        let error = Command::try_parse_from(args).unwrap_err().to_string();
        assert!(error.contains("--ingest-oidc-audience"), "{error}");
    }
}
