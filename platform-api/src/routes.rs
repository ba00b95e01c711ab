//! The table of routes, and the guard before each of them.

mod events;
mod follow;
mod sql;
mod system;
mod usage;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use sentinel_store::query::Filter;
use service_kit::Problem;
use service_kit::problem::with_fallbacks;

use crate::access::{Caller, Credentials, Denied};
use crate::api::Api;
use crate::openapi::{Answer, Body};
use crate::params::{Kind, Param, Params};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anybody: nothing of the system is told.
    Nobody,
    /// Anybody with a name; answers are confined to what they may see.
    Caller,
    /// Administrators.
    Admin,
}

/// Whether a route takes every column of an event as a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filters {
    All,
    None,
}

/// One route: a path with one method.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET` (which includes `HEAD`), `POST` or `DELETE`.
    pub method: Verb,
    /// With parameters in braces.
    pub path: &'static str,
    pub need: Need,
    /// What it does, in one sentence without its full stop.
    pub summary: &'static str,
    /// Groups of parameters after `?`.
    pub params: &'static [&'static [Param]],
    pub filters: Filters,
    pub(crate) body: Body,
    pub(crate) answer: Answer,
    handler: fn() -> MethodRouter<Api>,
}

/// The methods that routes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

impl Route {
    /// A parameter after `?` that is no filter.
    pub(crate) fn param(&self, name: &str) -> Option<&'static Param> {
        self.params
            .iter()
            .flat_map(|group| group.iter())
            .find(|param| param.name == name)
    }
}

/// A request that passed the guard.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) params: Params,
}

impl Call {
    /// Which events the request is about, as far as the caller may see them.
    pub(crate) fn filter(&self) -> Result<Filter, Problem> {
        self.params.filter(&self.caller)
    }
}

const WINDOW: &[Param] = &[
    Param {
        name: "since",
        kind: Kind::Time,
        default: "",
        help: "First time asked about: RFC 3339, or a duration before now such as `15m`, `2h` or `7d`",
    },
    Param {
        name: "until",
        kind: Kind::Time,
        default: "",
        help: "First time no longer asked about, in the same forms",
    },
];
const EVENTS_PAGE: &[Param] = &[
    Param {
        name: "limit",
        kind: Kind::Number(1, 1_000),
        default: "100",
        help: "Most events of a page",
    },
    Param {
        name: "cursor",
        kind: Kind::Text,
        default: "",
        help: "`meta.next_cursor` of the page before",
    },
    Param {
        name: "order",
        kind: Kind::Word(&["newest", "arrival"]),
        default: "newest",
        help: "`newest`: by time, newest first; `arrival`: as they came in, oldest first",
    },
];
const VALUES: &[Param] = &[Param {
    name: "limit",
    kind: Kind::Number(1, 1_000),
    default: "100",
    help: "Most values",
}];
const USAGE: &[Param] = &[
    Param {
        name: "limit",
        kind: Kind::Number(1, 500),
        default: "10",
        help: "Most rows of each list",
    },
    Param {
        name: "window_days",
        kind: Kind::Number(1, 365),
        default: "",
        help: "Days up to now; instead of `since`. 30 when neither is given",
    },
    Param {
        name: "step",
        kind: Kind::Duration(1, 31_622_400),
        default: "",
        help: "Step of the series; an hour for windows up to two days, else a day",
    },
];
const SERIES: &[Param] = &[
    Param {
        name: "metric",
        kind: Kind::Word(&[
            "calls",
            "errors",
            "denied",
            "latency_p50",
            "latency_p95",
            "latency_p99",
            "bytes",
        ]),
        default: "calls",
        help: "What to show; latencies are microseconds",
    },
    Param {
        name: "by",
        kind: Kind::Word(&["none", "server", "tool", "agent", "human", "namespace", "outcome"]),
        default: "none",
        help: "What to split by",
    },
    Param {
        name: "step",
        kind: Kind::Duration(1, 31_622_400),
        default: "",
        help: "Length of a step; chosen from the window when not given",
    },
    Param {
        name: "top",
        kind: Kind::Number(1, 50),
        default: "8",
        help: "Keys shown on their own; the rest becomes `other`",
    },
];
const TOOLS: &[Param] = &[Param {
    name: "limit",
    kind: Kind::Number(1, 1_000),
    default: "50",
    help: "Most tools",
}];
const EXPORT: &[Param] = &[Param {
    name: "format",
    kind: Kind::Word(&["ndjson", "csv", "arrow", "parquet"]),
    default: "ndjson",
    help: "How events are written",
}];
const FOLLOW: &[Param] = &[Param {
    name: "after",
    kind: Kind::Text,
    default: "",
    help: "Id of the last event seen (`partition:offset`); `0:0` and the like begin there, without it the stream begins now. The header `Last-Event-ID` wins",
}];
const SERVER_EVENTS: &[Param] = &[Param {
    name: "limit",
    kind: Kind::Number(1, 100),
    default: "20",
    help: "Most events",
}];
const LOGS: &[Param] = &[
    Param {
        name: "since",
        kind: Kind::Time,
        default: "",
        help: "First time asked about: RFC 3339, or a duration before now such as `15m`",
    },
    Param {
        name: "tail",
        kind: Kind::Number(0, 100_000),
        default: "200",
        help: "Only the newest so many kept lines",
    },
    Param {
        name: "level",
        kind: Kind::Word(&["trace", "debug", "info", "warn", "error"]),
        default: "trace",
        help: "Only lines at least this grave",
    },
    Param {
        name: "grep",
        kind: Kind::Text,
        default: "",
        help: "Only lines that contain this text, in any case",
    },
    Param {
        name: "follow",
        kind: Kind::Flag,
        default: "false",
        help: "Go on with every later line: server-sent events when `Accept` asks for `text/event-stream`, else one JSON object a line",
    },
];
const DEAD_LETTERS: &[Param] = &[
    Param {
        name: "limit",
        kind: Kind::Number(1, 1_000),
        default: "100",
        help: "Most dead letters of a page",
    },
    Param {
        name: "after",
        kind: Kind::Number(0, i64::MAX as u64),
        default: "0",
        help: "Only ids above this one",
    },
];

macro_rules! routes {
    ($($method:ident $path:literal $need:ident $summary:literal [$($group:ident),*] $filters:ident, $body:ident => $answer:expr, $verb:ident $handler:path;)+) => {
        /// Every route of the API.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Verb::$method,
            path: $path,
            need: Need::$need,
            summary: $summary,
            params: &[$($group),*],
            filters: Filters::$filters,
            body: Body::$body,
            answer: $answer,
            handler: || $verb($handler),
        },)+];
    };
}

routes! {
    Get "/api/v1/events" Caller "A page of events" [WINDOW, EVENTS_PAGE] All, None => Answer::Json("EventsAnswer"), get events::list;
    Get "/api/v1/events/stream" Caller "Follow events as they arrive" [WINDOW, FOLLOW] All, None => Answer::Sse("EventRow"), get follow::events;
    Get "/api/v1/stats" Caller "How many events there are" [WINDOW] All, None => Answer::Json("Stats"), get usage::stats;
    Get "/api/v1/sources" Caller "Who sent events, and how many" [WINDOW, VALUES] All, None => Answer::Json("Sources"), get usage::sources;
    Get "/api/v1/event-types" Caller "Kinds of events, and how many" [WINDOW, VALUES] All, None => Answer::Json("EventTypes"), get usage::event_types;
    Get "/api/v1/analytics/usage" Caller "Totals, servers, actors, tools and series of a time" [WINDOW, USAGE] All, None => Answer::Json("Usage"), get usage::usage;
    Get "/api/v1/user/analytics/usage" Caller "The same, under the predecessor's other path" [WINDOW, USAGE] All, None => Answer::Json("Usage"), get usage::usage;
    Get "/api/v1/analytics/series" Caller "One metric over time, split by one dimension" [WINDOW, SERIES] All, None => Answer::Json("SeriesReport"), get usage::series;
    Get "/api/v1/analytics/tools" Caller "Every tool, compared with the window before" [WINDOW, TOOLS] All, None => Answer::Json("ToolsReport"), get usage::tools;
    Get "/api/v1/analytics/export" Caller "Every matching event, streamed in order of arrival" [WINDOW, EXPORT] All, None => Answer::Export, get events::export;
    Post "/api/v1/query" Caller "Answer a read-only SQL question over `events`, `calls_hourly` and `calls_daily`" [] None, Sql => Answer::JsonOrCsv("SqlAnswer"), post sql::query;
    Get "/api/v1/dashboard/summary" Caller "The figures of the first page" [WINDOW] All, None => Answer::Json("Summary"), get usage::summary;
    Get "/api/v1/runtime/server-events" Caller "The newest events of one server" [WINDOW, SERVER_EVENTS] All, None => Answer::Json("ServerEvents"), get events::of_server;
    Get "/api/v1/runtime/components" Admin "The parts of the system" [] None, None => Answer::Json("Components"), get system::components;
    Get "/api/v1/sentinel/status" Admin "How the whole system is" [] None, None => Answer::Json("SystemStatus"), get system::status;
    Get "/api/v1/sentinel/logs/{component}" Admin "The log of one component" [LOGS] None, None => Answer::Logs, get follow::logs;
    Get "/api/v1/sentinel/keys" Admin "The ingest keys, without their secrets" [] None, None => Answer::Json("KeyList"), get system::keys;
    Post "/api/v1/sentinel/keys" Admin "Make an ingest key; its secret is in this answer and never again" [] None, NewKey => Answer::Created("NewKey"), post system::create_key;
    Delete "/api/v1/sentinel/keys/{id}" Admin "Revoke an ingest key" [] None, None => Answer::Json("KeyView"), delete system::revoke_key;
    Post "/api/v1/sentinel/keys/{id}/rotate" Admin "Make a key with the same rights; the old one works a while longer" [] None, Rotation => Answer::Created("NewKey"), post system::rotate_key;
    Get "/api/v1/sentinel/dlq" Admin "Records that could not be stored, oldest first" [DEAD_LETTERS] None, None => Answer::Json("DeadLetters"), get system::dead_letters;
    Get "/api/v1/sentinel/dlq/{id}" Admin "One such record" [] None, None => Answer::Json("DeadLetter"), get system::dead_letter;
    Delete "/api/v1/sentinel/dlq/{id}" Admin "Discard one such record for good" [] None, None => Answer::Json("DeadLetterDone"), delete system::discard;
    Post "/api/v1/sentinel/dlq/{id}/replay" Admin "Send one such record through the pipeline again" [] None, None => Answer::Json("DeadLetterDone"), post system::replay;
    Get "/api/v1/openapi.json" Nobody "This document" [] None, None => Answer::Document, get system::openapi;
}

/// The API's router, with problem bodies for unknown paths and wrong methods.
pub fn router(api: Api) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guarded = (route.handler)().route_layer(from_fn_with_state((api.clone(), route), guard));
        router = router.route(route.path, guarded);
    }
    with_fallbacks(router).with_state(api)
}

/// Names the caller, checks that they may, and reads the parameters.
async fn guard(State((api, route)): State<(Api, &'static Route)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if route.need != Need::Nobody {
        match admit(&api, route, &parts).await {
            Ok(call) => drop(parts.extensions.insert(call)),
            Err(problem) => return problem.into_response(),
        }
    }
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Answers are of one moment and one caller.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn admit(api: &Api, route: &'static Route, request: &Parts) -> Result<Call, Problem> {
    let peer = request
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| *peer);
    let credentials = Credentials {
        headers: &request.headers,
        peer,
    };
    let caller = api.0.access.caller(credentials).await.map_err(|denied| {
        api.0.metrics.denied.inc();
        denial(denied)
    })?;
    if route.need == Need::Admin && !caller.admin {
        api.0.metrics.denied.inc();
        return Err(Problem::forbidden("this is for administrators").with_hint("use a key with `admin`"));
    }
    let params = Params::read(route, request.uri.query(), api.now())?;
    Ok(Call { caller, params })
}

fn denial(denied: Denied) -> Problem {
    match denied {
        Denied::Missing => Problem::unauthorized("no credential came with the request")
            .with_hint("send a key as `x-api-key` or `Authorization: Bearer`"),
        Denied::Unknown => {
            Problem::unauthorized("the credential is not known").with_hint("check that the key is whole and not revoked")
        }
        Denied::ForeignHost => {
            Problem::forbidden("this API answers only for this machine: the request was made for another host")
                .with_code("forbidden_host")
                .with_hint("use http://127.0.0.1 or http://localhost")
        }
        Denied::ForeignOrigin => Problem::forbidden("pages of another origin may not call this API")
            .with_code("forbidden_origin")
            .with_hint("add the origin to `--origins-allowed` if the page is yours"),
        Denied::Unavailable => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "credentials cannot be checked right now",
        )
        .with_retry_after(std::time::Duration::from_secs(5)),
    }
}
