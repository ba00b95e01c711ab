//! `sentinel`: observe a running system.

pub(crate) mod alerts;
pub(crate) mod dlq;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod migrate;
pub(crate) mod query;
pub(crate) mod status;
pub(crate) mod tools;

use clap::Subcommand;

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::Done;

#[derive(Debug, Subcommand)]
pub(crate) enum SentinelCommand {
    /// State of each component, flow of events, storage; exit code 1 when something is not ready
    #[command(
        after_help = "Examples:\n  mcp-runtime sentinel status\n  mcp-runtime sentinel status --watch\n  mcp-runtime sentinel status -o json"
    )]
    Status(status::StatusArgs),
    /// Log of a component: gateway, ingest, queue, processor, store, platform-api
    #[command(
        after_help = "Examples:\n  mcp-runtime sentinel logs gateway --follow\n  mcp-runtime sentinel logs processor --since 15m --level warn"
    )]
    Logs(logs::LogsArgs),
    /// Recorded calls, newest last
    #[command(
        after_help = "Examples:\n  mcp-runtime sentinel events --follow\n  mcp-runtime sentinel events --server payments --outcome tool_error --since 1h"
    )]
    Events(events::EventsArgs),
    /// What each tool did: calls, errors, denials, latency
    #[command(after_help = "Example:\n  mcp-runtime sentinel tools --since 24h --server payments")]
    Tools(tools::ToolsArgs),
    /// Read-only SQL over the views events, `calls_hourly` and `calls_daily`
    #[command(
        after_help = "Example:\n  mcp-runtime sentinel query \"select tool_name, count(*) as calls from events group by tool_name order by calls desc\""
    )]
    Query(query::QueryArgs),
    /// Alert rules and how each stands; exit code 1 when one fires
    #[command(after_help = "Examples:\n  mcp-runtime sentinel alerts\n  mcp-runtime sentinel alerts --firing -o json")]
    Alerts(alerts::AlertsArgs),
    /// Ingest keys: make, list, revoke, rotate
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Dead letters: records that could not be stored
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// The ClickHouse database of a cluster: what is missing in it, or adding it
    #[command(
        after_help = "Examples:\n  mcp-runtime sentinel migrate --plan\n  mcp-runtime sentinel migrate --apply -- --clickhouse-url http://127.0.0.1:8123"
    )]
    Migrate(migrate::MigrateArgs),
}

pub(crate) async fn run(client: &Client, output: Output, command: SentinelCommand) -> Result<Done, Fault> {
    match command {
        SentinelCommand::Status(args) => status::run(client, output, &args).await,
        SentinelCommand::Logs(args) => logs::run(client, output, &args).await,
        SentinelCommand::Events(args) => events::run(client, output, &args).await,
        SentinelCommand::Tools(args) => tools::run(client, output, &args).await,
        SentinelCommand::Query(args) => query::run(client, output, &args).await,
        SentinelCommand::Alerts(args) => alerts::run(client, output, &args).await,
        SentinelCommand::Keys(command) => keys::run(client, output, command).await,
        SentinelCommand::Dlq(command) => dlq::run(client, output, command).await,
        SentinelCommand::Migrate(args) => migrate::run(&args),
    }
}
