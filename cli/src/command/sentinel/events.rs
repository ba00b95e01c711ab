//! `sentinel events`: recorded calls, as a list or as they happen.

use clap::Args;
use domain::analytics::{EventsPage, StoredEvent};
use domain::{Decision, Outcome};
use futures::StreamExt as _;
use owo_colors::OwoColorize as _;

use super::filter::FilterArgs;
use crate::args::Output;
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on with events as they come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Most events to list, 1 to 1000; when following, how many of the past to begin with
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
    limit: u32,
}

pub(crate) async fn run(client: &Client, output: Output, args: &EventsArgs) -> Result<Done, Fault> {
    let page = newest(client, args).await?;
    if !args.follow {
        render::document(output, &page, |page| list(&page.events))?;
        return Ok(Done::Well);
    }
    if output == Output::Table {
        render::line(&header())?;
    }
    let after = page.events.iter().map(|event| (event.partition, event.offset)).max();
    for event in &page.events {
        render::item(output, event, row)?;
    }
    follow(client, output, args, after).await
}

/// The newest page, oldest first, as a log reads.
async fn newest(client: &Client, args: &EventsArgs) -> Result<EventsPage, Fault> {
    let mut query = args.filter.parameters();
    query.push(("limit", args.limit.max(1).to_string()));
    let mut page: EventsPage = client.get("/api/v1/events", &query).await?;
    page.events.truncate(args.limit as usize);
    page.events.reverse();
    Ok(page)
}

async fn follow(client: &Client, output: Output, args: &EventsArgs, after: Option<(u32, u64)>) -> Result<Done, Fault> {
    let mut query = args.filter.parameters();
    query.retain(|(name, _)| !matches!(*name, "since" | "until"));
    if let Some((partition, offset)) = after {
        query.push(("after", format!("{partition}:{offset}")));
    }
    let mut events = std::pin::pin!(client.follow("/api/v1/events/stream", &query).await?);
    while let Some(next) = events.next().await {
        let (_, data) = next?;
        let event: StoredEvent = serde_json::from_str(&data)
            .map_err(|error| Fault::new(Exit::Failed, "reading an event from the stream").caused_by(&error))?;
        render::item(output, &event, row)?;
    }
    render::note("the stream has ended: the API was stopped or restarted");
    Ok(Done::ButNotWell)
}

fn list(events: &[StoredEvent]) -> String {
    if events.is_empty() {
        return "No events match. Call a tool through the gateway, or widen --since and the filters.".to_owned();
    }
    let rows: Vec<String> = events.iter().map(row).collect();
    format!("{}\n{}", header(), rows.join("\n"))
}

fn header() -> String {
    format!(
        "{:<23}  {:<14}  {:<28}  {:<15}  {:>8}  {:<18}  {:<14}  {}",
        "TIME (UTC)", "SERVER", "CALL", "OUTCOME", "LATENCY", "AGENT", "HUMAN", "REASON"
    )
    .bold()
    .to_string()
}

fn row(stored: &StoredEvent) -> String {
    let payload = &stored.event.payload;
    let or_dash = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), text::safe);
    let outcome = format!("{:<15}", payload.outcome.map_or("-", Outcome::as_str));
    let outcome = match payload.outcome {
        Some(Outcome::Ok) => outcome.green().to_string(),
        Some(Outcome::Denied) => outcome.magenta().to_string(),
        Some(outcome_word) if outcome_word.is_error() => outcome.red().to_string(),
        _ => outcome.yellow().to_string(),
    };
    let reason = match payload.decision {
        Some(Decision::Deny) => or_dash(&payload.reason),
        _ => payload.error_type.as_deref().map(text::safe).unwrap_or_default(),
    };
    let line = format!(
        "{}  {:<14}  {:<28}  {outcome}  {:>8}  {:<18}  {:<14}  {reason}",
        text::moment(stored.event.timestamp),
        or_dash(&payload.server),
        call(stored),
        text::micros_or_dash(payload.latency_us),
        or_dash(&payload.agent_id),
        // An account's address says more than its id.
        or_dash(
            &payload
                .attributes
                .get("actor_email")
                .cloned()
                .or_else(|| payload.human_id.clone())
        ),
    );
    line.trim_end().to_owned()
}

/// What was called: the tool's name says more than the method, where there is one. Of a change: what was done to what.
fn call(stored: &StoredEvent) -> String {
    let payload = &stored.event.payload;
    if let Some(action) = payload.attributes.get("action").filter(|_| payload.rpc_method.is_none()) {
        let resource = payload.attributes.get("resource").map_or("", String::as_str);
        return text::safe(format!("{action} {resource}").trim_end());
    }
    let named = payload
        .tool_name
        .as_ref()
        .or(payload.prompt_name.as_ref())
        .or(payload.resource_uri.as_ref());
    let method = payload
        .rpc_method
        .as_deref()
        .or(payload.method.as_deref())
        .unwrap_or(&stored.event.event_type);
    match (named, method) {
        (Some(name), "tools/call") => text::safe(name),
        (Some(name), method) => text::safe(&format!("{method} {name}")),
        (None, method) => text::safe(method),
    }
}
