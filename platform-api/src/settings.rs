//! Options of the platform API, and the same checked.

use std::path::PathBuf;
use std::time::Duration;

use service_kit::parse_duration;

use crate::access::{OpenLoopback, ServiceKey, ServiceKeyError};

/// Largest file of service keys, in bytes.
const KEYS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Options of the platform API.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Platform API")]
pub struct Args {
    /// Treat callers from this machine who bring no key as administrators. Works only on a loopback address.
    #[arg(long, env = "PLATFORM_API_OPEN_LOOPBACK", hide_env_values = true)]
    pub open_loopback: bool,

    /// File of service keys, one a line: a name, `sha256:` and the key's SHA-256 in hex, then `admin` or `namespaces=a,b` and
    /// `teams=t1,t2`.
    #[arg(long, env = "PLATFORM_API_SERVICE_KEYS_FILE", hide_env_values = true, value_name = "FILE")]
    pub service_keys_file: Option<PathBuf>,

    /// Web origins besides the API's own whose pages may call it without a key, such as `http://localhost:5173`.
    #[arg(
        long,
        env = "PLATFORM_API_ORIGINS_ALLOWED",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub origins_allowed: Vec<String>,

    /// Questions answered at the same time; further ones wait a moment and are then refused with 503.
    #[arg(
        long,
        env = "PLATFORM_API_QUERIES_MAX",
        hide_env_values = true,
        default_value_t = 16,
        value_name = "COUNT"
    )]
    pub queries_max: usize,

    /// Longest time a question may take, such as `30s`.
    #[arg(long, env = "PLATFORM_API_QUERY_TIME_MAX", hide_env_values = true, default_value = "30s", value_parser = parse_duration, value_name = "DURATION")]
    pub query_time_max: Duration,

    /// Longest time an export may take, such as `1h`.
    #[arg(long, env = "PLATFORM_API_EXPORT_TIME_MAX", hide_env_values = true, default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
    pub export_time_max: Duration,

    /// Streams of events and logs followed at the same time; further ones are refused with 503.
    #[arg(
        long,
        env = "PLATFORM_API_STREAMS_MAX",
        hide_env_values = true,
        default_value_t = 64,
        value_name = "COUNT"
    )]
    pub streams_max: usize,

    /// Most rows that an SQL question may answer.
    #[arg(
        long,
        env = "PLATFORM_API_SQL_ROWS_MAX",
        hide_env_values = true,
        default_value_t = 10_000,
        value_name = "COUNT"
    )]
    pub sql_rows_max: u64,

    /// Most bytes of memory that an SQL question may take.
    #[arg(long, env = "PLATFORM_API_SQL_MEMORY_BYTES_MAX", hide_env_values = true, default_value_t = 256 << 20, value_name = "BYTES")]
    pub sql_memory_bytes_max: u64,

    /// File of alert rules, read again whenever it changes.
    #[arg(long, env = "PLATFORM_API_ALERTS_FILE", hide_env_values = true, value_name = "FILE")]
    pub alerts_file: Option<PathBuf>,

    /// Time between two judgements of the alert rules, such as `15s`.
    #[arg(long, env = "PLATFORM_API_ALERTS_INTERVAL", hide_env_values = true, default_value = "15s", value_parser = parse_duration, value_name = "DURATION")]
    pub alerts_interval: Duration,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub open_loopback: OpenLoopback,
    pub service_keys: Vec<ServiceKey>,
    pub origins_allowed: Vec<String>,
    pub queries_max: usize,
    pub query_time_max: Duration,
    pub export_time_max: Duration,
    pub streams_max: usize,
    pub sql_rows_max: u64,
    pub sql_memory_bytes_max: u64,
    pub alerts_file: Option<PathBuf>,
    pub alerts_interval: Duration,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading the service keys in {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the file of service keys {0} is larger than {KEYS_FILE_BYTES_MAX} bytes; is it the right one?")]
    TooLarge(PathBuf),
    #[error("reading line {line} of the service keys in {path}")]
    Key {
        path: PathBuf,
        line: usize,
        #[source]
        source: ServiceKeyError,
    },
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
}

impl Default for Config {
    /// The values that `--help` shows: no keys and nobody let in.
    fn default() -> Self {
        Self {
            open_loopback: OpenLoopback::No,
            service_keys: Vec::new(),
            origins_allowed: Vec::new(),
            queries_max: 16,
            query_time_max: Duration::from_secs(30),
            export_time_max: Duration::from_hours(1),
            streams_max: 64,
            sql_rows_max: 10_000,
            sql_memory_bytes_max: 256 << 20,
            alerts_file: None,
            alerts_interval: Duration::from_secs(15),
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let bounds = [
            ("--queries-max", args.queries_max == 0),
            ("--streams-max", args.streams_max == 0),
            ("--query-time-max", args.query_time_max.is_zero()),
            ("--export-time-max", args.export_time_max.is_zero()),
            ("--sql-rows-max", args.sql_rows_max == 0),
            ("--sql-memory-bytes-max", args.sql_memory_bytes_max == 0),
            ("--alerts-interval", args.alerts_interval.is_zero()),
        ];
        if let Some((name, _)) = bounds.into_iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero(name));
        }
        Ok(Self {
            open_loopback: if args.open_loopback {
                OpenLoopback::Yes
            } else {
                OpenLoopback::No
            },
            service_keys: args.service_keys_file.map_or_else(|| Ok(Vec::new()), read_keys)?,
            origins_allowed: args.origins_allowed,
            queries_max: args.queries_max,
            query_time_max: args.query_time_max,
            export_time_max: args.export_time_max,
            streams_max: args.streams_max,
            sql_rows_max: args.sql_rows_max,
            sql_memory_bytes_max: args.sql_memory_bytes_max,
            alerts_file: args.alerts_file,
            alerts_interval: args.alerts_interval,
        })
    }
}

fn read_keys(path: PathBuf) -> Result<Vec<ServiceKey>, ConfigError> {
    let read = |path: &PathBuf| -> std::io::Result<Option<String>> {
        let fits = std::fs::metadata(path)?.len() <= KEYS_FILE_BYTES_MAX;
        if fits {
            std::fs::read_to_string(path).map(Some)
        } else {
            Ok(None)
        }
    };
    let text = match read(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(ConfigError::TooLarge(path)),
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match ServiceKey::parse(line) {
            Ok(key) => keys.push(key),
            Err(source) => {
                return Err(ConfigError::Key {
                    path,
                    line: index + 1,
                    source,
                });
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
