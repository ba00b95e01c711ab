//! JSON-RPC messages, read just far enough to carry them: what kind each is, whose answer it is, and what its headers must say.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Requests of one batch that are answered when it fails; more are not read.
const BATCH_MAX: usize = 1_000;

/// One message, with its bytes as they came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) kind: Kind,
    /// Raw text of the id of a request or response.
    pub(crate) id: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) params: Params,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Notification,
    Response,
    /// Raw ids of the requests in it.
    Batch(Vec<String>),
}

/// What of the parameters matters on the way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    pub(crate) name: Option<String>,
    pub(crate) uri: Option<String>,
    pub(crate) task: Option<String>,
    /// Raw id of the request that a cancellation is about.
    pub(crate) request: Option<String>,
    /// Version in `_meta`: only requests of the newer era have one.
    pub(crate) version: Option<String>,
    /// Raw cursor of a list, and whether there is anything else that may change the answer.
    pub(crate) cursor: Option<String>,
    pub(crate) is_plain: bool,
    pub(crate) arguments: Option<Box<RawValue>>,
}

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAMessage {
    #[error("reading the line as JSON")]
    Json(#[source] serde_json::Error),
    #[error("the line is JSON, but no JSON-RPC message: it has neither a method nor a result or error")]
    Shape,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ParamsWire<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(rename = "taskId", default)]
    task: Option<String>,
    #[serde(borrow, rename = "requestId", default)]
    request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cursor: Option<&'a RawValue>,
    #[serde(rename = "_meta", default)]
    meta: Option<Meta>,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion", default)]
    version: Option<String>,
}

impl Message {
    /// Reads a message; its bytes stay as they are.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, NotAMessage> {
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Self::batch(bytes);
        }
        let envelope: Envelope<'_> = serde_json::from_slice(&bytes).map_err(NotAMessage::Json)?;
        let id = envelope.id.map(|id| id.get().to_owned());
        let kind = match (&envelope.method, &id, envelope.result.is_some() || envelope.error.is_some()) {
            (Some(_), Some(_), _) => Kind::Request,
            (Some(_), None, _) => Kind::Notification,
            (None, _, true) => Kind::Response,
            (None, _, false) => return Err(NotAMessage::Shape),
        };
        let method = envelope.method.map(Cow::into_owned);
        let params = envelope.params.map_or(Params::NONE, Params::read);
        Ok(Self {
            bytes,
            kind,
            id,
            method,
            params,
        })
    }

    fn batch(bytes: Bytes) -> Result<Self, NotAMessage> {
        let items: Vec<Envelope<'_>> = serde_json::from_slice(&bytes).map_err(NotAMessage::Json)?;
        let requests = items.iter().filter(|item| item.method.is_some());
        let ids = requests.filter_map(|item| Some(item.id?.get().to_owned()));
        let kind = Kind::Batch(ids.take(BATCH_MAX).collect());
        Ok(Self {
            bytes,
            kind,
            id: None,
            method: None,
            params: Params::NONE,
        })
    }

    pub(crate) fn is_method(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// Whether it speaks the era without sessions.
    pub(crate) fn is_modern(&self) -> bool {
        self.params.version.is_some()
    }

    /// Whether asking twice is the same as asking once.
    pub(crate) fn is_read(&self) -> bool {
        const READS: [&str; 9] = [
            "ping",
            "server/discover",
            "tools/list",
            "resources/list",
            "resources/templates/list",
            "resources/read",
            "prompts/list",
            "prompts/get",
            "completion/complete",
        ];
        self.kind == Kind::Request && self.method.as_deref().is_some_and(|method| READS.contains(&method))
    }

    /// What `Mcp-Name` says of it.
    pub(crate) fn header_name(&self) -> Option<&str> {
        match self.method.as_deref()? {
            "tools/call" | "prompts/get" => self.params.name.as_deref(),
            "resources/read" => self.params.uri.as_deref(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.params.task.as_deref(),
            _ => None,
        }
    }

    /// Whether it is the answer to one of these requests.
    pub(crate) fn answers(&self, wanted: &[String]) -> Option<&str> {
        let id = self.id.as_deref().filter(|_| self.kind == Kind::Response)?;
        wanted.iter().any(|wanted| wanted == id).then_some(id)
    }

    /// The ids that wait for an answer.
    pub(crate) fn waiting(&self) -> Vec<String> {
        match &self.kind {
            Kind::Batch(ids) => ids.clone(),
            Kind::Request => self.id.clone().into_iter().collect(),
            Kind::Notification | Kind::Response => Vec::new(),
        }
    }
}

impl Params {
    const NONE: Self = Self {
        name: None,
        uri: None,
        task: None,
        request: None,
        version: None,
        cursor: None,
        is_plain: true,
        arguments: None,
    };

    /// Parameters of an unexpected shape are the server's to refuse: nothing is read of them.
    fn read(raw: &RawValue) -> Self {
        let Ok(wire) = serde_json::from_str::<ParamsWire<'_>>(raw.get()) else {
            return Self {
                is_plain: false,
                ..Self::NONE
            };
        };
        let keys = serde_json::from_str::<std::collections::HashMap<Cow<'_, str>, &RawValue>>(raw.get()).unwrap_or_default();
        Self {
            is_plain: keys.keys().all(|key| key == "cursor" || key == "_meta"),
            name: wire.name,
            uri: wire.uri,
            task: wire.task,
            request: wire.request.map(|raw| raw.get().to_owned()),
            version: wire.meta.and_then(|meta| meta.version),
            cursor: wire.cursor.map(|raw| raw.get().to_owned()),
            arguments: wire.arguments,
        }
    }
}

#[cfg(test)]
mod tests;
