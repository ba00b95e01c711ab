//! Counts: totals, values, usage, series, tools.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use domain::Timestamp;
use domain::analytics::{CallCounts, Horizon, StoredEvent, ValueCount};
use sentinel_store::query::{Dimension, Filter, Metric, Order};
use sentinel_store::{EventQuery, SeriesQuery, ToolsQuery, UsageQuery, ValuesQuery};
use serde::Serialize;
use serde_json::{Map, Value};
use service_kit::Problem;

use super::Call;
use super::events::EventRow;
use crate::api::{Api, json};
use crate::params::{Params, invalid};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Window of usage when none is asked for, as the predecessor had it.
const USAGE_DAYS: u64 = 30;
/// Most steps of a series.
const STEPS_MAX: u64 = 2_000;
/// Steps that a chart wants at most, for choosing a step.
const STEPS_WANTED: u64 = 200;
/// Steps to choose from, in seconds.
const STEP_CHOICES: [u64; 9] = [1, 10, 60, 300, 900, 3_600, 21_600, 86_400, 604_800];
/// Kinds of events are few; more than these are left out of the total's computation only if a sender invents them.
const KINDS_MAX: u32 = 100_000;

#[derive(Debug, Serialize)]
struct Stats {
    events_total: u64,
    #[serde(flatten)]
    horizon: Horizon,
}

pub(super) async fn stats(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let horizon = api.horizon();
    let events_total = total(&api, call.filter()?).await?;
    Ok(json(Stats { events_total, horizon }))
}

async fn total(api: &Api, filter: Filter) -> Result<u64, Problem> {
    let values = values(api, filter, "event_type", KINDS_MAX).await?;
    Ok(values.iter().map(|value| value.count).sum())
}

async fn values(api: &Api, filter: Filter, column: &str, limit: u32) -> Result<Vec<ValueCount>, Problem> {
    let query = ValuesQuery {
        filter,
        column: column.to_owned(),
        limit,
    };
    api.ask(api.0.reader.values(query)).await
}

pub(super) async fn sources(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    counted(&api, &call, "sources", "source").await
}

pub(super) async fn event_types(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    counted(&api, &call, "event_types", "event_type").await
}

/// The values of a column under the predecessor's keys: a list of the column's name in plural, each row with the column's name.
async fn counted(api: &Api, call: &Call, list: &str, column: &str) -> Result<Response, Problem> {
    let horizon = api.horizon();
    let values = values(api, call.filter()?, column, call.params.count("limit")).await?;
    let rows = values.into_iter().map(|value| {
        let row = [
            (column.to_owned(), Value::from(value.value)),
            ("count".to_owned(), Value::from(value.count)),
        ];
        Value::Object(row.into_iter().collect())
    });
    let mut answer = object(horizon)?;
    answer.insert(list.to_owned(), rows.collect());
    Ok(json(answer))
}

pub(super) async fn usage(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let params = &call.params;
    let days = params.text("window_days").map(|_| params.number("window_days"));
    if days.is_some() && params.text("since").is_some() {
        return Err(
            invalid("`window_days` and `since` both say when the window begins".to_owned()).with_hint("give one of them"),
        );
    }
    let (since, until) = params.window(DAY * u32::try_from(days.unwrap_or(USAGE_DAYS)).unwrap_or(u32::MAX))?;
    let step = params
        .duration("step")
        .unwrap_or(if until.since(since) <= DAY * 2 { HOUR } else { DAY });
    check_steps(since, until, step)?;
    let filter = Filter {
        since: Some(since),
        until: Some(until),
        ..call.filter()?
    };
    let mut report = api
        .ask(api.0.reader.usage(UsageQuery {
            filter,
            limit: params.count("limit"),
            step,
        }))
        .await?;
    let recent: Vec<StoredEvent> = std::mem::take(&mut report.recent);
    let mut answer = object(report)?;
    let recent = recent
        .iter()
        .map(EventRow::of)
        .map(serde_json::to_value)
        .collect::<Result<Value, _>>();
    answer.insert("recent".to_owned(), recent.map_err(Problem::internal)?);
    let window_days = days.unwrap_or_else(|| until.since(since).as_secs().div_ceil(DAY.as_secs()));
    answer.insert("window_days".to_owned(), Value::from(window_days));
    answer.insert("since".to_owned(), Value::from(since.to_string()));
    answer.insert("until".to_owned(), Value::from(until.to_string()));
    answer.insert("filters".to_owned(), filters_echo(params));
    Ok(json(answer))
}

/// The filters as they were understood: the predecessor's five keys always, others when given.
fn filters_echo(params: &Params) -> Value {
    let list = |name: &str| -> Value { params.values(name).collect() };
    let mut echo = Map::new();
    echo.insert("namespaces".to_owned(), list("namespace"));
    echo.insert("team_ids".to_owned(), list("team_id"));
    for name in ["server", "decision", "tool_name"].into_iter().chain(params.filter_names()) {
        if matches!(name, "namespace" | "team_id") {
            continue;
        }
        let mut values = params.values(name);
        let (first, more) = (values.next().unwrap_or_default(), values.next().is_some());
        echo.insert(name.to_owned(), if more { list(name) } else { Value::from(first) });
    }
    Value::Object(echo)
}

pub(super) async fn series(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let params = &call.params;
    let (since, until) = params.window(DAY)?;
    let step = params.duration("step").unwrap_or_else(|| fitting_step(since, until));
    check_steps(since, until, step)?;
    let query = SeriesQuery {
        filter: Filter {
            since: Some(since),
            until: Some(until),
            ..call.filter()?
        },
        metric: metric(params.text("metric").unwrap_or_default()),
        by: dimension(params.text("by").unwrap_or_default()),
        step,
        top: params.count("top"),
    };
    Ok(json(api.ask(api.0.reader.series(query)).await?))
}

pub(super) async fn tools(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let (since, until) = call.params.window(DAY)?;
    let filter = Filter {
        since: Some(since),
        until: Some(until),
        ..call.filter()?
    };
    let query = ToolsQuery {
        filter,
        limit: call.params.count("limit"),
    };
    Ok(json(api.ask(api.0.reader.tools(query)).await?))
}

#[derive(Debug, Serialize)]
struct Summary {
    /// Over all time, or over the window when one is asked for.
    total_events: u64,
    active_servers: u64,
    /// Servers, grants that are switched on, and sessions that are neither over nor revoked, as far as the caller may see them; `null`
    /// where this service has no objects.
    published_servers: Option<usize>,
    active_grants: Option<usize>,
    open_sessions: Option<usize>,
    active_sessions: u64,
    active_humans: u64,
    active_agents: u64,
    latest_source: String,
    last_event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_time: Option<Timestamp>,
    since: Timestamp,
    until: Timestamp,
    calls: CallCounts,
    error_rate: f64,
    deny_rate: f64,
    #[serde(flatten)]
    horizon: Horizon,
}

pub(super) async fn summary(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let filter = call.filter()?;
    let (since, until) = call.params.window(DAY)?;
    let total_events = total(&api, filter.clone()).await?;
    let newest = EventQuery {
        filter: filter.clone(),
        order: Order::Newest(None),
        limit: 1,
    };
    let newest = api.ask(api.0.reader.events(newest)).await?.events.into_iter().next();
    let step = fitting_step(since, until);
    let usage = UsageQuery {
        filter: Filter {
            since: Some(since),
            until: Some(until),
            ..filter
        },
        limit: 0,
        step,
    };
    let report = api.ask(api.0.reader.usage(usage)).await?;
    let totals = report.totals;
    let objects = super::objects::counts(&api, &call).await?;
    let text = |of: fn(&StoredEvent) -> &str| newest.as_ref().map(of).unwrap_or_default().to_owned();
    Ok(json(Summary {
        total_events,
        active_servers: totals.unique_servers,
        published_servers: objects.as_ref().map(|counts| counts.servers),
        active_grants: objects.as_ref().map(|counts| counts.grants),
        open_sessions: objects.as_ref().map(|counts| counts.sessions),
        active_sessions: totals.unique_sessions,
        active_humans: totals.unique_humans,
        active_agents: totals.unique_agents,
        latest_source: text(|newest| &newest.event.source),
        last_event_type: text(|newest| &newest.event.event_type),
        last_event_time: newest.as_ref().map(|newest| newest.event.timestamp),
        since,
        until,
        error_rate: totals.calls.error_rate(),
        deny_rate: totals.calls.deny_rate(),
        calls: totals.calls,
        horizon: report.horizon,
    }))
}

fn object(body: impl Serialize) -> Result<Map<String, Value>, Problem> {
    match serde_json::to_value(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(Problem::internal(error)),
    }
}

fn metric(word: &str) -> Metric {
    match word {
        "errors" => Metric::Errors,
        "denied" => Metric::Denied,
        "latency_p50" => Metric::LatencyP50,
        "latency_p95" => Metric::LatencyP95,
        "latency_p99" => Metric::LatencyP99,
        "bytes" => Metric::Bytes,
        _ => Metric::Calls,
    }
}

fn dimension(word: &str) -> Dimension {
    match word {
        "server" => Dimension::Server,
        "tool" => Dimension::Tool,
        "agent" => Dimension::Agent,
        "human" => Dimension::Human,
        "namespace" => Dimension::Namespace,
        "outcome" => Dimension::Outcome,
        _ => Dimension::None,
    }
}

/// The shortest of the usual steps that a chart can show.
fn fitting_step(since: Timestamp, until: Timestamp) -> Duration {
    let seconds = until.since(since).as_secs();
    let fits = |step: &u64| seconds / step <= STEPS_WANTED;
    let longest = seconds.div_ceil(STEPS_WANTED).max(1);
    Duration::from_secs(STEP_CHOICES.into_iter().find(fits).unwrap_or(longest))
}

fn check_steps(since: Timestamp, until: Timestamp, step: Duration) -> Result<(), Problem> {
    let steps = until.since(since).as_secs() / step.as_secs().max(1);
    if steps <= STEPS_MAX {
        return Ok(());
    }
    let longer = until.since(since).as_secs().div_ceil(STEPS_MAX);
    Err(
        invalid(format!("the window has {steps} steps, at most {STEPS_MAX} are answered"))
            .with_hint(format!("ask about a shorter window, or with `step` of at least {longer}s")),
    )
}
