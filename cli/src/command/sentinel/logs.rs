//! `sentinel logs`: what a component wrote.

use clap::Args;
use domain::operations::LogLine;
use futures::StreamExt as _;
use owo_colors::OwoColorize as _;

use crate::args::Output;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Which component: gateway, ingest, queue, processor, store, platform-api, or all
    component: String,
    /// Go on with lines as they are written, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// From when on: RFC 3339, or how long ago (30s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Most lines of the past
    #[arg(long, default_value_t = 200)]
    tail: u32,
    /// Only this level or worse: error, warn, info, debug, trace
    #[arg(long)]
    level: Option<String>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only lines about this MCP server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The log of the run before this one, such as one that crashed
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
}

impl LogsArgs {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("tail", self.tail.to_string())];
        let texts = [
            ("since", &self.since),
            ("level", &self.level),
            ("grep", &self.grep),
            ("server", &self.server),
        ];
        for (name, value) in texts {
            query.extend(value.clone().map(|value| (name, value)));
        }
        if self.previous {
            query.push(("previous", "true".to_owned()));
        }
        query
    }
}

pub(crate) async fn run(client: &Client, output: Output, args: &LogsArgs) -> Result<Done, Fault> {
    let path = format!("/api/v1/sentinel/logs/{}", args.component);
    let mut query = args.parameters();
    if !args.follow {
        let lines: Vec<LogLine> = client.get(&path, &query).await?;
        render::document(output, &lines, |lines| list(lines))?;
        return Ok(Done::Well);
    }
    query.push(("follow", "true".to_owned()));
    let mut lines = std::pin::pin!(client.follow(&path, &query).await?);
    while let Some(next) = lines.next().await {
        let (_, data) = next?;
        let line: LogLine = serde_json::from_str(&data)
            .map_err(|error| Fault::new(Exit::Failed, "reading a line of the log").caused_by(&error))?;
        render::item(output, &line, row)?;
    }
    render::note("the stream has ended: the API was stopped or restarted");
    Ok(Done::ButNotWell)
}

fn list(lines: &[LogLine]) -> String {
    if lines.is_empty() {
        return "No lines. Widen --since, lower --level, or start with a finer --log-level such as info,gateway=debug."
            .to_owned();
    }
    lines.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn row(line: &LogLine) -> String {
    let level = format!("{:<5}", line.level.to_uppercase());
    let level = match line.level.as_str() {
        "error" => level.red().to_string(),
        "warn" => level.yellow().to_string(),
        "info" => level.green().to_string(),
        _ => level.dimmed().to_string(),
    };
    let fields: Vec<String> = line
        .fields
        .iter()
        .map(|(name, value)| format!("{}={}", text::safe(name), field(value)))
        .collect();
    let text = format!(
        "{}  {level}  {:<12}  {}  {}",
        text::moment(line.timestamp),
        line.component,
        text::safe(&line.message),
        fields.join(" ").dimmed()
    );
    text.trim_end().to_owned()
}

fn field(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), text::safe)
}
