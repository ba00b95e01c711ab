//! `sentinel status`: the whole system on one screen.

use std::time::Duration;

use clap::Args;
use domain::operations::{ComponentState, PipelineStatus, QueueReport, SystemStatus};
use owo_colors::OwoColorize as _;

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

const WATCH_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Look again every two seconds, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

pub(crate) async fn run(client: &Client, output: Output, args: &StatusArgs) -> Result<Done, Fault> {
    loop {
        let status: SystemStatus = client.get("/api/v1/sentinel/status", &[]).await?;
        if !args.watch {
            render::document(output, &status, screen)?;
            let ready = status
                .components
                .iter()
                .all(|component| component.state != ComponentState::NotReady);
            return Ok(if ready { Done::Well } else { Done::ButNotWell });
        }
        if output == Output::Table {
            render::next_picture();
        }
        render::item(output, &status, screen)?;
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

fn screen(status: &SystemStatus) -> String {
    let mut parts = vec![
        format!(
            "mcp-runtime {} ({})   {}",
            status.version,
            status.size,
            text::moment(status.as_of)
        ),
        components(status),
        flow(&status.pipeline),
    ];
    if let Some(queue) = &status.queue {
        parts.push(brokers(queue));
    }
    if let Some(storage) = &status.storage {
        let kept = storage.retention_seconds.map_or_else(|| "for ever".to_owned(), text::span);
        let oldest = storage.oldest.map_or_else(|| "-".to_owned(), text::moment);
        parts.push(format!(
            "{} {} events in {} ({} files), {} not yet in a file; oldest {oldest}, kept {kept}",
            "Storage ".bold(),
            storage.events,
            text::bytes(storage.bytes),
            storage.files,
            storage.events_in_memory,
        ));
    }
    if !status.servers.is_empty() {
        parts.push(servers(status));
    }
    for key in &status.keys_expiring {
        let end = key.expires_at.map_or_else(String::new, text::moment);
        parts.push(format!(
            "{} key {} of {} ends {end}; rotate it: mcp-runtime sentinel keys rotate {}",
            "Note".yellow(),
            key.id,
            key.namespace,
            key.id
        ));
    }
    parts.join("\n\n")
}

fn components(status: &SystemStatus) -> String {
    let row = |component: &domain::operations::ComponentStatus| {
        let state = match component.state {
            ComponentState::Ready => "Ready",
            ComponentState::Degraded => "Degraded",
            ComponentState::NotReady => "NotReady",
        };
        vec![
            text::safe(&component.display),
            state.to_owned(),
            component.address.clone().unwrap_or_default(),
            text::safe(&component.detail),
        ]
    };
    let table = render::table(
        &["COMPONENT", "STATE", "ADDRESS", "DETAIL"],
        status.components.iter().map(row),
    );
    // Coloured after the table is laid out, since colour codes would count as width.
    table
        .replace(" NotReady ", &format!(" {} ", "NotReady".red()))
        .replace(" Ready ", &format!(" {} ", "Ready".green()))
        .replace(" Degraded ", &format!(" {} ", "Degraded".yellow()))
}

fn flow(pipeline: &PipelineStatus) -> String {
    let freshness = match (pipeline.freshness_p50_ms, pipeline.freshness_p99_ms) {
        (Some(p50), Some(p99)) => format!("visible after {p50:.0} ms (p50), {p99:.0} ms (p99)"),
        _ => "nothing received yet".to_owned(),
    };
    let inserts = match (pipeline.insert_p50_ms, pipeline.insert_p99_ms) {
        (Some(p50), Some(p99)) => format!("; inserts take {p50:.0} ms (p50), {p99:.0} ms (p99)"),
        _ => String::new(),
    };
    format!(
        "{} {:.1} events/s; {} accepted, {} rejected, {} stored, {} repeated, {} missing, {} dropped, {} set aside\n         lag {} events ({:.1} s); {freshness}{inserts}\n         last hour: {} errors, {} denied",
        "Events  ".bold(),
        pipeline.events_per_second,
        pipeline.accepted,
        pipeline.rejected,
        pipeline.stored,
        pipeline.duplicates,
        pipeline.missing,
        pipeline.dropped,
        pipeline.dead_letters,
        pipeline.lag_events,
        pipeline.lag_seconds,
        text::percent(pipeline.error_rate),
        text::percent(pipeline.deny_rate),
    )
}

fn brokers(queue: &QueueReport) -> String {
    let brokers: Vec<String> = queue
        .brokers
        .iter()
        .map(|broker| format!("{} at {}", broker.id, text::safe(&broker.address)))
        .collect();
    let rows = queue.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            partition
                .leader
                .map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            format!("{} of {}", partition.in_sync, partition.replicas),
            partition.first.to_string(),
            partition.end.to_string(),
            partition
                .committed
                .map_or_else(|| "-".to_owned(), |record| record.to_string()),
            partition.records_waiting().to_string(),
        ]
    });
    let table = render::table(
        &["PARTITION", "LEADER", "IN SYNC", "FIRST", "END", "STORED TO", "WAITING"],
        rows,
    );
    format!(
        "{} {}, read by {}; {}; brokers: {}\n{table}",
        "Queue   ".bold(),
        text::safe(&queue.topic),
        text::safe(&queue.group),
        waiting(queue.records_waiting()),
        brokers.join(", ")
    )
}

fn waiting(records: u64) -> String {
    match records {
        0 => "nothing waits".to_owned(),
        1 => "one record waits".to_owned(),
        more => format!("{more} records wait"),
    }
}

fn servers(status: &SystemStatus) -> String {
    let rows = status.servers.iter().map(|server| {
        vec![
            text::safe(&server.namespace),
            text::safe(&server.name),
            server.mode.clone(),
            server.url.clone(),
            text::safe(&server.upstream),
        ]
    });
    render::table(&["NAMESPACE", "SERVER", "MODE", "URL FOR CLIENTS", "UPSTREAM"], rows)
}
