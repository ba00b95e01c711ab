//! Options of the operator, and the same checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;

use clap::{Parser, Subcommand, ValueEnum};
use service_kit::ProcessArgs;

/// Turns MCPServer, MCPAccessGrant and MCPAgentSession objects into workloads, routes and policy documents.
#[derive(Clone, Debug, Parser)]
#[command(name = "mcp-operator", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub operator: OperatorArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// What the operator prints instead of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Prints the definitions of the custom resources
    Crds,
    /// Prints the roles the operator needs, and no more
    Rbac,
    /// Prints the configurations of its webhooks, which check and complete objects before they are stored; optional
    Webhooks,
}

/// When a route counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RouteReadiness {
    /// A load balancer has taken it up
    #[default]
    Strict,
    /// It is there: for clusters whose ingress controller reports no address
    Permissive,
}

/// Options of the operator.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Operator")]
pub struct OperatorArgs {
    /// Address for health and metrics.
    #[arg(long, env = "MCP_OPERATOR_HOST", hide_env_values = true, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "ADDRESS")]
    pub host: IpAddr,

    /// Port for health and metrics.
    #[arg(long, env = "MCP_OPERATOR_PORT", hide_env_values = true, default_value_t = 8080)]
    pub port: u16,

    /// Port for gateways that wait for their policy, by TLS with a certificate that the operator makes itself.
    #[arg(
        long,
        env = "MCP_OPERATOR_TLS_PORT",
        hide_env_values = true,
        default_value_t = 9443,
        value_name = "PORT"
    )]
    pub tls_port: u16,

    /// Where gateways reach that port [default: <https://mcp-operator.NAMESPACE.svc:9443>]. `none`: gateways read their policy from the
    /// mounted `ConfigMap` alone, which takes a minute or two.
    #[arg(long, env = "MCP_OPERATOR_POLICY_URL", hide_env_values = true, value_name = "URL")]
    pub policy_url: Option<String>,

    /// Number of servers worked on at once.
    #[arg(
        long,
        env = "MCP_OPERATOR_CONCURRENCY",
        hide_env_values = true,
        default_value = "16",
        value_name = "COUNT"
    )]
    pub concurrency: NonZeroUsize,

    /// Whether to work without asking whether another operator does.
    #[arg(long, env = "MCP_OPERATOR_NO_LEADER_ELECTION", hide_env_values = true)]
    pub no_leader_election: bool,

    /// Namespace of the lease by which operators agree who works.
    #[arg(
        long,
        env = "MCP_OPERATOR_NAMESPACE",
        hide_env_values = true,
        default_value = "mcp-runtime",
        value_name = "NAME"
    )]
    pub namespace: String,

    /// Name of this operator among others [default: a random one].
    #[arg(long, env = "POD_NAME", hide_env_values = true, value_name = "NAME")]
    pub identity: Option<String>,

    /// Name of this cluster, which policy documents and events carry.
    #[arg(
        long,
        env = "MCP_CLUSTER_NAME",
        hide_env_values = true,
        default_value = "local",
        value_name = "NAME"
    )]
    pub cluster_name: String,

    #[command(flatten)]
    pub route: RouteArgs,
    #[command(flatten)]
    pub image: ImageArgs,
}

/// How routes are made.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Routes")]
pub struct RouteArgs {
    /// Host of servers that name none; empty means every host.
    #[arg(
        long,
        env = "MCP_DEFAULT_INGRESS_HOST",
        hide_env_values = true,
        default_value = "",
        value_name = "HOST"
    )]
    pub ingress_host: String,

    /// Traefik entry points of routes.
    #[arg(
        long,
        env = "MCP_DEFAULT_INGRESS_ENTRYPOINTS",
        hide_env_values = true,
        default_value = "web",
        value_name = "NAMES"
    )]
    pub ingress_entrypoints: String,

    /// Whether routes are served with TLS by the ingress controller.
    #[arg(long, env = "MCP_DEFAULT_INGRESS_TLS", hide_env_values = true)]
    pub ingress_tls: bool,

    /// When a route counts as ready.
    #[arg(long, env = "MCP_INGRESS_READINESS_MODE", hide_env_values = true, value_enum, default_value_t = RouteReadiness::Strict)]
    pub ingress_readiness: RouteReadiness,

    /// Annotations that servers may put on their Ingress, beside the harmless ones; a trailing `*` stands for any ending.
    #[arg(
        long,
        env = "MCP_INGRESS_ANNOTATIONS_ALLOWED",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub ingress_annotations_allowed: Vec<String>,

    /// Whether the cluster has the Gateway API, so that servers may ask for an `HTTPRoute`.
    #[arg(long, env = "MCP_GATEWAY_API", hide_env_values = true)]
    pub gateway_api: bool,

    /// Gateway that `HTTPRoute`s attach to when a server names none, such as `gateways/public`.
    #[arg(long, env = "MCP_DEFAULT_GATEWAY", hide_env_values = true, value_name = "NAMESPACE/NAME")]
    pub default_gateway: Option<String>,
}

/// Which images run, and what sidecars are told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Workloads")]
pub struct ImageArgs {
    /// Image of the gateway before each governed server.
    #[arg(long, env = "MCP_GATEWAY_PROXY_IMAGE", hide_env_values = true, default_value = concat!("mcp-runtime/mcp-gateway:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub gateway_image: String,

    /// Registry of the platform, for servers that ask for it with `useProvisionedRegistry`.
    #[arg(long, env = "PROVISIONED_REGISTRY_URL", hide_env_values = true, value_name = "HOST")]
    pub registry: Option<String>,

    /// The same as nodes reach it, used when the first is not given.
    #[arg(
        long,
        env = "MCP_REGISTRY_PULL_HOST",
        hide_env_values = true,
        default_value = "registry.registry.svc.cluster.local:5000",
        value_name = "HOST"
    )]
    pub registry_pull_host: String,

    /// Secret to pull from that registry with; made in each namespace by the platform, never by the operator.
    #[arg(
        long,
        env = "PROVISIONED_REGISTRY_SECRET_NAME",
        hide_env_values = true,
        default_value = "mcp-runtime-registry-pull",
        value_name = "NAME"
    )]
    pub registry_secret: String,

    /// Where gateways send events, such as `http://mcp-sentinel-ingest.mcp-sentinel.svc.cluster.local:8081/events`. Without it, only
    /// servers that name an address of their own are recorded.
    #[arg(long, env = "MCP_SENTINEL_INGEST_URL", hide_env_values = true, value_name = "URL")]
    pub ingest_url: Option<String>,

    /// The same by its other name, used when the first is not given.
    #[arg(
        long,
        env = "MCP_ANALYTICS_INGEST_URL",
        hide_env_values = true,
        value_name = "URL",
        hide = true
    )]
    pub analytics_ingest_url: Option<String>,

    /// Secret of each namespace with its ingest key, under `api-key`; for servers that name none.
    #[arg(
        long,
        env = "MCP_INGEST_KEY_SECRET",
        hide_env_values = true,
        default_value = "mcp-sentinel-ingest-key",
        value_name = "NAME"
    )]
    pub ingest_key_secret: String,

    /// Where gateways send traces.
    #[arg(
        long,
        env = "MCP_GATEWAY_OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
}

/// What [`serve`](crate::serve) needs: all of it checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub admin_address: SocketAddr,
    pub tls: TlsConfig,
    pub concurrency: usize,
    /// `None`: work without asking.
    pub lease: Option<LeaseConfig>,
    pub settings: Settings,
}

/// How operators agree who works.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    pub namespace: String,
    pub identity: Option<String>,
}

/// Where the operator serves by TLS.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub address: SocketAddr,
    /// Names of the certificate.
    pub names: Vec<String>,
    /// Namespace of the Secret with the certificate.
    pub namespace: String,
}

/// What all servers of this cluster have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub cluster_name: String,
    pub ingress_host: String,
    pub ingress_entrypoints: String,
    pub ingress_tls: bool,
    pub route_readiness: RouteReadiness,
    pub annotations_allowed: Vec<String>,
    pub gateway_api: bool,
    /// Namespace and name.
    pub default_gateway: Option<(String, String)>,
    pub gateway_image: String,
    pub registry: String,
    pub registry_secret: String,
    pub ingest_url: Option<String>,
    pub ingest_key_secret: String,
    pub otlp_endpoint: Option<String>,
    /// Where gateways wait for their policy; `None`: they read it from a file alone.
    pub policy_url: Option<String>,
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{option}` must not be blank")]
    Blank { option: &'static str },
    #[error("`--default-gateway` must be NAMESPACE/NAME, got `{text}`")]
    Gateway { text: String },
    #[error("`--policy-url` must be https://HOST[:PORT], or `none`, got `{url}`")]
    PolicyUrl { url: String },
    #[error("`--ingest-url` must begin with http:// or https://, got `{url}`")]
    IngestUrl { url: String },
}

impl TryFrom<OperatorArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: OperatorArgs) -> Result<Self, ConfigError> {
        for (option, text) in [
            ("--gateway-image", &args.image.gateway_image),
            ("--cluster-name", &args.cluster_name),
            ("--namespace", &args.namespace),
        ] {
            if text.trim().is_empty() {
                return Err(ConfigError::Blank { option });
            }
        }
        let default_gateway = match named(args.route.default_gateway) {
            None => None,
            Some(text) => Some(
                text.split_once('/')
                    .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
                    .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
                    .ok_or(ConfigError::Gateway { text: text.clone() })?,
            ),
        };
        let ingest_url = named(args.image.ingest_url).or(named(args.image.analytics_ingest_url));
        if let Some(url) = ingest_url.as_ref().filter(|url| !crate::validate::is_http(url)) {
            return Err(ConfigError::IngestUrl { url: url.clone() });
        }
        let (policy_url, policy_host) = policy_url(named(args.policy_url), &args.namespace, args.tls_port)?;
        Ok(Self {
            admin_address: SocketAddr::new(args.host, args.port),
            tls: TlsConfig {
                address: SocketAddr::new(args.host, args.tls_port),
                names: service_names(&args.namespace).into_iter().chain(policy_host).collect(),
                namespace: args.namespace.clone(),
            },
            concurrency: args.concurrency.get(),
            lease: (!args.no_leader_election).then_some(LeaseConfig {
                namespace: args.namespace,
                identity: named(args.identity),
            }),
            settings: Settings {
                cluster_name: args.cluster_name,
                ingress_host: args.route.ingress_host.trim().to_owned(),
                ingress_entrypoints: args.route.ingress_entrypoints,
                ingress_tls: args.route.ingress_tls,
                route_readiness: args.route.ingress_readiness,
                annotations_allowed: args.route.ingress_annotations_allowed,
                gateway_api: args.route.gateway_api,
                default_gateway,
                gateway_image: args.image.gateway_image,
                registry: named(args.image.registry).unwrap_or(args.image.registry_pull_host),
                registry_secret: args.image.registry_secret,
                ingest_url,
                ingest_key_secret: args.image.ingest_key_secret,
                otlp_endpoint: named(args.image.otlp_endpoint),
                policy_url,
            },
        })
    }
}

/// Names of the operator's Service, as callers within the cluster spell them.
fn service_names(namespace: &str) -> Vec<String> {
    [".svc", ".svc.cluster.local", ""]
        .map(|end| format!("mcp-operator.{namespace}{end}"))
        .into()
}

/// The address for gateways, without a slash at its end, and its host.
fn policy_url(given: Option<String>, namespace: &str, port: u16) -> Result<(Option<String>, Option<String>), ConfigError> {
    let url = match given {
        Some(none) if none.trim() == "none" => return Ok((None, None)),
        Some(url) => url.trim().trim_end_matches('/').to_owned(),
        None => format!("https://mcp-operator.{namespace}.svc:{port}"),
    };
    let parsed = url.parse::<http::Uri>().ok();
    let host = parsed
        .filter(|parsed| parsed.scheme_str() == Some("https") && parsed.path() == "/" && parsed.query().is_none())
        .and_then(|parsed| parsed.host().map(|host| host.trim_matches(['[', ']']).to_owned()))
        .ok_or_else(|| ConfigError::PolicyUrl { url: url.clone() })?;
    Ok((Some(url), Some(host)))
}

/// An environment variable that is set to nothing counts as left out.
fn named(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests;
