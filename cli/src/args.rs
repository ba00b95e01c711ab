//! The command line: global options and the tree of commands.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::sentinel::SentinelCommand;

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
    /// Platform API to talk to [default: the standalone started last on this machine, else <http://127.0.0.1:8080>]
    #[arg(
        long,
        global = true,
        env = "MCP_RUNTIME_API_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) api_url: Option<String>,
    /// File that holds the API key to present; none is needed on the machine of a standalone
    #[arg(
        long,
        global = true,
        env = "MCP_RUNTIME_API_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) api_key_file: Option<std::path::PathBuf>,
    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
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
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole stack in this process: gateway, ingest, queue, store, API
    #[cfg(feature = "standalone")]
    #[command(
        after_help = "Examples:\n  mcp-runtime up --demo\n  mcp-runtime up --server payments=http://127.0.0.1:3001/mcp --server hr=http://127.0.0.1:3002/mcp"
    )]
    Up(Box<crate::command::up::UpArgs>),
    /// Observe: status, logs, events, tools, SQL, ingest keys, dead letters
    #[command(subcommand)]
    Sentinel(Box<SentinelCommand>),
    /// State of everything, one line a component; the same as `sentinel status`
    #[command(after_help = "Example:\n  mcp-runtime status --watch")]
    Status(crate::command::sentinel::status::StatusArgs),
    /// Print a script that completes commands and options in your shell
    #[command(after_help = "Example:\n  mcp-runtime completion bash > /etc/bash_completion.d/mcp-runtime")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}
