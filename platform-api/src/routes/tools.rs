//! The catalogue of tools, over every server that the caller may see.

use std::collections::HashMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use domain::Timestamp;
use domain::inventory::{EVENT_TYPE, Inventory};
use sentinel_store::query::{EventQuery, Filter, Order};
use serde::Serialize;
use serde_json::{Value, json};
use service_kit::Problem;

use super::Call;
use super::objects::all;
use super::servers::{endpoint, spec_of};
use crate::access::Standing;
use crate::api::{Api, json as answer};
use crate::catalogue::{Entry, Seen, entries};
use crate::control::Control;
use crate::objects::{Object, ObjectKind};

/// How long ago a listing may have been seen.
const SEEN_WITHIN: Duration = Duration::from_hours(24 * 30);
/// Listings looked at; gateways tell of each list once an hour at most.
const LISTINGS_MAX: u32 = 1_000;

/// A tool under the predecessor's names, and some more.
#[derive(Serialize)]
struct ToolRow {
    tool_name: String,
    description: String,
    server_name: String,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_id: Option<String>,
    endpoint_url: String,
    declared: bool,
    /// Whether the server has it; absent while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    drift_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_trust: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    side_effect: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_level: Option<&'static str>,
    /// What the server itself says that the tool does, to be judged by whoever declares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested_side_effect: Option<&'static str>,
    labels: Value,
    /// When the server's list was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<Timestamp>,
    connect_config: Value,
}

#[derive(Serialize)]
struct ToolList {
    tools: Vec<ToolRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, Extension(call): Extension<Call>) -> Result<Response, Problem> {
    let control = api.control()?;
    let mut servers = all(control, &call, ObjectKind::Server).await?;
    let is = |name: &str, value: &str| call.params.text(name).is_none_or(|wanted| wanted == value);
    servers.retain(|server| is("namespace", &server.namespace) && is("server", &server.name));
    if let Some(namespace) = call.params.text("namespace")
        && call.caller.standing(namespace) == Standing::Stranger
    {
        return Err(Problem::forbidden(format!("the namespace `{namespace}` is not one of yours"))
            .with_code("forbidden_namespace")
            .with_hint("leave `namespace` out to see everything that you may see"));
    }
    let seen = seen(&api, &call, &servers).await?;
    let mut rows: Vec<ToolRow> = Vec::new();
    let nothing = Seen::default();
    for server in &servers {
        let of_server = seen.get(&(server.namespace.clone(), server.name.clone())).unwrap_or(&nothing);
        let spec = spec_of(server);
        for entry in entries(&spec.tools, of_server) {
            rows.push(row(control, server, entry, of_server.at()));
        }
    }
    rows.retain(|row| matches(&call, row));
    let after = call.params.text("after").unwrap_or_default().to_owned();
    let place = |row: &ToolRow| format!("{}/{}/{}", row.namespace, row.server_name, row.tool_name);
    rows.sort_by_cached_key(place);
    rows.retain(|row| place(row) > after);
    let limit = call.params.count("limit") as usize;
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| is_more).map(place);
    Ok(answer(ToolList {
        next: last.map(|last| call.params.link("/api/v1/runtime/tools", "after", &last)),
        tools: rows,
    }))
}

/// What the servers were last seen to list, by namespace and name.
async fn seen(api: &Api, call: &Call, servers: &[Object]) -> Result<HashMap<(String, String), Seen>, Problem> {
    let mut namespaces: Vec<String> = servers.iter().map(|server| server.namespace.clone()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let mut seen: HashMap<(String, String), Seen> = HashMap::new();
    if namespaces.is_empty() {
        return Ok(seen);
    }
    let mut equals = vec![
        ("event_type".to_owned(), vec![EVENT_TYPE.to_owned()]),
        ("namespace".to_owned(), namespaces),
    ];
    equals.extend(
        call.params
            .text("server")
            .map(|server| ("server".to_owned(), vec![server.to_owned()])),
    );
    // Whoever may see a server may know what it lists, also of a catalogue whose calls are not theirs to see.
    let filter = Filter {
        since: Some(api.now().minus(SEEN_WITHIN)),
        equals,
        ..Filter::all(sentinel_store::query::Scope::All)
    };
    let query = EventQuery {
        filter,
        order: Order::Newest(None),
        limit: LISTINGS_MAX,
    };
    for stored in api.ask(api.0.reader.events(query)).await?.events {
        let event = stored.event;
        if let Some(listing) = Inventory::of_attributes(&event.payload.attributes) {
            let place = (event.namespace().to_owned(), event.server().to_owned());
            seen.entry(place).or_default().add(event.timestamp, listing);
        }
    }
    Ok(seen)
}

fn row(control: &Control, server: &Object, entry: Entry, seen_at: Option<Timestamp>) -> ToolRow {
    let spec = spec_of(server);
    let url = endpoint(control, &spec, &server.name);
    let declared = entry.declared.as_ref();
    ToolRow {
        description: declared.and_then(|tool| tool.description.clone()).unwrap_or_default(),
        server_name: server.name.clone(),
        namespace: server.namespace.clone(),
        team_id: spec.team_id,
        connect_config: json!({"mcpServers": {server.name.as_str(): {"type": "http", "url": url}}}),
        endpoint_url: url,
        declared: declared.is_some(),
        live: entry.live,
        drift_status: entry.drift.as_str(),
        required_trust: declared.map(|tool| tool.required_trust().as_str()),
        side_effect: declared.map(|tool| tool.side_effect.as_str()),
        risk_level: entry.risk.map(domain::policy::Risk::as_str),
        suggested_side_effect: entry.hint.map(domain::policy::SideEffect::as_str),
        labels: declared.map_or_else(|| json!({}), |tool| json!(tool.labels)),
        seen_at,
        tool_name: entry.name,
    }
}

fn matches(call: &Call, row: &ToolRow) -> bool {
    let is = |name: &str, value: Option<&str>| call.params.text(name).is_none_or(|wanted| Some(wanted) == value);
    let query = call.params.text("q").or_else(|| call.params.text("query"));
    let contains = |wanted: &str| {
        let wanted = wanted.to_lowercase();
        let labels = row.labels.to_string();
        [&row.tool_name, &row.description, &row.server_name, &row.namespace, &labels]
            .iter()
            .any(|text| text.to_lowercase().contains(&wanted))
    };
    is("team", row.team_id.as_deref())
        && is("trust", row.required_trust)
        && is("side_effect", row.side_effect)
        && is("risk", row.risk_level)
        && is("drift", Some(row.drift_status))
        && query.is_none_or(contains)
}
