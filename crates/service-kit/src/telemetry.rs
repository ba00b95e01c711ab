//! Log records to standard error, for people or for machines, and into the in-process [`LogStore`].

use std::io::IsTerminal as _;

use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::logs::LogStore;

/// How log records look on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line per record, coloured on a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("reading the log filter `{filter}`")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Sends this process's records to standard error and to `logs`, both through `filter`.
///
/// A process has one subscriber: when a test or an embedder has already set one, that one stays.
pub fn install(format: LogFormat, filter: &str, logs: &LogStore) -> Result<(), TelemetryError> {
    let directives = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let subscriber = Registry::default().with(directives).with(lines).with(logs.layer());
    if subscriber.try_init().is_err() {
        tracing::debug!("a subscriber is already set; keeping it");
    }
    Ok(())
}
