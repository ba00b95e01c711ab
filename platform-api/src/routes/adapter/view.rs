//! Sessions of adapters as answers.

use std::collections::BTreeMap;

use axum::response::{IntoResponse as _, Response};
use crds::McpServer;
use domain::policy::{Call as PolicyCall, Policy, Target};
use domain::{Decision, Timestamp};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use service_kit::Problem;

use super::{end_of, header_safe, text_at};
use crate::adapter::{Footing, renewable_until};
use crate::control::Control;
use crate::identity::secret::Secret;
use crate::objects::Object;
use crate::objects::manifests::Governed;
use crate::routes::grants::view::phase;
use crate::routes::servers::endpoint;

/// Methods that adapters may be asked to let pass without a session.
const METHODS: [&str; 9] = [
    "initialize",
    "notifications/initialized",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
];

/// A session as its holder sees it, under the predecessor's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session<'a> {
    name: &'a str,
    namespace: &'a str,
    server_name: &'a str,
    #[serde(rename = "humanID")]
    human_id: &'a str,
    #[serde(rename = "agentID")]
    agent_id: &'a str,
    #[serde(rename = "teamID", skip_serializing_if = "Option::is_none")]
    team_id: Option<&'a str>,
    consented_trust: &'a str,
    policy_version: &'a str,
    /// `Active`, `Revoked` or `Expired`.
    phase: &'static str,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl<'a> Session<'a> {
    fn of(object: &'a Object, now: Timestamp) -> Self {
        let text = |pointer| text_at(&object.spec, pointer).unwrap_or_default();
        let none = Map::new();
        Self {
            name: &object.name,
            namespace: &object.namespace,
            server_name: text("/serverRef/name"),
            human_id: text("/subject/humanID"),
            agent_id: text("/subject/agentID"),
            team_id: text_at(&object.spec, "/subject/teamID"),
            consented_trust: text("/consentedTrust"),
            policy_version: text("/policyVersion"),
            phase: phase(object.spec.as_object().unwrap_or(&none), now),
            issued_at: object.created_at,
            expires_at: end_of(object),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Sessions<'a> {
    sessions: Vec<Session<'a>>,
}

impl<'a> Sessions<'a> {
    pub(super) fn of(objects: &'a [Object], now: Timestamp) -> Self {
        Self {
            sessions: objects.iter().map(|object| Session::of(object, now)).collect(),
        }
    }
}

/// A session with everything an adapter needs to use it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usable<'a> {
    #[serde(flatten)]
    session: Session<'a>,
    /// Most trust that could have been consented to.
    max_trust: &'static str,
    /// After this a refresh does not help any more.
    renewable_until: Timestamp,
    /// Where the server is reached.
    endpoint: String,
    auth_mode: &'static str,
    /// What to send with each request; whatever a client sends under these names is to be removed first.
    headers: BTreeMap<String, &'a str>,
    /// Told once, when the session is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    anonymous_methods: Vec<&'static str>,
}

pub(super) fn answer(
    control: &Control,
    status: StatusCode,
    object: &Object,
    governed: &Governed,
    footing: &Footing,
    secret: Option<&Secret>,
) -> Result<Response, Problem> {
    let server = &governed.server;
    let session = Session::of(object, control.now());
    let auth = server.spec.auth.clone().unwrap_or_default();
    let mut headers = BTreeMap::new();
    for (name, value) in [
        (auth.human_id_header(), Some(session.human_id)),
        (auth.agent_id_header(), Some(session.agent_id)),
        (auth.team_id_header(), session.team_id),
        (auth.session_id_header(), secret.map(Secret::reveal)),
    ] {
        headers.extend(value.and_then(header_safe).map(|value| (name.to_owned(), value)));
    }
    let body = Usable {
        max_trust: footing.trust_max.as_str(),
        renewable_until: renewable_until(server, object.created_at),
        endpoint: endpoint(control, &server.spec, server.metadata.name.as_str()),
        auth_mode: auth.mode().as_str(),
        headers,
        credential: secret.map(Secret::reveal),
        anonymous_methods: anonymous_methods(server, control.now()),
        session,
    };
    let body: Value = serde_json::to_value(body).map_err(Problem::internal)?;
    // Nobody on the way may keep it.
    Ok((status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response())
}

/// A server for callers whom nobody knows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Anonymous {
    server_name: String,
    namespace: String,
    endpoint: String,
    methods: Vec<&'static str>,
}

impl Anonymous {
    pub(super) fn of(control: &Control, governed: &Governed) -> Self {
        let server = &governed.server;
        Self {
            endpoint: endpoint(control, &server.spec, server.metadata.name.as_str()),
            methods: anonymous_methods(server, control.now()),
            server_name: server.metadata.name.to_string(),
            namespace: server.metadata.namespace.to_string(),
        }
    }
}

/// Methods that the server's gateway lets pass for somebody who says nothing about themselves: what the policy itself answers.
fn anonymous_methods(server: &McpServer, now: Timestamp) -> Vec<&'static str> {
    let governed = Governed {
        server: server.clone(),
        grants: Vec::new(),
        sessions: Vec::new(),
        unread: Vec::new(),
    };
    let policy = Policy::compile(&governed.document("", now));
    let passes = |method: &&str| {
        let call = PolicyCall::of(Target::of(method, None, None));
        policy.decide(&call, now).decision == Decision::Allow
    };
    METHODS.into_iter().filter(passes).collect()
}
