//! `sentinel tools`: what each tool did in a window.

use clap::Args;
use domain::analytics::{ToolRow, ToolsReport};

use super::filter::FilterArgs;
use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct ToolsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most tools to list
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

pub(crate) async fn run(client: &Client, output: Output, args: &ToolsArgs) -> Result<Done, Fault> {
    let mut query = args.filter.parameters();
    query.push(("limit", args.limit.to_string()));
    let report: ToolsReport = client.get("/api/v1/analytics/tools", &query).await?;
    render::document(output, &report, table)?;
    Ok(Done::Well)
}

fn table(report: &ToolsReport) -> String {
    if report.tools.is_empty() {
        return "No tool was called in this time. Widen --since, or call one through the gateway.".to_owned();
    }
    let header = [
        "SERVER",
        "TOOL",
        "CALLS",
        "BEFORE",
        "ERRORS",
        "DENIED",
        "P50",
        "P95",
        "P99",
        "CALLERS",
        "LAST SEEN (UTC)",
    ];
    let table = render::table(&header, report.tools.iter().map(row));
    format!(
        "{table}\n\ncomplete through {} UTC",
        text::moment(report.horizon.complete_through)
    )
}

fn row(tool: &ToolRow) -> Vec<String> {
    vec![
        text::safe(&tool.server),
        text::safe(&tool.tool_name),
        tool.calls.events.to_string(),
        tool.previous_calls.to_string(),
        text::percent(tool.error_rate),
        text::percent(tool.deny_rate),
        text::micros_or_dash(tool.calls.latency_p50_us),
        text::micros_or_dash(tool.calls.latency_p95_us),
        text::micros_or_dash(tool.calls.latency_p99_us),
        tool.unique_callers.to_string(),
        text::moment(tool.last_seen),
    ]
}
