//! The answer, read while it passes: the server's, or ours.

use std::sync::Arc;

use bytes::Bytes;
use domain::{Era, Payload, ResponseKind, Timestamp};
use http::{HeaderMap, StatusCode, header};

use super::{Exchange, SESSION, Scan, micros, text};
use crate::classify::{Asked, Ending};
use crate::list::{ListFilter, Shape};
use crate::record::{Draft, Importance};
use crate::refusal::{Fault, rpc_error};
use crate::route::Recording;
use crate::scan::{Found, JsonScan, SseScan, same_id};
use crate::sessions::SessionKey;
use crate::tools::Tap;

impl Exchange {
    /// Whether lists in the answer must be shortened to what the caller may use.
    pub(crate) fn needs_filter(&self) -> bool {
        let may_list = self.asked == Asked::Stream || self.rpc_method().is_some_and(|method| method.ends_with("/list"));
        // A server that refuses in plain text lists nothing, and its client is told so as it said it.
        let is_refusal = self.payload.response_kind == Some(ResponseKind::Other)
            && !self.unread
            && self.payload.status.is_some_and(|status| status >= 400);
        may_list && !is_refusal && self.policy.filters_lists()
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

    /// The server has listed these. A tool that is not what it was is an event of its own, and so is the listing, now and then.
    pub(crate) fn sees_tools(&self, tap: Tap) {
        let listing = tap.listing();
        let definitions = &self.site.state.definitions;
        for change in definitions.take_in(&listing.tools) {
            let route = &self.site.route;
            tracing::warn!(
                server = route.server,
                namespace = route.namespace,
                tool = change.tool,
                before = &*change.before,
                now = &*change.now,
                "the definition of a tool changed"
            );
            let attributes = [("change", "tool_changed"), ("previous_schema_hash", &change.before)];
            self.tells_of_list(Payload {
                tool_name: Some(text(&change.tool)),
                tool_schema_hash: Some(change.now.to_string()),
                attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                ..Payload::default()
            });
        }
        let now = Timestamp::from_nanos(self.shared.clock.unix_ns());
        if let Some(inventory) = definitions.inventory(&listing, now) {
            self.tells_of_list(Payload {
                attributes: inventory.to_attributes(),
                ..Payload::default()
            });
        }
    }

    fn tells_of_list(&self, payload: Payload) {
        if self.site.route.recording == Recording::Off {
            return;
        }
        self.shared.recorder.record(Draft {
            importance: Importance::Kept,
            timestamp: Timestamp::from_nanos(self.shared.clock.unix_ns()),
            site: Arc::clone(&self.site),
            event_type: domain::inventory::EVENT_TYPE,
            trace_id: domain::TraceId::from_bytes(*self.trace.trace_id.as_bytes()),
            span_id: domain::SpanId::from_bytes(*self.trace.span_id.as_bytes()),
            parent_span_id: self.parent,
            payload: Box::new(payload),
        });
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
