//! Options every process has, and the spelling of durations in options.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::telemetry::LogFormat;

/// Options of the process itself. Flatten this group into the arguments of a service.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// How log records are written to standard error.
    #[arg(long, env = "MCP_LOG_FORMAT", hide_env_values = true, value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// Which log records are kept: a level, or a filter such as `info,sentinel_ingest=debug`.
    #[arg(
        long,
        env = "MCP_LOG",
        hide_env_values = true,
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_level: String,

    /// Longest time the process may take to finish its work once asked to stop, such as `25s`. Keep it below the grace period
    /// of the pod.
    #[arg(long, env = "MCP_SHUTDOWN_TIMEOUT", hide_env_values = true, default_value = "25s", value_parser = parse_duration, value_name = "DURATION")]
    pub shutdown_timeout: Duration,

    /// How long the process says "not ready" before it stops accepting connections, such as `5s`. It is time for load
    /// balancers to look away, and does not count towards the shutdown timeout.
    #[arg(long, env = "MCP_SHUTDOWN_DELAY", hide_env_values = true, default_value = "0s", value_parser = parse_duration, value_name = "DURATION")]
    pub shutdown_delay: Duration,

    /// Number of worker threads [default: one per available core].
    #[arg(long, env = "MCP_WORKER_THREADS", hide_env_values = true, value_name = "COUNT")]
    pub worker_threads: Option<NonZeroUsize>,
}

impl Default for ProcessArgs {
    /// The values that `--help` shows.
    fn default() -> Self {
        Self {
            log_format: LogFormat::Human,
            log_level: "info".to_owned(),
            shutdown_timeout: Duration::from_secs(25),
            shutdown_delay: Duration::ZERO,
            worker_threads: None,
        }
    }
}

/// Why a text is not a duration.
#[derive(Debug, thiserror::Error)]
pub enum DurationError {
    #[error("expected a whole number and a unit of ms, s, m, h or d, such as `250ms` or `5s`")]
    Shape,
    #[error("the duration is longer than {DAYS_MAX} days")]
    TooLong,
}

const DAYS_MAX: u64 = 36_500;

/// Reads a duration such as `250ms`, `5s`, `10m`, `2h` or `7d`; a bare number means seconds.
///
/// Made for `#[arg(value_parser = service_kit::parse_duration)]`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| DurationError::Shape)?;
    let unit_ms: u64 = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(DurationError::Shape),
    };
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= DAYS_MAX * 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err(DurationError::TooLong),
    }
}

#[cfg(test)]
mod tests;
