//! Settings of ingest: what the command line and the environment say, and what is checked of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use service_kit::parse_duration;

/// Smallest bound on a body that still lets one full event through.
const BODY_BYTES_LEAST: usize = 1 << 10;

/// Options of ingest. Flatten this group into the arguments of a service.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Ingest")]
pub struct Args {
    /// Address that takes events.
    #[arg(
        long = "ingest-listen",
        env = "SENTINEL_INGEST_LISTEN",
        hide_env_values = true,
        default_value = "0.0.0.0:8081",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Address of `/live`, `/ready` and `/metrics`.
    #[arg(
        long = "ingest-admin-listen",
        env = "SENTINEL_INGEST_ADMIN_LISTEN",
        hide_env_values = true,
        default_value = "0.0.0.0:9091",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// File with the hashed ingest keys. Changes are taken in without a restart; without the file every event is refused.
    #[arg(
        long = "ingest-keys-file",
        env = "SENTINEL_INGEST_KEYS_FILE",
        hide_env_values = true,
        default_value = "/etc/mcp-sentinel/ingest-keys.json",
        value_name = "FILE"
    )]
    pub keys_file: PathBuf,

    /// Largest request body as sent, in bytes.
    #[arg(long = "ingest-body-bytes-max", env = "SENTINEL_INGEST_BODY_BYTES_MAX", hide_env_values = true, default_value_t = Config::DEFAULT.body_bytes_max, value_name = "BYTES")]
    pub body_bytes_max: usize,

    /// Largest request body once decompressed, in bytes.
    #[arg(long = "ingest-decompressed-bytes-max", env = "SENTINEL_INGEST_DECOMPRESSED_BYTES_MAX", hide_env_values = true, default_value_t = Config::DEFAULT.decompressed_bytes_max, value_name = "BYTES")]
    pub decompressed_bytes_max: usize,

    /// Most events of one request.
    #[arg(long = "ingest-events-max", env = "SENTINEL_INGEST_EVENTS_MAX", hide_env_values = true, default_value_t = Config::DEFAULT.events_max, value_name = "COUNT")]
    pub events_max: usize,

    /// Largest single event, in bytes of its JSON.
    #[arg(long = "ingest-event-bytes-max", env = "SENTINEL_INGEST_EVENT_BYTES_MAX", hide_env_values = true, default_value_t = Config::DEFAULT.event_bytes_max, value_name = "BYTES")]
    pub event_bytes_max: usize,

    /// Memory for all requests in flight together, in bytes; requests beyond it are asked to come again.
    #[arg(long = "ingest-memory-bytes-max", env = "SENTINEL_INGEST_MEMORY_BYTES_MAX", hide_env_values = true, default_value_t = Config::DEFAULT.memory_bytes_max, value_name = "BYTES")]
    pub memory_bytes_max: usize,

    /// Oldest event that is taken, such as `90d`. Set it to the retention of the store.
    #[arg(long = "ingest-event-age-max", env = "SENTINEL_INGEST_EVENT_AGE_MAX", hide_env_values = true, default_value = "90d", value_parser = parse_duration, value_name = "DURATION")]
    pub event_age_max: Duration,

    /// How far the clock of a sender may be ahead of ours, such as `5m`.
    #[arg(long = "ingest-event-ahead-max", env = "SENTINEL_INGEST_EVENT_AHEAD_MAX", hide_env_values = true, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub event_ahead_max: Duration,

    /// Longest wait for the queue to make the events of a request durable, such as `30s`.
    #[arg(long = "ingest-append-timeout", env = "SENTINEL_INGEST_APPEND_TIMEOUT", hide_env_values = true, default_value = "30s", value_parser = parse_duration, value_name = "DURATION")]
    pub append_timeout: Duration,
}

/// Checked settings of ingest, apart from addresses and keys, which whoever starts it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Largest request body as sent.
    pub body_bytes_max: usize,
    /// Largest request body once decompressed.
    pub decompressed_bytes_max: usize,
    /// Most events of one request.
    pub events_max: usize,
    /// Largest single event.
    pub event_bytes_max: usize,
    /// Memory for all requests in flight together.
    pub memory_bytes_max: usize,
    /// Oldest event that is taken.
    pub event_age_max: Duration,
    /// How far events may lie in the future.
    pub event_ahead_max: Duration,
    /// Longest wait for the queue.
    pub append_timeout: Duration,
}

impl Config {
    const DEFAULT: Self = Self {
        body_bytes_max: 4 << 20,
        decompressed_bytes_max: 32 << 20,
        events_max: 10_000,
        event_bytes_max: 64 << 10,
        memory_bytes_max: 256 << 20,
        event_age_max: Duration::from_hours(90 * 24),
        event_ahead_max: Duration::from_mins(5),
        append_timeout: Duration::from_secs(30),
    };
}

impl Default for Config {
    /// The values that `--help` shows.
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Settings that cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{option} is {value}, but needs to be at least {least}")]
    TooSmall {
        option: &'static str,
        value: usize,
        least: usize,
    },
    #[error("{option} is zero, which would refuse every event")]
    Zero { option: &'static str },
}

impl TryFrom<&Args> for Config {
    type Error = ConfigError;

    fn try_from(args: &Args) -> Result<Self, ConfigError> {
        let at_least = |option, value, least| {
            if value < least {
                return Err(ConfigError::TooSmall { option, value, least });
            }
            Ok(value)
        };
        let not_zero = |option, value: Duration| {
            if value.is_zero() {
                return Err(ConfigError::Zero { option });
            }
            Ok(value)
        };
        let body_bytes_max = at_least("--ingest-body-bytes-max", args.body_bytes_max, BODY_BYTES_LEAST)?;
        let decompressed_bytes_max = at_least("--ingest-decompressed-bytes-max", args.decompressed_bytes_max, body_bytes_max)?;
        // One request at the bounds must fit, or it would be asked to come again for ever.
        let one_request = body_bytes_max + decompressed_bytes_max + crate::decode::event_memory(args.events_max);
        Ok(Self {
            body_bytes_max,
            decompressed_bytes_max,
            events_max: at_least("--ingest-events-max", args.events_max, 1)?,
            event_bytes_max: at_least("--ingest-event-bytes-max", args.event_bytes_max, BODY_BYTES_LEAST)?,
            memory_bytes_max: at_least("--ingest-memory-bytes-max", args.memory_bytes_max, one_request)?,
            event_age_max: not_zero("--ingest-event-age-max", args.event_age_max)?,
            event_ahead_max: args.event_ahead_max,
            append_timeout: not_zero("--ingest-append-timeout", args.append_timeout)?,
        })
    }
}

#[cfg(test)]
mod tests;
