//! Options of the standalone stack, and the same checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use domain::{Namespace, ServerName};
use service_kit::parse_duration;

/// Names that are routes of our own and so cannot be those of servers.
pub(crate) const RESERVED: &[&str] = &[
    "api", "console", "events", "health", "ingest", "live", "metrics", "ready", "static", "v1",
];

/// Least memory with which the store can work.
const MEMORY_BYTES_LEAST: u64 = 64 << 20;

/// Options of the standalone stack.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Stack")]
pub struct Args {
    /// An MCP server to put behind the gateway, at /NAME/mcp; may be repeated
    #[arg(long, value_name = "NAME=URL")]
    pub server: Vec<String>,

    /// Folder of YAML files with servers, grants and sessions; changes are taken in while running
    #[arg(long, env = "MCP_RUNTIME_MANIFESTS", hide_env_values = true, value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// Namespace of servers given by --server, and of the first ingest key
    #[arg(
        long,
        env = "MCP_RUNTIME_NAMESPACE",
        hide_env_values = true,
        default_value = "mcp-servers",
        value_name = "NAME"
    )]
    pub namespace: String,

    /// Folder that everything is kept in; one process per folder [default: ~/.mcpruntime/data]
    #[arg(long, env = "MCP_RUNTIME_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address of the one listener: gateway, ingest and API. Port 0 takes a free one
    #[arg(
        long,
        env = "MCP_RUNTIME_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// How long events are kept, such as 30d
    #[arg(long, env = "MCP_RUNTIME_RETENTION", hide_env_values = true, default_value = "90d", value_parser = parse_duration, value_name = "TIME")]
    pub retention: Duration,

    /// Memory for events that are not yet in files and for queries together, such as 512MiB
    #[arg(long, env = "MCP_RUNTIME_MEMORY_LIMIT", hide_env_values = true, default_value = "512MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub memory_limit: u64,

    /// Disk that the queue may take before senders are asked to wait, such as 4GiB
    #[arg(long, env = "MCP_RUNTIME_QUEUE_LIMIT", hide_env_values = true, default_value = "4GiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub queue_limit: u64,

    /// Longest time until an event is in a Parquet file, such as 60s. It is visible at once, and durable before that, in the queue
    #[arg(long, env = "MCP_RUNTIME_FLUSH_AGE", hide_env_values = true, default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub flush_age: Duration,

    /// Longest time that a question or a person's SQL may take, such as 30s
    #[arg(long, env = "MCP_RUNTIME_QUERY_TIME_LIMIT", hide_env_values = true, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub query_time_limit: Duration,

    /// File of alert rules, read again whenever it changes [default: alerts.yaml in the data folder]
    #[arg(long, env = "MCP_RUNTIME_ALERTS", hide_env_values = true, value_name = "FILE")]
    pub alerts: Option<PathBuf>,
}

/// A server given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerArg {
    /// Its name, and the first segment of its route.
    pub name: ServerName,
    /// Where the gateway reaches it.
    pub upstream: http::Uri,
}

/// Checked settings of the standalone stack.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) servers: Vec<ServerArg>,
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) namespace: Namespace,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) retention: Duration,
    pub(crate) memory_bytes_max: u64,
    pub(crate) queue_bytes_max: u64,
    pub(crate) flush_age: Duration,
    pub(crate) query_time_max: Duration,
    pub(crate) alerts_file: PathBuf,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No `NAME=URL`.
    #[error("--server {0:?} is not NAME=URL; write for example --server payments=http://127.0.0.1:3001/mcp")]
    NotAServer(String),
    /// The name cannot be one.
    #[error("--server {given:?}: {name:?} cannot be the name of a server")]
    Name {
        /// The option's value.
        given: String,
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: domain::ids::NotAnId,
    },
    /// The name is a route of our own.
    #[error("--server {0:?}: the name is a route of mcp-runtime itself; choose another")]
    Reserved(String),
    /// A name was given twice.
    #[error("--server {0:?}: this name is given twice; each server needs its own")]
    Twice(String),
    /// The URL cannot be one.
    #[error("--server {given:?}: {url:?} is not an http or https URL with a host, such as http://127.0.0.1:3001/mcp")]
    Url {
        /// The option's value.
        given: String,
        /// The URL.
        url: String,
    },
    /// The namespace cannot be one.
    #[error("--namespace {0:?} cannot be a namespace")]
    Namespace(String, #[source] domain::ids::NotAnId),
    /// There is no home folder to put the default into.
    #[error("no home folder is known; say where to keep the data with --data-dir")]
    NoHome,
    /// Too little memory.
    #[error("--memory-limit is {0} bytes, but at least {MEMORY_BYTES_LEAST} are needed")]
    Memory(u64),
    /// No question could be answered.
    #[error("--query-time-limit is zero; no question could be answered")]
    QueryTime,
    /// Nothing would be kept.
    #[error("--retention is less than an hour; events would vanish as they come")]
    Retention,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let namespace =
            Namespace::parse(&args.namespace).map_err(|error| ConfigError::Namespace(args.namespace.clone(), error))?;
        let home = || std::env::home_dir().map(|home| home.join(".mcpruntime").join("data"));
        if args.memory_limit < MEMORY_BYTES_LEAST {
            return Err(ConfigError::Memory(args.memory_limit));
        }
        if args.retention < Duration::from_hours(1) {
            return Err(ConfigError::Retention);
        }
        if args.query_time_limit.is_zero() {
            return Err(ConfigError::QueryTime);
        }
        let data_dir = args.data_dir.or_else(home).ok_or(ConfigError::NoHome)?;
        let mut config = Self {
            servers: Vec::new(),
            alerts_file: args.alerts.unwrap_or_else(|| data_dir.join("alerts.yaml")),
            query_time_max: args.query_time_limit,
            manifests: args.manifests,
            namespace,
            data_dir,
            listen: args.listen,
            retention: args.retention,
            memory_bytes_max: args.memory_limit,
            queue_bytes_max: args.queue_limit,
            flush_age: args.flush_age,
        };
        for given in &args.server {
            let (name, url) = given.split_once('=').ok_or_else(|| ConfigError::NotAServer(given.clone()))?;
            config.add_server(name, url)?;
        }
        Ok(config)
    }
}

impl Config {
    /// Puts one more server behind the gateway.
    pub fn add_server(&mut self, name: &str, url: &str) -> Result<(), ConfigError> {
        let given = format!("{name}={url}");
        let parsed = ServerName::parse(name).map_err(|source| ConfigError::Name {
            given: given.clone(),
            name: name.to_owned(),
            source,
        })?;
        if RESERVED.contains(&name) {
            return Err(ConfigError::Reserved(given));
        }
        if self.servers.iter().any(|server| server.name == parsed) {
            return Err(ConfigError::Twice(given));
        }
        let upstream = parse_upstream(url).ok_or(ConfigError::Url {
            given,
            url: url.to_owned(),
        })?;
        self.servers.push(ServerArg { name: parsed, upstream });
        Ok(())
    }
}

/// An http or https URL with a host.
pub(crate) fn parse_upstream(url: &str) -> Option<http::Uri> {
    let uri: http::Uri = url.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    (known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// A number of bytes with a unit of B, KiB, MiB, GiB (or K, M, G, meaning the same).
fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size such as 512MiB or 4GiB");
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn config(line: &[&str]) -> Result<Config, ConfigError> {
        let line = ["up", "--data-dir", "d"].iter().chain(line);
        Cli::try_parse_from(line)
            .unwrap_or_else(|error| panic!("{error}"))
            .args
            .try_into()
    }

    #[test]
    fn servers_are_checked_before_anything_is_bound() {
        for (given, said) in [
            ("payments", "is not NAME=URL"),
            ("Pay=http://h/mcp", "cannot be the name"),
            ("api=http://h/mcp", "a route of mcp-runtime itself"),
            ("a=ftp://h/mcp", "is not an http or https URL"),
            ("a=127.0.0.1:3001", "is not an http or https URL"),
        ] {
            let fault = config(&["--server", given]).unwrap_err().to_string();
            assert!(fault.contains(said) && fault.contains(given), "{fault}");
        }
        assert!(matches!(
            config(&["--server", "a=http://h/mcp", "--server", "a=http://i/mcp"]),
            Err(ConfigError::Twice(_))
        ));
        assert_eq!(config(&["--server", "a=http://h/mcp"]).unwrap().servers.len(), 1);
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(
            (parse_bytes("512MiB"), parse_bytes("4g"), parse_bytes("7")),
            (Ok(512 << 20), Ok(4 << 30), Ok(7))
        );
        assert!(parse_bytes("MiB").is_err() && parse_bytes("1TiB").is_err() && parse_bytes("99999999999999999999").is_err());
    }
}
