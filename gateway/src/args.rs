//! Options of the sidecar, and what they become once they are checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};
use service_kit::tls::TlsFiles;
use service_kit::{ProcessArgs, parse_duration};

use crate::delivery::{ApiKey, DeliveryConfig, SpoolConfig};
use crate::forward::{CallerRules, ForwardRules, HostHeader};
use crate::gateway::GatewayLimits;
use crate::identify::IdentityRules;
use crate::policy::{PolicyConfig, PolicyStreamArgs};
use crate::rate::Rate;
use crate::record::RecorderLimits;
use crate::refusal::DenyStatus;
use crate::route::Route;
use crate::traces::TracesConfig;

/// Governed MCP reverse proxy: passes requests to one MCP server and records each of them.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "mcp-gateway", version)]
pub struct Args {
    #[command(flatten)]
    pub gateway: GatewayArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Options of the gateway as a sidecar.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayArgs {
    /// Name of the MCP server behind this gateway.
    #[arg(long, env = "MCP_SERVER_NAME", hide_env_values = true, value_name = "NAME")]
    pub server_name: String,

    /// Namespace of the MCP server.
    #[arg(
        long,
        env = "MCP_SERVER_NAMESPACE",
        hide_env_values = true,
        default_value = "default",
        value_name = "NAME"
    )]
    pub server_namespace: String,

    /// Name of the cluster this runs in.
    #[arg(long, env = "MCP_CLUSTER_NAME", hide_env_values = true, value_name = "NAME")]
    pub cluster_name: Option<String>,

    /// Team that owns the MCP server.
    #[arg(long, env = "MCP_TEAM_ID", hide_env_values = true, value_name = "ID")]
    pub team_id: Option<String>,

    /// Where the MCP server listens.
    #[arg(
        long,
        env = "UPSTREAM_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8088",
        value_name = "URL"
    )]
    pub upstream_url: Uri,

    /// Address to listen on for MCP clients.
    #[arg(long, env = "MCP_GATEWAY_HOST", hide_env_values = true, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "ADDRESS")]
    pub host: IpAddr,

    /// Port to listen on for MCP clients.
    #[arg(long, env = "PORT", hide_env_values = true, default_value_t = 8091)]
    pub port: u16,

    /// Port for health and metrics.
    #[arg(long, env = "METRICS_PORT", hide_env_values = true, default_value_t = 9103)]
    pub admin_port: u16,

    /// Largest request body, in bytes.
    #[arg(long, env = "MCP_GATEWAY_BODY_BYTES_MAX", hide_env_values = true, default_value_t = 4 << 20, value_name = "BYTES")]
    pub body_bytes_max: usize,

    /// Longest time without a byte from the MCP server while it owes an answer, such as `15m`. Open streams may be silent for ever.
    #[arg(long, env = "MCP_GATEWAY_UPSTREAM_IDLE_TIMEOUT", hide_env_values = true, default_value = "15m", value_parser = parse_duration, value_name = "DURATION")]
    pub upstream_idle_timeout: Duration,

    /// Hosts that clients may call, without port. When given, others are refused; names of this machine are always allowed on a
    /// loopback address.
    #[arg(
        long,
        env = "MCP_GATEWAY_ALLOWED_HOSTS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "HOST"
    )]
    pub allowed_hosts: Vec<String>,

    /// Origins that browsers may call from, such as `https://inspector.example`. When given, others are refused.
    #[arg(
        long,
        env = "MCP_GATEWAY_ALLOWED_ORIGINS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub allowed_origins: Vec<String>,

    /// Which `Host` the MCP server sees.
    #[arg(long, env = "MCP_GATEWAY_HOST_HEADER", hide_env_values = true, value_enum, default_value_t = HostHeader::Upstream)]
    pub host_header: HostHeader,

    /// Credential headers of the caller that the MCP server gets all the same, such as `authorization`. By default it gets none.
    #[arg(
        long,
        env = "MCP_GATEWAY_KEEP_CREDENTIALS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "HEADER"
    )]
    pub keep_credentials: Vec<HeaderName>,

    /// Where clients reach this gateway, such as `https://mcp.example.com`. Access tokens and the way to them are tied to it.
    #[arg(long, env = "EXTERNAL_BASE_URL", hide_env_values = true, value_name = "URL")]
    pub external_base_url: Option<Uri>,

    /// What is cut off the front of paths on their way to the MCP server, such as `/payments`.
    #[arg(
        long,
        env = "STRIP_PREFIX",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true,
        value_name = "PATH"
    )]
    pub strip_prefix: String,

    #[command(flatten)]
    pub tls: TlsArgs,

    #[command(flatten)]
    pub policy: PolicyArgs,

    #[command(flatten)]
    pub events: EventArgs,

    #[command(flatten)]
    pub traces: TraceArgs,
}

/// Certificates of the listener. Files are taken in again whenever they change.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// File with the certificate of this gateway and those between it and its authority, as PEM. Without it, clients speak plain HTTP.
    #[arg(
        long,
        env = "TLS_CERT_FILE",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_key_file"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// File with the key of the certificate, as PEM.
    #[arg(
        long,
        env = "TLS_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_key_file: Option<PathBuf>,

    /// File with the authorities of client certificates, as PEM. Policies of mode `mtls` need it.
    #[arg(
        long,
        env = "TLS_CLIENT_CA_FILE",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_client_ca_file: Option<PathBuf>,

    /// SPIFFE id of the proxy that ends the TLS of clients and says whose certificate it checked, in `X-MCP-Verified-SPIFFE-ID`.
    #[arg(
        long,
        env = "TRUSTED_PROXY_SPIFFE_ID",
        hide_env_values = true,
        value_name = "ID",
        requires = "tls_client_ca_file"
    )]
    pub trusted_proxy_spiffe_id: Option<String>,
}

impl TlsArgs {
    fn files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_cert_file.clone()?,
            key: self.tls_key_file.clone()?,
            client_ca: self.tls_client_ca_file.clone(),
        })
    }
}

/// What is allowed, and how often.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// File with the policy of the MCP server, taken in whenever it changes. Without it, everything passes and is recorded.
    #[arg(long, env = "POLICY_FILE", hide_env_values = true, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,

    #[command(flatten)]
    pub stream: PolicyStreamArgs,

    /// How long the last good policy stays in force when the file cannot be read any more; then everything is refused. For ever
    /// when not given.
    #[arg(long, env = "MCP_GATEWAY_POLICY_MAX_AGE", hide_env_values = true, value_parser = parse_duration, value_name = "DURATION")]
    pub policy_max_age: Option<Duration>,

    /// How clients are told that the policy refuses their call: `200` as a JSON-RPC error, `403` by HTTP status.
    #[arg(long, env = "MCP_GATEWAY_DENY_STATUS", hide_env_values = true, value_enum, default_value_t = DenyStatus::Ok)]
    pub deny_status: DenyStatus,

    /// Most requests per second of all callers together.
    #[arg(long, env = "MCP_GATEWAY_RATE_MAX", hide_env_values = true, value_name = "COUNT")]
    pub rate_max: Option<u32>,

    /// Most requests per second of one caller.
    #[arg(long, env = "MCP_GATEWAY_CALLER_RATE_MAX", hide_env_values = true, value_name = "COUNT")]
    pub caller_rate_max: Option<u32>,

    /// Most requests that are answered at a time.
    #[arg(
        long,
        env = "MCP_GATEWAY_IN_FLIGHT_MAX",
        hide_env_values = true,
        default_value_t = 65_536,
        value_name = "COUNT"
    )]
    pub in_flight_max: u64,

    /// Most requests of one caller that are answered at a time, open streams included.
    #[arg(
        long,
        env = "MCP_GATEWAY_CALLER_IN_FLIGHT_MAX",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub caller_in_flight_max: Option<u32>,
}

/// Where the events go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct EventArgs {
    /// Where ingest takes events, such as `http://mcp-sentinel-ingest:8081/events`. Without it, events are counted and dropped.
    #[arg(long, env = "ANALYTICS_INGEST_URL", hide_env_values = true, value_name = "URL")]
    pub analytics_ingest_url: Option<Uri>,

    /// The same by its other name, used when the first is not given.
    #[arg(
        long,
        env = "MCP_SENTINEL_INGEST_URL",
        hide_env_values = true,
        value_name = "URL",
        hide = true
    )]
    pub sentinel_ingest_url: Option<Uri>,

    /// Key for ingest. A file is safer: environments are easily seen.
    #[arg(
        long,
        env = "ANALYTICS_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        conflicts_with = "analytics_api_key_file"
    )]
    pub analytics_api_key: Option<String>,

    /// File with the key for ingest. It is read again when ingest refuses the key.
    #[arg(long, env = "ANALYTICS_API_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub analytics_api_key_file: Option<PathBuf>,

    /// What the events name as their source [default: <server>-gateway].
    #[arg(long, env = "ANALYTICS_SOURCE", hide_env_values = true, value_name = "NAME")]
    pub analytics_source: Option<String>,

    /// What requests are recorded as.
    #[arg(
        long,
        env = "ANALYTICS_EVENT_TYPE",
        hide_env_values = true,
        default_value = "mcp.request",
        value_name = "TYPE"
    )]
    pub analytics_event_type: String,

    /// Most events that wait in memory.
    #[arg(
        long,
        env = "MCP_GATEWAY_EVENTS_MAX",
        hide_env_values = true,
        default_value_t = 16_384,
        value_name = "COUNT"
    )]
    pub events_max: usize,

    /// Folder where events wait while ingest is away. Without it, they wait in memory only.
    #[arg(long, env = "MCP_GATEWAY_SPOOL_FOLDER", hide_env_values = true, value_name = "FOLDER")]
    pub spool_folder: Option<PathBuf>,

    /// Most bytes in that folder.
    #[arg(long, env = "MCP_GATEWAY_SPOOL_BYTES_MAX", hide_env_values = true, default_value_t = 256 << 20, value_name = "BYTES")]
    pub spool_bytes_max: u64,
}

/// Where spans go.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// OpenTelemetry collector that gets a span of each request, such as `http://otel-collector:4318`: OTLP over HTTP, as JSON.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub otlp_endpoint: Option<Uri>,

    /// What the spans name as their service [default: <server>-gateway].
    #[arg(long, env = "OTEL_SERVICE_NAME", hide_env_values = true, value_name = "NAME")]
    pub otel_service_name: Option<String>,
}

/// What [`serve`](crate::serve) needs: all of it checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub address: SocketAddr,
    /// `None`: clients speak plain HTTP.
    pub tls: Option<TlsFiles>,
    pub admin_address: SocketAddr,
    pub route: Route,
    pub limits: GatewayLimits,
    pub recorder: RecorderLimits,
    /// `None`: everything passes.
    pub policy: Option<PolicyConfig>,
    /// `None`: events are counted and dropped.
    pub delivery: Option<DeliveryConfig>,
    /// `None`: no spans are sent.
    pub traces: Option<TracesConfig>,
}

/// Why options cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{option}` must not be blank")]
    Blank { option: &'static str },
    #[error("`--policy-url` must be an https:// address, or an http:// one of this machine, got `{url}`")]
    PolicyUrl { url: Uri },
    #[error("`{option}` must be an http:// or https:// address with a host, got `{url}`")]
    Address { option: &'static str, url: Uri },
}

impl TryFrom<GatewayArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: GatewayArgs) -> Result<Self, ConfigError> {
        for (option, text) in [
            ("--server-name", &args.server_name),
            ("--server-namespace", &args.server_namespace),
        ] {
            if text.trim().is_empty() {
                return Err(ConfigError::Blank { option });
            }
        }
        let mut route = Route::new(
            args.server_name,
            args.server_namespace,
            http_address("--upstream-url", args.upstream_url)?,
        );
        route.cluster = args.cluster_name.filter(|name| !name.is_empty());
        route.team_id = args.team_id.filter(|id| !id.is_empty());
        route.source = args.events.analytics_source.clone().filter(|source| !source.is_empty());
        let traces = traces(args.traces, &route.server)?;
        route.strip_prefix = args.strip_prefix;
        let external_base_url = args
            .external_base_url
            .map(|url| http_address("--external-base-url", url))
            .transpose()?;
        route.event_type = Some(args.events.analytics_event_type.clone()).filter(|event_type| !event_type.is_empty());
        let limits = GatewayLimits {
            body_bytes_max: args.body_bytes_max,
            upstream_idle_timeout: args.upstream_idle_timeout,
            callers: CallerRules {
                hosts: args.allowed_hosts,
                origins: args.allowed_origins,
                ..CallerRules::of_listener(SocketAddr::new(args.host, args.port))
            },
            identity: IdentityRules {
                external_base_url: external_base_url.map(|url| url.to_string().trim_end_matches('/').to_owned()),
                trusted_proxy: args.tls.trusted_proxy_spiffe_id.clone(),
            },
            forward: ForwardRules {
                host: args.host_header,
                credentials_kept: args.keep_credentials,
            },
            in_flight_max: args.policy.in_flight_max,
            caller_in_flight_max: args.policy.caller_in_flight_max,
            rate: args.policy.rate_max.map(per_second),
            caller_rate: args.policy.caller_rate_max.map(per_second),
            deny_status: args.policy.deny_status,
            ..GatewayLimits::default()
        };
        let age_max = args.policy.policy_max_age;
        Ok(Self {
            address: SocketAddr::new(args.host, args.port),
            tls: args.tls.files(),
            admin_address: SocketAddr::new(args.host, args.admin_port),
            route,
            limits,
            recorder: RecorderLimits {
                events_max: args.events.events_max.max(1),
                ..RecorderLimits::default()
            },
            policy: PolicyConfig::of(args.policy.policy_file, args.policy.stream, age_max)
                .map_err(|url| ConfigError::PolicyUrl { url })?,
            delivery: delivery(args.events)?,
            traces,
        })
    }
}

fn per_second(calls: u32) -> Rate {
    Rate {
        calls,
        per: Duration::from_secs(1),
    }
}

fn delivery(args: EventArgs) -> Result<Option<DeliveryConfig>, ConfigError> {
    let Some(ingest) = args.analytics_ingest_url.or(args.sentinel_ingest_url) else {
        return Ok(None);
    };
    let api_key = match (args.analytics_api_key_file, args.analytics_api_key) {
        (Some(path), _) => ApiKey::File(path),
        (None, Some(key)) if !key.is_empty() => ApiKey::Value(key),
        (None, _) => ApiKey::None,
    };
    let spool = args.spool_folder.map(|folder| SpoolConfig {
        folder,
        bytes_max: args.spool_bytes_max,
    });
    Ok(Some(DeliveryConfig {
        spool,
        ..DeliveryConfig::new(http_address("--analytics-ingest-url", ingest)?, api_key)
    }))
}

fn traces(args: TraceArgs, server: &str) -> Result<Option<TracesConfig>, ConfigError> {
    let Some(endpoint) = args.otlp_endpoint else { return Ok(None) };
    Ok(Some(TracesConfig {
        endpoint: http_address("--otlp-endpoint", endpoint)?,
        service_name: args.otel_service_name.unwrap_or_else(|| format!("{server}-gateway")),
    }))
}

fn http_address(option: &'static str, url: Uri) -> Result<Uri, ConfigError> {
    let known = matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some();
    if known {
        Ok(url)
    } else {
        Err(ConfigError::Address { option, url })
    }
}

#[cfg(test)]
mod tests;
