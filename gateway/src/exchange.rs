//! One request and its answer, and everything known about them. Whatever happens to it, an exchange ends as exactly one event:
//! the event is made when the exchange is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use domain::policy::Trust;
use domain::policy::verdict::Verdict;
use domain::{Decision, Era, Payload, ResponseKind, Timestamp};
use http::{HeaderMap, HeaderName, Method, StatusCode, header, request};
use service_kit::trace::{TRACEPARENT, TraceContext};

use crate::classify::{Asked, Ending, Seen, classify};
use crate::gateway::Shared;
use crate::identify::{Caller, identify};
use crate::inspect::{InspectFault, Inspected, Message, MessageKind};
use crate::list::{ListFilter, Shape};
use crate::policy::Policy;
use crate::rate::Place;
use crate::record::{Draft, Importance};
use crate::refusal::{Fault, Refusal, rpc_error};
use crate::route::{Recording, Site};
use crate::scan::{Found, JsonScan, SseScan, same_id};
use crate::sessions::{SessionFacts, SessionKey};
use crate::standing::Standing;
use crate::text::{bounded, header_text};
use crate::tools::Tap;

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The first revision whose requests stand alone. Revisions are dates, so text order is time order.
const MODERN: &str = "2026-07-28";
/// What a request without any word about its revision speaks.
const UNSAID: &str = "2025-03-26";

/// Reads the answer while it passes.
#[derive(Debug)]
enum Scan {
    Unread,
    Json(JsonScan),
    Sse(SseScan),
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) shared: Arc<Shared>,
    pub(crate) site: Arc<Site>,
    pub(crate) trace: TraceContext,
    /// The policy in force when the request came.
    pub(crate) policy: Arc<Policy>,
    pub(crate) caller: Caller,
    /// The caller's place among the requests in flight.
    pub(crate) place: Option<Place>,
    parent: Option<domain::SpanId>,
    payload: Box<Payload>,
    event_type: &'static str,
    timestamp: Timestamp,
    started: Duration,
    forwarded: Option<Duration>,
    asked: Asked,
    /// The id of the request as it came: a slice of its body.
    request_id: Option<Bytes>,
    session: Option<SessionKey>,
    initializing: bool,
    scan: Scan,
    answer: Option<Found>,
    unread: bool,
    /// The server answers on another stream, as legacy ones do.
    elsewhere: bool,
    ending: Ending,
}

impl Exchange {
    /// What is known from the head of the request alone.
    pub(crate) fn begin(shared: Arc<Shared>, site: Arc<Site>, head: &request::Parts) -> Self {
        let mut payload = Box::<Payload>::default();
        let route = &site.route;
        payload.method = Some(bounded(head.method.as_str(), 32));
        payload.path = Some(bounded(head.uri.path(), domain::event::columns::LONG_TEXT_BYTES_MAX));
        let session = head
            .headers
            .get(SESSION)
            .map(|id| SessionKey::new(&route.namespace, &route.server, id.as_bytes()));
        payload.session_id = session.map(SessionKey::text);
        let (trace, parent) = trace_of(head.headers.get(TRACEPARENT).map(http::HeaderValue::as_bytes));
        let asked = match head.method {
            Method::GET => Asked::Stream,
            Method::DELETE | Method::OPTIONS => Asked::Control,
            _ => Asked::Unknown,
        };
        let event_type = match head.method {
            Method::GET => "mcp.stream",
            Method::DELETE => "mcp.session",
            _ => "",
        };
        shared.metrics.began(&site);
        Self {
            timestamp: Timestamp::from_nanos(shared.clock.unix_ns()),
            started: shared.clock.monotonic(),
            policy: site.route.policy.current(),
            caller: Caller::default(),
            place: None,
            shared,
            site,
            trace,
            parent,
            payload,
            event_type,
            forwarded: None,
            asked,
            request_id: None,
            session,
            initializing: false,
            scan: Scan::Unread,
            answer: None,
            unread: false,
            elsewhere: false,
            ending: Ending::ClientGone,
        }
    }

    /// Who calls, by the way of the policy.
    pub(crate) fn identify(&mut self, headers: &HeaderMap) -> Result<(), Box<Refusal>> {
        self.caller = identify(&self.policy, headers)?;
        self.payload.identity = Some(self.caller.identity());
        Ok(())
    }

    /// What the request asks for, from its whole body.
    pub(crate) fn inspect(
        &mut self,
        headers: &HeaderMap,
        body: &Bytes,
        inspected: &Result<Option<Inspected<'_>>, InspectFault>,
    ) {
        self.payload.bytes_in = Some(body.len() as u64);
        let version = headers.get(PROTOCOL_VERSION).and_then(header_text);
        match inspected {
            Ok(None) => self.revision(version, None),
            Ok(Some(Inspected::One(message))) => self.note(message, body, version),
            Ok(Some(Inspected::Batch(messages))) => {
                if let Some(first) = messages.first() {
                    self.note(first, body, version);
                }
                self.request_id = None;
                self.payload.request_id = None;
                self.payload.attributes.insert("batch".to_owned(), messages.len().to_string());
            }
            Err(fault) => {
                self.revision(version, None);
                self.payload.attributes.insert("message".to_owned(), fault.code().to_owned());
            }
        }
    }

    fn note(&mut self, message: &Message<'_>, body: &Bytes, version: Option<String>) {
        let params = &message.params;
        let said = params.meta.protocol_version.as_deref();
        self.revision(version, said);
        self.asked = match message.kind() {
            MessageKind::Request => Asked::Answer,
            MessageKind::Notification | MessageKind::Response => Asked::Nothing,
        };
        if let (Some(id), MessageKind::Request) = (message.id, message.kind()) {
            self.request_id = Some(body.slice_ref(id.get().as_bytes()));
            self.payload.request_id = Some(text(id.get()));
        }
        if let Some(traceparent) = &params.meta.traceparent
            && TraceContext::parse(traceparent.as_bytes()).is_some()
        {
            (self.trace, self.parent) = trace_of(Some(traceparent.as_bytes()));
        }
        let client = if params.client.name.is_some() {
            &params.client
        } else {
            &params.meta.client
        };
        self.payload.client_name = client.name.as_deref().map(text);
        self.payload.client_version = client.version.as_deref().map(text);
        let Some(method) = message.method.as_deref() else { return };
        self.payload.rpc_method = Some(text(method));
        self.note_target(method, message);
        if self.payload.era == Some(Era::Legacy) && self.payload.client_name.is_none() {
            self.recall();
        }
    }

    fn note_target(&mut self, method: &str, message: &Message<'_>) {
        let params = &message.params;
        match method {
            "tools/call" => {
                self.payload.tool_name = params.name.as_deref().map(text);
                let definition = params.name.as_deref().and_then(|name| self.site.state.definitions.of(name));
                self.payload.tool_schema_hash = definition.map(|hash| hash.to_string());
            }
            "prompts/get" => self.payload.prompt_name = params.name.as_deref().map(text),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" | "resources/directory/read" => {
                self.payload.resource_uri = params.uri.as_deref().map(long_text);
            }
            "completion/complete" => {
                self.payload.prompt_name = params.reference.name.as_deref().map(text);
                self.payload.resource_uri = params.reference.uri.as_deref().map(long_text);
            }
            "initialize" => {
                self.event_type = "mcp.session";
                self.initializing = true;
                self.payload.era = Some(Era::Legacy);
                self.payload.protocol_version = params.protocol_version.as_deref().map(|version| bounded(version, 64));
            }
            "server/discover" => self.payload.era = Some(Era::Modern),
            "subscriptions/listen" => self.event_type = "mcp.stream",
            "notifications/cancelled" => {
                if let (Some(session), Some(id)) = (self.session, params.request_id) {
                    self.shared.sessions.cancel(session, id.get().as_bytes(), self.started);
                }
            }
            _ => {}
        }
    }

    /// Which revision and era the request speaks.
    fn revision(&mut self, header: Option<String>, body: Option<&str>) {
        let modern = body.is_some() || header.as_deref().is_some_and(|version| version >= MODERN);
        self.payload.era = Some(if modern { Era::Modern } else { Era::Legacy });
        let version = header.or_else(|| body.map(str::to_owned));
        self.payload.protocol_version = version.map(|version| bounded(&version, 64));
    }

    /// What the session's first request told.
    fn recall(&mut self) {
        let facts = self
            .session
            .and_then(|session| self.shared.sessions.facts(session, self.started));
        if let Some(facts) = facts {
            self.payload.client_name.clone_from(&facts.client_name);
            self.payload.client_version.clone_from(&facts.client_version);
            if self.payload.protocol_version.is_none() {
                self.payload.protocol_version.clone_from(&facts.protocol_version);
            }
        }
        if self.payload.protocol_version.is_none() && !self.initializing {
            self.payload.protocol_version = Some(UNSAID.to_owned());
        }
    }

    pub(crate) fn era(&self) -> Option<Era> {
        self.payload.era
    }

    pub(crate) fn rpc_method(&self) -> Option<&str> {
        self.payload.rpc_method.as_deref()
    }

    /// Hash of the called tool's definition as last listed.
    pub(crate) fn definition(&self) -> Option<&str> {
        self.payload.tool_schema_hash.as_deref()
    }

    pub(crate) fn notes_decision(&mut self, decision: Decision, reason: &str) {
        self.payload.decision = Some(decision);
        self.payload.reason = Some(reason.to_owned());
    }

    /// What would have been decided, had the policy been enforced.
    pub(crate) fn notes_shadow(&mut self, decision: Decision, reason: &str) {
        self.notes_decision(decision, reason);
        self.payload.attributes.insert("policy_mode".to_owned(), "observe".to_owned());
    }

    /// What the policy said, with whatever it rests on.
    pub(crate) fn notes_verdict(&mut self, verdict: &Verdict) {
        match verdict.shadow {
            Some(shadow) => self.notes_shadow(shadow.decision, shadow.reason.as_str()),
            None => self.notes_decision(verdict.decision, verdict.reason.as_str()),
        }
        let payload = &mut self.payload;
        let owned = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        payload.policy_version = owned(&verdict.policy_version);
        payload.policy_revision = owned(&verdict.policy_revision);
        if let Some(grant) = &verdict.matched_grant {
            payload.matched_grant = owned(&grant.name);
            payload.matched_grant_namespace = owned(&grant.namespace);
        }
        if let Some(session) = &verdict.matched_session {
            payload.matched_session = owned(&session.name);
            payload.matched_session_namespace = owned(&session.namespace);
        }
        let word = |trust: Option<Trust>| trust.map(|trust| trust.as_str().to_owned());
        payload.required_trust = word(verdict.required_trust);
        payload.admin_trust = word(verdict.admin_trust);
        payload.consented_trust = word(verdict.consented_trust);
        payload.effective_trust = word(verdict.effective_trust);
        payload.required_side_effect = verdict.required_side_effect.map(|effect| effect.as_str().to_owned());
        payload.risk_level = verdict.risk_level.map(|risk| risk.as_str().to_owned());
        payload.identity = Some(verdict.caller.identity);
        if verdict.caller.session.is_some() {
            // Who the session was made for is who calls; the claims agree with it or are refused.
            let who = verdict.caller.who(&self.caller.claims());
            let [human, agent, team] = [who.human, who.agent, who.team].map(owned);
            (self.caller.human, self.caller.agent, self.caller.team) = (human, agent, team);
            self.caller.is_verified = true;
        }
    }

    /// Name of the session that the policy knows the caller by.
    pub(crate) fn session_name(&self) -> Option<&str> {
        self.payload.matched_session.as_deref()
    }

    /// What an open stream needs to be judged again; `None` where nothing is judged.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.policy.judges().then(|| Standing {
            cell: self.site.route.policy.clone(),
            clock: self.shared.clock.clone(),
            caller: self.caller.clone(),
            method: self.payload.rpc_method.clone().unwrap_or_default(),
            name: self.payload.tool_name.clone().or_else(|| self.payload.prompt_name.clone()),
            uri: self.payload.resource_uri.clone(),
        })
    }

    /// Whether lists in the answer must be shortened to what the caller may use.
    pub(crate) fn needs_filter(&self) -> bool {
        let may_list = self.asked == Asked::Stream || self.rpc_method().is_some_and(|method| method.ends_with("/list"));
        may_list && self.policy.filters_lists()
    }

    /// What shortens the lists of the answer.
    pub(crate) fn list_filter(&self) -> Option<ListFilter> {
        let shape = match self.scan {
            Scan::Json(_) => Shape::Json,
            Scan::Sse(_) => Shape::Sse,
            // Without a body there is nothing to read.
            Scan::Unread if self.payload.response_kind == Some(ResponseKind::Empty) => return None,
            Scan::Unread => Shape::Other,
        };
        let now = Timestamp::from_nanos(self.shared.clock.unix_ns());
        let has_cache = self.payload.era == Some(Era::Modern);
        self.needs_filter()
            .then(|| ListFilter::new(shape, Arc::clone(&self.policy), self.caller.clone(), now, has_cache))
    }

    /// What reads which tools the server lists.
    pub(crate) fn tap(&self) -> Option<Tap> {
        let is_read = !matches!(self.scan, Scan::Unread) && self.rpc_method() == Some("tools/list");
        is_read.then(|| Tap::new(self.is_sse()))
    }

    /// The server has listed these. A tool that is not what it was is an event of its own.
    pub(crate) fn sees_tools(&self, tap: Tap) {
        for change in self.site.state.definitions.take_in(&tap.tools()) {
            let route = &self.site.route;
            tracing::warn!(
                server = route.server,
                namespace = route.namespace,
                tool = change.tool,
                before = &*change.before,
                now = &*change.now,
                "the definition of a tool changed"
            );
            if route.recording == Recording::Off {
                continue;
            }
            let attributes = [("change", "tool_changed"), ("previous_schema_hash", &change.before)];
            let payload = Payload {
                tool_name: Some(text(&change.tool)),
                tool_schema_hash: Some(change.now.to_string()),
                attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                ..Payload::default()
            };
            self.shared.recorder.record(Draft {
                importance: Importance::Kept,
                timestamp: Timestamp::from_nanos(self.shared.clock.unix_ns()),
                site: Arc::clone(&self.site),
                event_type: "mcp.list",
                trace_id: domain::TraceId::from_bytes(*self.trace.trace_id.as_bytes()),
                span_id: domain::SpanId::from_bytes(*self.trace.span_id.as_bytes()),
                parent_span_id: self.parent,
                payload: Box::new(payload),
            });
        }
    }

    /// Stands in for a list that could not be read.
    pub(crate) fn instead_of_list(&mut self) -> Option<Bytes> {
        self.ending = Ending::Broken("list_unreadable");
        let fault = Fault {
            code: 502,
            message: "the server's list cannot be read, so it cannot be shortened to what you may use",
            reason: "list_unreadable",
            hint: None,
        };
        let error = rpc_error(self.request_id.as_ref()?, &fault, self.trace);
        let words = match self.scan {
            Scan::Json(_) => error,
            Scan::Sse(_) => [&b"event: message\ndata: "[..], &error, b"\n\n"].concat(),
            Scan::Unread => return None,
        };
        *self.payload.bytes_out.get_or_insert(0) += words.len() as u64;
        Some(words.into())
    }

    pub(crate) fn is_sse(&self) -> bool {
        matches!(self.scan, Scan::Sse(_))
    }

    /// The request goes to the server now.
    pub(crate) fn forwards(&mut self) {
        self.forwarded = Some(self.shared.clock.monotonic());
    }

    /// The head of the server's answer is here.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap, empty: bool) {
        self.headed(status);
        self.site.is_back();
        self.elsewhere = status == StatusCode::ACCEPTED
            && self.asked == Asked::Answer
            && self.payload.path.as_deref().is_some_and(|path| self.site.is_announced(path));
        let kind = if empty { ResponseKind::Empty } else { kind_of(headers) };
        self.payload.response_kind = Some(kind);
        self.unread = headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity");
        self.scan = match kind {
            _ if self.unread => Scan::Unread,
            ResponseKind::Json => Scan::Json(JsonScan::default()),
            ResponseKind::Sse => Scan::Sse(SseScan::default()),
            ResponseKind::Other | ResponseKind::Empty => Scan::Unread,
        };
        if self.unread {
            self.payload.attributes.insert("answer".to_owned(), "unread".to_owned());
        }
        if let (true, Some(id)) = (self.initializing, headers.get(SESSION)) {
            let route = &self.site.route;
            let session = SessionKey::new(&route.namespace, &route.server, id.as_bytes());
            self.session = Some(session);
            self.payload.session_id = Some(session.text());
        }
    }

    /// We answer ourselves.
    pub(crate) fn answers(&mut self, status: StatusCode, ending: Ending) {
        self.headed(status);
        self.payload.response_kind = Some(ResponseKind::Json);
        self.ending = ending;
    }

    fn headed(&mut self, status: StatusCode) {
        self.payload.status = Some(status.as_u16());
        self.payload.ttfb_us = Some(micros(self.shared.clock.monotonic().saturating_sub(self.started)));
    }

    /// A piece of the answer passes.
    pub(crate) fn passes(&mut self, bytes: &[u8]) {
        *self.payload.bytes_out.get_or_insert(0) += bytes.len() as u64;
        match &mut self.scan {
            Scan::Unread => {}
            Scan::Json(scan) => scan.feed(bytes),
            Scan::Sse(scan) => {
                let (answer, request_id, payload) = (&mut self.answer, self.request_id.as_deref(), &mut self.payload);
                scan.feed(bytes, |message| {
                    let Some(message) = message else { return };
                    if message.method.as_deref() == Some("notifications/progress") {
                        *payload.progress_count.get_or_insert(0) += 1;
                    }
                    if message.is_answer() && answers(&message, request_id) {
                        *answer = Some(message);
                    }
                });
            }
        }
    }

    /// The answer is over. A second call changes nothing.
    pub(crate) fn ends(&mut self, ending: Ending) {
        if self.ending == Ending::ClientGone {
            self.ending = ending;
        }
    }

    /// What must be appended so that the client does not wait for an answer that cannot come any more.
    pub(crate) fn last_words(&mut self, ending: Ending) -> Option<Bytes> {
        self.ends(ending);
        let Scan::Sse(scan) = &self.scan else { return None };
        let id = self.request_id.as_ref()?;
        // A server that ends the stream after giving out ids expects the client to ask for the rest.
        let resumable = ending == Ending::Complete && scan.ids_seen();
        if self.answer.is_some() || resumable {
            return None;
        }
        if ending == Ending::Complete {
            self.ending = Ending::Broken("stream_without_answer");
        }
        let before: &[u8] = if scan.at_boundary() { b"" } else { b"\n\n" };
        let fault = match self.ending {
            Ending::Refused(reason) => Fault {
                code: 403,
                message: "the policy of this server does not allow this any more",
                reason,
                hint: None,
            },
            _ => Fault {
                code: 502,
                message: "the server's answer broke off before it was complete",
                reason: "upstream_broken",
                hint: None,
            },
        };
        let error = rpc_error(id, &fault, self.trace);
        let words = [before, b"event: message\ndata: ", &error, b"\n\n"].concat();
        *self.payload.bytes_out.get_or_insert(0) += words.len() as u64;
        Some(words.into())
    }

    /// Whether the answer may be a stream of the transport before revision 2025-03-26, which had no sessions in headers.
    pub(crate) fn may_name_endpoint(&self) -> bool {
        self.asked == Asked::Stream && self.session.is_none() && matches!(self.scan, Scan::Sse(_))
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.event_type == "mcp.stream"
    }

    pub(crate) fn request_id(&self) -> Option<&Bytes> {
        self.request_id.as_ref()
    }

    fn finish(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.limiter.leave(place);
        }
        let caller = &mut self.caller;
        self.payload.human_id = caller.human.take();
        self.payload.agent_id = caller.agent.take();
        self.payload.subject_team_id = caller.team.take();
        let now = self.shared.clock.monotonic();
        self.payload.latency_us = Some(micros(now.saturating_sub(self.started)));
        self.payload.upstream_us = self.forwarded.map(|forwarded| micros(now.saturating_sub(forwarded)));
        self.payload.bytes_out.get_or_insert(0);
        let mut resumable = self.elsewhere;
        match &mut self.scan {
            Scan::Unread => {}
            Scan::Json(scan) => {
                let found = scan.finish().filter(|found| found.has_result || found.has_error);
                self.answer = found.filter(|found| self.asked != Asked::Answer || found.is_answer());
            }
            Scan::Sse(scan) => {
                self.payload.sse_events = Some(scan.events());
                self.payload.progress_count.get_or_insert(0);
                resumable = scan.ids_seen();
            }
        }
        if let Some(answer) = &self.answer {
            self.payload.rpc_code = answer.code;
            if self.initializing && answer.has_result {
                if let Some(version) = &answer.protocol_version {
                    self.payload.protocol_version = Some(bounded(version, 64));
                }
                self.remember();
            }
        }
        self.conclude(resumable, now);
    }

    fn conclude(&mut self, resumable: bool, now: Duration) {
        let cancelled = match (self.session, &self.request_id) {
            (Some(session), Some(id)) => self.shared.sessions.is_cancelled(session, id, now),
            _ => false,
        };
        let (outcome, error_type) = classify(&Seen {
            asked: self.asked,
            method: self.payload.rpc_method.as_deref(),
            era: self.payload.era,
            ending: self.ending,
            status: self.payload.status.unwrap_or_default(),
            kind: self.payload.response_kind,
            answer: self.answer.as_ref(),
            unread: self.unread,
            resumable,
            cancelled,
        });
        if resumable && self.asked == Asked::Answer && self.answer.is_none() {
            self.payload.attributes.insert("answer".to_owned(), "elsewhere".to_owned());
        }
        if let Ending::Refused(reason) = self.ending {
            self.payload.decision = Some(Decision::Deny);
            self.payload.reason = Some(reason.to_owned());
        }
        self.payload.outcome = Some(outcome);
        self.payload.error_type = error_type;
    }

    fn remember(&self) {
        let Some(session) = self.session else { return };
        let facts = SessionFacts {
            client_name: self.payload.client_name.clone(),
            client_version: self.payload.client_version.clone(),
            protocol_version: self.payload.protocol_version.clone(),
        };
        self.shared.sessions.opened(session, facts, self.started);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish();
        self.shared.metrics.ended(&self.site, &self.payload);
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.site.route.recording == Recording::Off {
            return;
        }
        let denied = self.payload.outcome == Some(domain::Outcome::Denied);
        let importance = if denied || self.event_type == "mcp.session" {
            Importance::Kept
        } else {
            Importance::Ordinary
        };
        self.shared.recorder.record(Draft {
            importance,
            timestamp: self.timestamp,
            site: Arc::clone(&self.site),
            event_type: self.event_type,
            trace_id: domain::TraceId::from_bytes(*self.trace.trace_id.as_bytes()),
            span_id: domain::SpanId::from_bytes(*self.trace.span_id.as_bytes()),
            parent_span_id: self.parent,
            payload: std::mem::take(&mut self.payload),
        });
    }
}

/// Our own place in the trace, and the caller's.
fn trace_of(sent: Option<&[u8]>) -> (TraceContext, Option<domain::SpanId>) {
    let sent = sent.and_then(TraceContext::parse);
    let parent = sent.and_then(|sent| domain::SpanId::from_bytes(*sent.span_id.as_bytes()));
    (sent.map_or_else(TraceContext::fresh, TraceContext::child), parent)
}

/// Whether a message answers the request; servers that could not read the id answer with `null`.
fn answers(message: &Found, request_id: Option<&[u8]>) -> bool {
    match (&message.id, request_id) {
        (_, None) => false,
        (Some(id), Some(wanted)) => same_id(id, wanted) || (message.has_error && id == b"null"),
        (None, Some(wanted)) => message.has_error || wanted.len() > 1_024,
    }
}

fn kind_of(headers: &HeaderMap) -> ResponseKind {
    let media = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if media.eq_ignore_ascii_case(b"text/event-stream") {
        ResponseKind::Sse
    } else if media.eq_ignore_ascii_case(b"application/json") || media.to_ascii_lowercase().ends_with(b"+json") {
        ResponseKind::Json
    } else {
        ResponseKind::Other
    }
}

fn text(text: &str) -> String {
    bounded(text, domain::event::columns::TEXT_BYTES_MAX)
}

fn long_text(text: &str) -> String {
    bounded(text, domain::event::columns::LONG_TEXT_BYTES_MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
