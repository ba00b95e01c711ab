//! One request and its answer, and everything known about them. Whatever happens to it, an exchange ends as exactly one event:
//! the event is made when the exchange is dropped.

mod answered;
mod asked;
mod judged;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use domain::policy::AuthMode;
use domain::{Decision, Era, Payload, Timestamp};
use http::{HeaderName, HeaderValue, Method, header, request};
use service_kit::trace::{TRACEPARENT, TraceContext};

use crate::classify::{Asked, Ending, Seen, classify};
use crate::gateway::Shared;
use crate::identify::{Caller, Peer, challenge, identify, metadata_url};
use crate::policy::Policy;
use crate::rate::Place;
use crate::record::{Draft, Importance};
use crate::refusal::Refusal;
use crate::route::{Recording, Site};
use crate::scan::{Found, JsonScan, SseScan};
use crate::sessions::{SessionFacts, SessionKey};
use crate::text::bounded;
use crate::traces::Ended;

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

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
    /// Where callers without a good token learn how to get one; only where tokens are asked for.
    metadata_url: Option<Box<str>>,
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
        let (trace, parent) = trace_of(head.headers.get(TRACEPARENT).map(HeaderValue::as_bytes));
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
            metadata_url: None,
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
    pub(crate) async fn identify(&mut self, head: &request::Parts, peer: &Peer) -> Result<(), Box<Refusal>> {
        if self.policy.auth_mode() == AuthMode::OAuth {
            let (rules, host) = (&self.shared.limits.identity, head.headers.get(header::HOST));
            self.metadata_url = Some(metadata_url(rules, host, &self.site, head.uri.path()).into());
        }
        match identify(self, head, peer).await {
            Ok(caller) => self.caller = caller,
            Err(refusal) if self.policy.enforces() => return Err(refusal),
            // Observed callers are nobody then, and the record says why.
            Err(refusal) => {
                let reason = refusal.problem.code.to_owned();
                self.payload.attributes.insert("identity_refused".to_owned(), reason);
            }
        }
        self.payload.identity = Some(self.caller.identity());
        Ok(())
    }

    /// What a caller who is not known must do, as `WWW-Authenticate` says it.
    pub(crate) fn challenge(&self, error: Option<&str>) -> HeaderValue {
        match &self.metadata_url {
            Some(url) => challenge(url, &self.policy.auth().required_scopes, error),
            None => self.policy.challenge(&self.site.route.server),
        }
    }

    /// What a caller must do whose token lacks scopes.
    pub(crate) fn scope_challenge(&self, missing: &[String]) -> Option<HeaderValue> {
        let url = self.metadata_url.as_deref()?;
        Some(challenge(url, missing, Some("insufficient_scope")))
    }

    pub(crate) fn era(&self) -> Option<Era> {
        self.payload.era
    }

    pub(crate) fn rpc_method(&self) -> Option<&str> {
        self.payload.rpc_method.as_deref()
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
        if let Some(traces) = self.shared.traces.get() {
            let route = &self.site.route;
            traces.take(&Ended {
                trace: self.trace,
                parent: self.parent,
                began: self.timestamp,
                server: &route.server,
                namespace: &route.namespace,
                payload: &self.payload,
            });
        }
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

fn text(text: &str) -> String {
    bounded(text, domain::event::columns::TEXT_BYTES_MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
