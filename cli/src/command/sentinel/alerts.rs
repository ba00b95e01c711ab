//! `sentinel alerts`: the alert rules and how each stands.

use clap::Args;
use domain::alerts::{AlertState, AlertStatus, AlertsReport};

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct AlertsArgs {
    /// Only those that fire
    #[arg(long)]
    firing: bool,
}

/// Exit code 1 when a rule fires.
pub(crate) async fn run(client: &Client, output: Output, args: &AlertsArgs) -> Result<Done, Fault> {
    let mut report: AlertsReport = client.get("/api/v1/sentinel/alerts", &[]).await?;
    if args.firing {
        report.alerts.retain(|alert| alert.state == AlertState::Firing);
    }
    render::document(output, &report, table)?;
    let firing = report.alerts.iter().any(|alert| alert.state == AlertState::Firing);
    Ok(if firing { Done::ButNotWell } else { Done::Well })
}

fn table(report: &AlertsReport) -> String {
    let mut text = if report.alerts.is_empty() {
        "No alert rule to show.".to_owned()
    } else {
        let header = ["STATE", "RULE", "METRIC", "VALUE", "BOUND", "WINDOW", "SINCE (UTC)", "TELLS"];
        render::table(&header, report.alerts.iter().map(row))
    };
    let notes = report.alerts.iter().flat_map(|alert| {
        let measured = alert
            .fault
            .as_ref()
            .map(|fault| format!("{} could not be judged: {fault}", alert.rule.name));
        let webhook = alert.webhook.as_ref().and_then(|webhook| webhook.fault.as_ref());
        let told = webhook.map(|fault| format!("the webhook of {} was not told: {fault}", alert.rule.name));
        measured.into_iter().chain(told)
    });
    for note in notes.chain(report.faults.iter().cloned()) {
        text.push_str("\n! ");
        text.push_str(&text::safe(&note));
    }
    let place = match &report.file {
        Some(file) => format!("rules: {file}"),
        None => "No file of rules is set: start with --alerts FILE.".to_owned(),
    };
    format!("{text}\n\n{place}")
}

fn row(alert: &AlertStatus) -> Vec<String> {
    let state = match alert.state {
        AlertState::Ok => "ok",
        AlertState::Firing => "FIRING",
        AlertState::NoData => "no data",
    };
    vec![
        state.to_owned(),
        text::safe(&alert.rule.name),
        alert.rule.metric.to_string(),
        alert.value.map_or_else(|| "-".to_owned(), number),
        alert.rule.bound.to_string(),
        if alert.rule.metric.of_pipeline() {
            "now".to_owned()
        } else {
            text::span(alert.rule.window_seconds)
        },
        alert.since.map_or_else(|| "-".to_owned(), text::moment),
        alert
            .webhook
            .as_ref()
            .map_or_else(|| "-".to_owned(), |webhook| text::safe(&webhook.host)),
    ]
}

/// Up to three digits after the point, and none that say nothing.
fn number(value: f64) -> String {
    format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}
