//! The command line: global options and the tree of commands.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::access::AccessCommand;
use crate::command::adapter::AdapterCommand;
use crate::command::auth::AuthCommand;
use crate::command::registry::RegistryCommand;
use crate::command::sentinel::SentinelCommand;
use crate::command::server::ServerCommand;
use crate::command::team::TeamCommand;
use crate::fault::{Exit, Fault};

/// MCP servers, governed and observed: one gateway in front of them, one record of every call.
#[derive(Debug, Parser)]
#[command(
    name = "mcp-runtime",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 110
)]
#[command(after_help = "Start here:\n  mcp-runtime up --demo\n  mcp-runtime up --server payments=http://127.0.0.1:3001/mcp")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command knows.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Platform API to talk to [default: that of the saved login, else the standalone started last on this machine, else <http://127.0.0.1:8080>]
    #[arg(
        long,
        global = true,
        env = "MCP_RUNTIME_API_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) api_url: Option<String>,
    /// The same under its other name.
    #[arg(
        long,
        global = true,
        hide = true,
        env = "MCP_PLATFORM_API_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) platform_api_url: Option<String>,
    /// Token or key to present, for programs that have it in their environment.
    #[arg(
        long,
        global = true,
        hide = true,
        env = "MCP_PLATFORM_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) platform_api_token: Option<String>,
    /// Saved login to use [default: the one chosen last]
    #[arg(
        long,
        global = true,
        env = "MCP_PLATFORM_API_PROFILE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(crate) profile: Option<String>,
    /// Folder of saved logins
    #[arg(
        long,
        global = true,
        hide = true,
        env = "MCP_RUNTIME_CONFIG_DIR",
        hide_env_values = true,
        value_name = "FOLDER"
    )]
    pub(crate) config_dir: Option<PathBuf>,
    /// File that holds the API key to present; none is needed on the machine of a standalone
    #[arg(
        long,
        global = true,
        env = "MCP_RUNTIME_API_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) api_key_file: Option<PathBuf>,
    /// How to print: table, json, yaml or name; for commands that write files, the file or folder instead
    #[arg(long, short, global = true, default_value = "table", value_name = "FORM", value_parser = Target::parse)]
    pub(crate) output: Target,
}

impl Global {
    /// How to print, for commands that write nothing else.
    pub(crate) fn form(&self) -> Result<Output, Fault> {
        match &self.output {
            Target::Form(form) => Ok(*form),
            Target::File(path) => Err(Fault::new(
                Exit::Usage,
                format!("--output {} is no form: this command writes no file", path.display()),
            )
            .hint("use table, json, yaml or name, and `>` to write to a file")),
        }
    }

    /// How to print, and the file or folder to write, for commands that write.
    pub(crate) fn form_and_file(&self) -> (Output, Option<&Path>) {
        match &self.output {
            Target::Form(form) => (*form, None),
            Target::File(path) => (Output::Table, Some(path)),
        }
    }
}

/// What `--output` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Form(Output),
    File(PathBuf),
}

impl Target {
    /// A known word is a form; what looks like a path is one.
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(form) = Output::from_str(text, true) {
            return Ok(Self::Form(form));
        }
        if text == "-" || text.contains(['.', '/', '\\']) {
            return Ok(Self::File(PathBuf::from(text)));
        }
        Err(
            "expected table, json, yaml or name; or for commands that write files a path such as ./manifests or grant.yaml"
                .to_owned(),
        )
    }
}

/// Forms of output. When following, `json` is one document a line and `yaml` one document after `---`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
    /// Only names, one a line
    Name,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole stack in this process: gateway, ingest, queue, store, API
    #[cfg(feature = "standalone")]
    #[command(
        after_help = "Examples:\n  mcp-runtime up --demo\n  mcp-runtime up --server payments=http://127.0.0.1:3001/mcp --server hr=http://127.0.0.1:3002/mcp"
    )]
    Up(Box<crate::command::up::UpArgs>),
    /// Log in, see who you are, log out, make keys
    #[command(subcommand)]
    Auth(Box<AuthCommand>),
    /// Publish MCP servers: describe, check, deploy, look, retire
    #[command(subcommand)]
    Server(Box<ServerCommand>),
    /// Say who may call what: grants and sessions
    #[command(subcommand)]
    Access(Box<AccessCommand>),
    /// Reach a governed server from an MCP client on this machine
    #[command(subcommand)]
    Adapter(Box<AdapterCommand>),
    /// Look at a Kubernetes cluster
    #[command(subcommand)]
    Cluster(crate::command::cluster::ClusterCommand),
    /// Bring images to the registry
    #[command(subcommand)]
    Registry(Box<RegistryCommand>),
    /// Teams and who is in them
    #[command(subcommand)]
    Team(Box<TeamCommand>),
    /// Observe: status, logs, events, tools, SQL, ingest keys, dead letters
    #[command(subcommand)]
    Sentinel(Box<SentinelCommand>),
    /// State of everything, one line a component; the same as `sentinel status`
    #[command(after_help = "Example:\n  mcp-runtime status --watch")]
    Status(crate::command::sentinel::status::StatusArgs),
    /// Look for what commonly goes wrong, and say what to do about it; exit code 1 when something is
    #[command(after_help = "Example:\n  mcp-runtime doctor")]
    Doctor,
    /// Print the reference of all commands as Markdown, or write manual pages
    #[command(
        hide = true,
        after_help = "Examples:\n  mcp-runtime reference > docs/commands.md\n  mcp-runtime reference --man /usr/local/share/man/man1"
    )]
    Reference {
        /// Folder to write manual pages into
        #[arg(long, value_name = "FOLDER")]
        man: Option<PathBuf>,
    },
    /// Print a script that completes commands and options in your shell
    #[command(after_help = "Example:\n  mcp-runtime completion bash > /etc/bash_completion.d/mcp-runtime")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}
