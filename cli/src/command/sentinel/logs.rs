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
    /// Which component: gateway, ingest, queue, processor, store, platform-api, all; or server, with its name
    component: String,
    /// Which server, after `server`: what it writes itself
    name: Option<String>,
    #[command(flatten)]
    lines: LinesArgs,
    /// Only lines about this MCP server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The log of the run before this one, such as one that crashed
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
}

/// Which lines of a log.
#[derive(Debug, Clone, Args)]
pub(crate) struct LinesArgs {
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
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    query: Vec<(&'static str, String)>,
    follow: bool,
}

impl LinesArgs {
    fn wish(&self) -> Wish {
        let mut query = vec![("tail", self.tail.to_string())];
        let texts = [("since", &self.since), ("level", &self.level), ("grep", &self.grep)];
        for (name, value) in texts {
            query.extend(value.clone().map(|value| (name, value)));
        }
        Wish {
            query,
            follow: self.follow,
        }
    }

    /// Whether new lines are waited for.
    pub(crate) fn is_followed(&self) -> bool {
        self.follow
    }

    /// Lines about one server, or by it.
    pub(crate) fn of_server(&self, name: &str) -> Wish {
        let mut wish = self.wish();
        wish.query.push(("server", name.to_owned()));
        wish
    }
}

pub(crate) async fn run(client: &Client, output: Output, args: &LogsArgs) -> Result<Done, Fault> {
    let mut wish = match (args.component.as_str(), args.name.as_ref().or(args.server.as_ref())) {
        ("server", None) => {
            return Err(Fault::new(Exit::Usage, "which server?").hint("mcp-runtime sentinel logs server NAME"));
        }
        (component, _) if component != "server" && args.name.is_some() => {
            return Err(Fault::new(Exit::Usage, "a name only follows `server`")
                .hint(format!("mcp-runtime sentinel logs {component} --server NAME")));
        }
        (_, Some(name)) => args.lines.of_server(name),
        (_, None) => args.lines.wish(),
    };
    if args.previous {
        wish.query.push(("previous", "true".to_owned()));
    }
    show(client, output, &args.component, wish).await
}

/// Prints lines, and follows them when that is wished for.
pub(crate) async fn show(client: &Client, output: Output, component: &str, wish: Wish) -> Result<Done, Fault> {
    let path = format!("/api/v1/sentinel/logs/{component}");
    let Wish { mut query, follow } = wish;
    if !follow {
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
