//! `adapter`: what an agent's client starts to reach a governed server.

mod source;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use adapter::{Config, ProxyConfig, Session, Sessions, StdioConfig, Upstream, session::secret};
use clap::{Args, Subcommand, ValueEnum};
use crds::word::TrustLevel;
use http::{HeaderMap, HeaderName, HeaderValue};
use service_kit::Tasks;
use service_kit::logs::LogStore;
use service_kit::tasks::{Running, RunningOptions};
use service_kit::telemetry::{self, LogFormat};

use crate::args::Global;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};
use crate::text;
use source::Given;
pub(crate) use source::{Platform, Wish};

#[derive(Debug, Subcommand)]
pub(crate) enum AdapterCommand {
    /// Be an MCP server on standard input and output, for clients that start a command
    #[command(
        after_help = "Examples:\n  mcp-runtime adapter stdio --server payments --agent cursor --auto-refresh\n  mcp-runtime adapter stdio --server payments --agent cursor --trust medium --ttl 8h --auto-refresh\n  mcp-runtime adapter stdio --server docs --anonymous"
    )]
    Stdio(StdioArgs),
    /// Be an MCP server at an address of this machine, for clients that take a URL
    #[command(
        after_help = "Examples:\n  mcp-runtime adapter proxy --server payments --agent cursor --auto-refresh\n  mcp-runtime adapter proxy --server payments --agent cursor --listen 127.0.0.1:9000"
    )]
    Proxy(ProxyArgs),
}

/// Which server, as whom.
#[derive(Debug, Args)]
pub(crate) struct SharedArgs {
    /// Name of the server; where it is comes with the session
    #[arg(long, env = "MCP_RUNTIME_ADAPTER_SERVER", hide_env_values = true, value_name = "NAME")]
    server: Option<String>,
    /// Its namespace [default: wherever you have one of that name, your own first]
    #[arg(
        long,
        short,
        env = "MCP_RUNTIME_ADAPTER_NAMESPACE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    namespace: Option<String>,
    /// Agent that calls
    #[arg(long, env = "MCP_RUNTIME_ADAPTER_AGENT", hide_env_values = true, value_name = "ID")]
    agent: Option<String>,
    /// Most trust to consent to; grants may give less [default: low]
    #[arg(long, value_name = "LEVEL")]
    trust: Option<Trust>,
    /// Life of the session, such as 8h [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = text::duration)]
    ttl: Option<Duration>,
    /// Renew the session ahead of its end, and replace it when it has ended
    #[arg(long, env = "MCP_RUNTIME_ADAPTER_AUTO_REFRESH", hide_env_values = true)]
    auto_refresh: bool,
    #[command(flatten)]
    given: GivenArgs,
    /// Longest silence while an answer is owed
    #[arg(long, env = "MCP_RUNTIME_REQUEST_TIMEOUT", hide_env_values = true, default_value = "15m", value_name = "TIME", value_parser = text::duration)]
    request_timeout: Duration,
    /// How long requests wait for a platform that restarts
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = text::duration)]
    reconnect_timeout: Duration,
    /// Which log lines go to standard error: error, warn, info or debug, or a filter
    #[arg(
        long,
        env = "MCP_RUNTIME_LOG_LEVEL",
        hide_env_values = true,
        default_value = "warn",
        value_name = "FILTER"
    )]
    log_level: String,
}

/// Another way to the server than through the platform.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without a platform")]
pub(crate) struct GivenArgs {
    /// Where the server is, instead of --server
    #[arg(
        long = "url",
        alias = "runtime-url",
        env = "MCP_RUNTIME_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    url: Option<reqwest::Url>,
    /// File with the credential of a session
    #[arg(long, value_name = "FILE")]
    session_token_file: Option<std::path::PathBuf>,
    /// Credential of a session, for programs that have it in their environment
    #[arg(
        long = "session-id",
        hide = true,
        env = "MCP_RUNTIME_SESSION_ID",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    session: Option<String>,
    /// Person to name
    #[arg(long, env = "MCP_RUNTIME_HUMAN_ID", hide_env_values = true, value_name = "ID")]
    human_id: Option<String>,
    /// Agent to name
    #[arg(long, env = "MCP_RUNTIME_AGENT_ID", hide_env_values = true, value_name = "ID")]
    agent_id: Option<String>,
    /// Team to name
    #[arg(long, env = "MCP_RUNTIME_TEAM_ID", hide_env_values = true, value_name = "ID")]
    team_id: Option<String>,
    /// What to send as Authorization, for programs that have it in their environment
    #[arg(
        long,
        hide = true,
        env = "MCP_RUNTIME_AUTH_HEADER",
        hide_env_values = true,
        value_name = "TEXT"
    )]
    auth_header: Option<String>,
    /// Host to send instead of that of the URL
    #[arg(long, env = "MCP_RUNTIME_HOST_HEADER", hide_env_values = true, value_name = "HOST")]
    host_header: Option<HeaderValue>,
}

#[derive(Debug, Args)]
pub(crate) struct StdioArgs {
    #[command(flatten)]
    shared: SharedArgs,
    /// Call as nobody, with the methods that need no identity
    #[arg(long, env = "MCP_RUNTIME_ANONYMOUS", hide_env_values = true, conflicts_with = "agent")]
    anonymous: bool,
    /// Methods that pass anonymously [default: those that the server answers to anybody]
    #[arg(
        long,
        env = "MCP_RUNTIME_ANONYMOUS_METHODS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "METHOD"
    )]
    anonymous_methods: Vec<String>,
    /// Answer lists of tools from memory for this long [default: always ask]
    #[arg(long, env = "MCP_RUNTIME_TOOLS_CACHE_TTL", hide_env_values = true, value_name = "TIME", value_parser = text::duration)]
    tools_cache_ttl: Option<Duration>,
    /// How long calls under way are waited for when the client closes standard input
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = text::duration)]
    exit_wait: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    shared: SharedArgs,
    /// Address to listen on; other than this machine's own only with --allow-host
    #[arg(
        long,
        env = "MCP_RUNTIME_LISTEN_ADDR",
        hide_env_values = true,
        default_value = "127.0.0.1:8099",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    /// Longest request body, in bytes
    #[arg(long, env = "MCP_RUNTIME_MAX_INBOUND_BYTES", hide_env_values = true, default_value_t = 16 << 20, value_name = "BYTES")]
    max_inbound_bytes: usize,
    /// Origin besides this machine's that browsers may call from; again for more
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Name besides this machine's under which clients may call; again for more
    #[arg(long = "allow-host", value_name = "HOST")]
    hosts: Vec<String>,
}

/// Levels of trust as options.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Trust {
    Low,
    Medium,
    High,
}

impl From<Trust> for TrustLevel {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::Low => Self::Low,
            Trust::Medium => Self::Medium,
            Trust::High => Self::High,
        }
    }
}

pub(crate) fn run(global: &Global, command: AdapterCommand) -> Result<Done, Fault> {
    match command {
        AdapterCommand::Stdio(args) => process(&args.shared.log_level.clone(), async |tasks| stdio(global, args, tasks).await),
        AdapterCommand::Proxy(args) => process(&args.shared.log_level.clone(), async |tasks| proxy(global, args, tasks).await),
    }
}

/// Runs an adapter until it ends or is told to, and drains it.
fn process(log_level: &str, body: impl AsyncFnOnce(&Tasks) -> Result<(), Fault>) -> Result<Done, Fault> {
    let logs = LogStore::default();
    telemetry::install(LogFormat::Human, log_level, &logs)
        .map_err(|error| Fault::new(Exit::Usage, "reading --log-level").caused_by(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fault::new(Exit::Failed, "starting the runtime").caused_by(&error))?;
    let done = runtime.block_on(async {
        let running = Running::new(&RunningOptions {
            shutdown_timeout: Duration::from_secs(3),
            logs,
            ..RunningOptions::default()
        });
        running.set_started();
        let done = body(&running.tasks()).await;
        let report = running.stop().await;
        done.and_then(|()| {
            report
                .into_result()
                .map_err(|error| Fault::new(Exit::Failed, format!("{error:#}")))
        })
    });
    // A read of standard input cannot be called back, and nobody waits for it.
    runtime.shutdown_background();
    done.map(|()| Done::Well)
}

async fn stdio(global: &Global, args: StdioArgs, tasks: &Tasks) -> Result<(), Fault> {
    let config = args.shared.config();
    let (upstream, methods) = if args.anonymous {
        let (endpoint, methods) = args.shared.anonymous(global).await?;
        let methods = if args.anonymous_methods.is_empty() {
            methods
        } else {
            args.anonymous_methods
        };
        (Upstream::anonymous(endpoint, config, tasks), Some(methods))
    } else {
        (Upstream::new(args.shared.sessions(global, tasks)?, config, tasks), None)
    };
    let upstream = upstream.map_err(|error| Fault::new(Exit::Failed, error.to_string()).caused_by_source(&error))?;
    upstream.warm().await;
    let own = StdioConfig {
        tools_cache_ttl: args.tools_cache_ttl,
        methods,
        exit_wait: args.exit_wait,
        ..StdioConfig::default()
    };
    let client = adapter::stdio::Lines {
        input: own_file(&std::io::stdin())?,
        output: own_file(&std::io::stdout())?,
    };
    let served = adapter::stdio::serve(upstream, own, client, stopped()?, tasks).await;
    served.map_err(|error| Fault::new(Exit::Failed, error.to_string()).caused_by_source(&error))
}

async fn proxy(global: &Global, args: ProxyArgs, tasks: &Tasks) -> Result<(), Fault> {
    if !args.listen.ip().is_loopback() && args.hosts.is_empty() {
        return Err(
            Fault::new(Exit::Usage, format!("anybody who reaches {} would call as you", args.listen))
                .hint("listen on 127.0.0.1, or say with --allow-host by which name others may call"),
        );
    }
    let upstream = Upstream::new(args.shared.sessions(global, tasks)?, args.shared.config(), tasks);
    let upstream = upstream.map_err(|error| Fault::new(Exit::Failed, error.to_string()).caused_by_source(&error))?;
    upstream.warm().await;
    let listener = service_kit::http::bind(args.listen)
        .map_err(|error| Fault::new(Exit::Failed, format!("listening on {}", args.listen)).caused_by(&error))?;
    let config = ProxyConfig {
        body_bytes_max: args.max_inbound_bytes,
        origins: args.origins,
        hosts: args.hosts,
    };
    let address = adapter::proxy::serve(upstream, config, listener, tasks)
        .map_err(|error| Fault::new(Exit::Failed, "starting to listen").caused_by(&error))?;
    render::line(&format!("http://{address}/mcp"))?;
    render::note("Clients connect there without any login. Ctrl-C ends it.");
    stopped()?.await;
    Ok(())
}

/// Standard input or output as a file of its own, past the buffers and locks of the standard library.
fn own_file(stream: &impl AsFd) -> Result<tokio::fs::File, Fault> {
    let file = stream.as_fd().try_clone_to_owned();
    let file = file.map_err(|error| Fault::new(Exit::Failed, "opening standard input and output").caused_by(&error))?;
    Ok(tokio::fs::File::from_std(file.into()))
}

/// Waits until the process is told to stop.
fn stopped() -> Result<impl Future<Output = ()>, Fault> {
    use tokio::signal::unix::{SignalKind, signal};
    let fault = |error: std::io::Error| Fault::new(Exit::Failed, "listening for signals").caused_by(&error);
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

impl SharedArgs {
    fn config(&self) -> Config {
        Config {
            answer_idle_max: self.request_timeout,
            reconnect_max: self.reconnect_timeout,
            auto_refresh: self.auto_refresh,
            host_header: self.given.host_header.clone(),
        }
    }

    /// Where sessions come from: the platform, or the command line.
    fn sessions(&self, global: &Global, tasks: &Tasks) -> Result<Sessions, Fault> {
        match (&self.given.url, &self.server) {
            (Some(url), _) => Ok(Sessions::new(Given(self.given.session(url.clone())?), false, tasks)),
            (None, Some(server)) => {
                let agent = self.agent.clone().or_else(|| self.given.agent_id.clone());
                let agent = agent.ok_or_else(|| {
                    Fault::new(Exit::Usage, "a session is for an agent, and none is named").hint("name it: --agent cursor")
                })?;
                let wish = Wish {
                    server: server.clone(),
                    namespace: self.namespace.clone(),
                    agent,
                    trust: self.trust.map(TrustLevel::from),
                    ttl: self.ttl,
                };
                let platform = Platform::new(Client::new(global)?, wish);
                Ok(Sessions::new(platform, self.auto_refresh, tasks))
            }
            (None, None) => {
                Err(Fault::new(Exit::Usage, "no server is named").hint("name it: --server payments --agent cursor"))
            }
        }
    }

    /// Where an anonymous adapter calls, and which methods pass.
    async fn anonymous(&self, global: &Global) -> Result<(reqwest::Url, Vec<String>), Fault> {
        if let Some(url) = &self.given.url {
            let methods = adapter::stdio::ANONYMOUS_METHODS.map(str::to_owned);
            return Ok((url.clone(), methods.into()));
        }
        let Some(server) = &self.server else {
            return Err(Fault::new(Exit::Usage, "no server is named").hint("name it: --server docs"));
        };
        source::anonymous(&Client::new(global)?, server, self.namespace.as_deref()).await
    }
}

impl GivenArgs {
    fn session(&self, endpoint: reqwest::Url) -> Result<Session, Fault> {
        let token = match &self.session_token_file {
            Some(path) => Some(crate::client::read_secret(path, "the credential of the session")?),
            None => self.session.clone(),
        };
        let mut headers = HeaderMap::new();
        for (name, text) in [
            ("x-mcp-human-id", &self.human_id),
            ("x-mcp-agent-id", &self.agent_id),
            ("x-mcp-team-id", &self.team_id),
            ("x-mcp-agent-session", &token),
            ("authorization", &self.auth_header),
        ] {
            let Some(text) = text else { continue };
            let value =
                secret(text).ok_or_else(|| Fault::new(Exit::Usage, format!("what is given for {name} is no header text")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(Session {
            endpoint,
            name: "given".to_owned(),
            headers,
            expires_at: None,
        })
    }
}
