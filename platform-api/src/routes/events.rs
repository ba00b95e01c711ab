//! Single events: pages, the newest of one server, and exports.

use std::time::Duration;

use async_stream::stream;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::Decision;
use domain::analytics::{EventsPage, Horizon, PageMeta, StoredEvent};
use futures::StreamExt as _;
use http::header;
use sentinel_store::EventQuery;
use sentinel_store::query::{ExportFormat, ExportQuery, Order};
use serde::Serialize;
use service_kit::Problem;
use tokio::time::{Instant, timeout_at};

use super::Call;
use crate::api::{Api, json, query_problem};
use crate::cursor::Cursor;

const PATH: &str = "/api/v1/events";

/// An event with the columns that the predecessor's clients look for beside `payload`.
#[derive(Debug, Serialize)]
pub(super) struct EventRow<'a> {
    #[serde(flatten)]
    stored: &'a StoredEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    human_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

impl<'a> EventRow<'a> {
    pub(super) fn of(stored: &'a StoredEvent) -> Self {
        let payload = &*stored.event.payload;
        Self {
            stored,
            server: payload.server.as_deref(),
            namespace: payload.namespace.as_deref(),
            team_id: payload.team_id.as_deref(),
            cluster: payload.cluster.as_deref(),
            human_id: payload.human_id.as_deref(),
            agent_id: payload.agent_id.as_deref(),
            session_id: payload.session_id.as_deref(),
            decision: payload.decision,
            tool_name: payload.tool_name.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct EventsAnswer<'a> {
    events: Vec<EventRow<'a>>,
    meta: PageMeta,
    /// Path and parameters of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(flatten)]
    horizon: Horizon,
}

pub(super) async fn list(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let question = call.params.question();
    let mut filter = call.filter()?;
    let first = match call.params.text("order") {
        Some("arrival") => Order::Arrival(None),
        _ => Order::Newest(None),
    };
    let mut at = Cursor {
        order: first,
        since: filter.since,
        until: filter.until,
    };
    if let Some(text) = call.params.text("cursor") {
        at = Cursor::read(text, &question)?;
        (filter.since, filter.until) = (at.since, at.until);
    }
    let query = EventQuery {
        filter,
        order: at.order,
        limit: call.params.count("limit"),
    };
    let page = api.ask(api.0.reader.events(query)).await?;
    let next_cursor = next_cursor(&page, at, &question);
    let answer = EventsAnswer {
        events: page.events.iter().map(EventRow::of).collect(),
        next: next_cursor.as_deref().map(|cursor| call.params.link(PATH, "cursor", cursor)),
        meta: PageMeta {
            limit: call.params.count("limit"),
            has_more: next_cursor.is_some(),
            next_cursor,
        },
        horizon: page.horizon,
    };
    Ok(json(answer))
}

/// Only the last event of a page says where the next one begins, whatever arrives meanwhile.
fn next_cursor(page: &EventsPage, at: Cursor, question: &str) -> Option<String> {
    let last = page.events.last().filter(|_| page.meta.has_more)?;
    let place = domain::Position {
        partition: last.partition,
        offset: last.offset,
    };
    let order = match at.order {
        Order::Newest(_) => Order::Newest(Some((last.event.timestamp, place))),
        Order::Arrival(_) => Order::Arrival(Some(place)),
    };
    Cursor { order, ..at }.write(question)
}

#[derive(Debug, Serialize)]
struct ServerEvents<'a> {
    events: Vec<EventRow<'a>>,
    #[serde(flatten)]
    horizon: Horizon,
}

pub(super) async fn of_server(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    for name in ["namespace", "server"] {
        call.params.required(name)?;
    }
    let query = EventQuery {
        filter: call.filter()?,
        order: Order::Newest(None),
        limit: call.params.count("limit"),
    };
    let page = api.ask(api.0.reader.events(query)).await?;
    Ok(json(ServerEvents {
        events: page.events.iter().map(EventRow::of).collect(),
        horizon: page.horizon,
    }))
}

/// An export that could not be finished; it breaks the transfer, so that half a file never looks like a whole one.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the export took longer than {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("exporting events")]
    Store(#[source] sentinel_store::QueryError),
}

pub(super) async fn export(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let (format, content_type, ending) = match call.params.text("format") {
        Some("csv") => (ExportFormat::Csv, "text/csv; charset=utf-8", "csv"),
        Some("arrow") => (ExportFormat::Arrow, "application/vnd.apache.arrow.stream", "arrow"),
        Some("parquet") => (ExportFormat::Parquet, "application/vnd.apache.parquet", "parquet"),
        _ => (ExportFormat::Ndjson, "application/x-ndjson", "ndjson"),
    };
    let query = ExportQuery {
        filter: call.filter()?,
        format,
    };
    let turn = api.export_turn().await?;
    let time_max = api.0.config.export_time_max;
    let deadline = Instant::now() + time_max;
    let horizon = api.horizon();
    let started = timeout_at(deadline, api.0.reader.export(query)).await;
    let late = |_| Problem::gateway_timeout("the export could not begin in time").with_code("query_timeout");
    let mut pieces = started.map_err(late)?.map_err(query_problem)?;
    let body = stream! {
        // Held until the last byte has left or the client is gone.
        let _turn = turn;
        loop {
            let piece: Result<Bytes, ExportError> = match timeout_at(deadline, pieces.next()).await {
                Ok(None) => break,
                Ok(Some(piece)) => piece.map_err(ExportError::Store),
                Err(_late) => Err(ExportError::TooLong(time_max)),
            };
            let failed = piece.is_err();
            if let Err(error) = &piece {
                tracing::warn!(error = %service_kit::error::Chain(error), "export broken off");
            }
            yield piece;
            if failed {
                break;
            }
        }
    };
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"events.{ending}\""),
        ),
        (header::HeaderName::from_static("x-as-of"), horizon.as_of.to_string()),
        (
            header::HeaderName::from_static("x-complete-through"),
            horizon.complete_through.to_string(),
        ),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}
