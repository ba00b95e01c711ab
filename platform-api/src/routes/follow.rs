//! Streams that last: events as they arrive, and logs as they are written.
//!
//! A stream of events reads the store in order of arrival, from the place after the last event it passed, whenever the store's
//! horizon moves. It passes every event, not only matching ones, so that its place always moves on and no event is read twice;
//! the filter is applied here ([`sieve`]). Every event's id is the place of its follower in every partition, written
//! `partition:offset`, with commas between several.

mod place;
mod sieve;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::operations::LogLine;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt as _};
use http::{HeaderMap, header};
use service_kit::problem::PathParams;
use service_kit::{LogFilter, Problem, Shutdown};

use self::place::{Follower, Place};
use super::Call;
use super::events::EventRow;
use crate::api::{Api, StreamPlace, json, operation_problem};
use crate::operations::LogRun;
use crate::params::invalid;

/// Silence after which a comment is sent, so that both ends notice when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(2);

pub(super) async fn events(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = call.filter()?;
    let place = match last_event_id(&headers, &call)? {
        Some(place) => place,
        None => api.ask(place::end(&*api.0.reader)).await?,
    };
    let held = api.stream_place()?;
    // Whatever is inserted from here on wakes the follower, and whatever was before is read first.
    let follower = Follower::new(Arc::clone(&api.0.reader), place, filter);
    let events = event_stream(follower, api.0.shutdown.clone(), held);
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(HEARTBEAT).text("alive"))
        .into_response())
}

fn last_event_id(headers: &HeaderMap, call: &Call) -> Result<Option<Place>, Problem> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = header.filter(|text| !text.is_empty()).or_else(|| call.params.text("after")) else {
        return Ok(None);
    };
    let broken = || {
        invalid("the id of the last event is not `partition:offset`".to_owned())
            .with_hint("take the `id` of the last event as it is, or leave it out to begin now")
    };
    Place::parse(text).map(Some).ok_or_else(broken)
}

fn event_stream(
    mut follower: Follower,
    shutdown: Shutdown,
    held: StreamPlace,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream! {
        let _held = held;
        // Something to read at once tells the client that it is connected.
        yield Ok(Event::default().retry(RECONNECT).comment("following"));
        loop {
            let Some(next) = shutdown.or(follower.next()).await else { break };
            match next {
                Ok(Some((id, stored))) => match Event::default().id(id).json_data(EventRow::of(&stored)) {
                    Ok(event) => yield Ok(event),
                    Err(error) => tracing::error!(error = %error, "an event could not be written as JSON"),
                },
                Ok(None) => break,
                Err(error) => {
                    // The client connects again and goes on from its last event, so nothing is lost by ending here.
                    tracing::warn!(error = %service_kit::error::Chain(&error), "stream of events broken off");
                    break;
                }
            }
        }
    }
}

pub(super) async fn logs(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    PathParams(component): PathParams<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = &call.params;
    let filter = LogFilter {
        component: None,
        since_unix_ns: params.time("since").map(domain::Timestamp::nanos),
        tail: usize::try_from(params.number("tail")).ok(),
        level_min: params.text("level").and_then(|level| level.parse().ok()).unwrap_or_default(),
        grep: params.text("grep").map(str::to_owned),
        field: params.text("server").map(|server| ("server".to_owned(), server.to_owned())),
    };
    let run = if params.flag("previous") {
        LogRun::Previous
    } else {
        LogRun::This
    };
    if run == LogRun::Previous && params.flag("follow") {
        return Err(Problem::bad_request("the run before is over and writes no further lines")
            .with_hint("leave out one of `follow` and `previous`"));
    }
    if !params.flag("follow") {
        let lines = api.operate(api.0.operations.log_lines(&component, run, filter)).await?;
        return Ok(json(lines));
    }
    let held = api.stream_place()?;
    let lines = api
        .0
        .operations
        .follow_log_lines(&component, filter)
        .map_err(operation_problem)?;
    let shutdown = api.0.shutdown.clone();
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accepts.contains("text/event-stream") {
        let events = line_stream(lines, shutdown, held)
            .filter_map(async |line| Event::default().json_data(line).ok().map(Ok::<_, Infallible>));
        return Ok(Sse::new(events)
            .keep_alive(KeepAlive::new().interval(HEARTBEAT).text("alive"))
            .into_response());
    }
    let texts = line_stream(lines, shutdown, held).map(|line| {
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(text))
    });
    Ok((
        [
            (header::CONTENT_TYPE, "application/x-ndjson"),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        Body::from_stream(texts),
    )
        .into_response())
}

fn line_stream(mut lines: BoxStream<'static, LogLine>, shutdown: Shutdown, held: StreamPlace) -> impl Stream<Item = LogLine> {
    stream! {
        let _held = held;
        while let Some(Some(line)) = shutdown.or(lines.next()).await {
            yield line;
        }
    }
}
