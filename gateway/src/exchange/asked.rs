//! What a request asks for, noted from its whole body.

use bytes::Bytes;
use domain::Era;
use http::HeaderMap;
use service_kit::trace::TraceContext;

use super::{Exchange, PROTOCOL_VERSION, text, trace_of};
use crate::classify::Asked;
use crate::inspect::{InspectFault, Inspected, Message, MessageKind};
use crate::text::{bounded, header_text};

/// The first revision whose requests stand alone. Revisions are dates, so text order is time order.
const MODERN: &str = "2026-07-28";
/// What a request without any word about its revision speaks.
const UNSAID: &str = "2025-03-26";

impl Exchange {
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
}

fn long_text(text: &str) -> String {
    bounded(text, domain::event::columns::LONG_TEXT_BYTES_MAX)
}
