//! What a request's body asks for, read once and borrowed from it. The body itself is forwarded as it came.
//!
//! Reading is strict where two parsers could disagree: a control key that comes twice, or in another case (which some parsers take for
//! the same), makes the message ambiguous. What decides nothing is not kept, but has to be such that every parser reads it.

mod plain;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use plain::{Plain, Raw, is_alike};

/// Most messages of a batch: each costs a decision.
const BATCH_MAX: usize = 100;

/// What kind of message a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// Has a method and an id: wants an answer.
    Request,
    /// Has a method and no id.
    Notification,
    /// The client's answer to a question of the server.
    Response,
}

/// One JSON-RPC message, as far as it matters here.
#[derive(Debug, Default)]
pub(crate) struct Message<'a> {
    pub(crate) version: Option<Cow<'a, str>>,
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) method: Option<Cow<'a, str>>,
    pub(crate) is_response: bool,
    pub(crate) params: Params<'a>,
}

impl Message<'_> {
    pub(crate) fn kind(&self) -> MessageKind {
        match (&self.method, self.id) {
            (Some(_), Some(_)) => MessageKind::Request,
            (Some(_), None) => MessageKind::Notification,
            (None, _) => MessageKind::Response,
        }
    }
}

/// What a body holds.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack while a request is judged, and nearly always is one message"
)]
pub(crate) enum Inspected<'a> {
    One(Message<'a>),
    /// An array of messages, at least one, which only revision 2025-03-26 knows.
    Batch(Vec<Message<'a>>),
}

/// Why a body is no JSON-RPC message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InspectFault {
    #[error("the body is not JSON")]
    NotJson,
    #[error("the body is JSON but no clear JSON-RPC message: {0}")]
    Unclear(String),
}

impl InspectFault {
    /// The reason code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::Unclear(_) => "unclear_message",
        }
    }
}

/// Reads a body.
pub(crate) fn inspect(body: &[u8]) -> Result<Inspected<'_>, InspectFault> {
    // What is skipped unread is not looked at by the reader below, and some parsers replace what is no UTF-8 where others refuse.
    let text = std::str::from_utf8(body).map_err(|_| InspectFault::NotJson)?;
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let read = if first == Some(&b'[') {
        serde_json::from_str(text).map(|Batch(messages)| Inspected::Batch(messages))
    } else {
        serde_json::from_str::<Message<'_>>(text).map(Inspected::One)
    };
    let inspected = read.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => InspectFault::Unclear(fault_text(&error)),
        _ => InspectFault::NotJson,
    })?;
    match &inspected {
        Inspected::One(message) => check(message)?,
        Inspected::Batch(messages) => messages.iter().try_for_each(check)?,
    }
    Ok(inspected)
}

/// Without the position, which `serde_json` appends.
fn fault_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn check(message: &Message<'_>) -> Result<(), InspectFault> {
    let unclear = |why: &str| Err(InspectFault::Unclear(why.to_owned()));
    if message.version.as_deref() != Some("2.0") {
        return unclear("`jsonrpc` is not \"2.0\"");
    }
    if message.method.is_some() == message.is_response {
        return unclear("a message has either `method` or one of `result` and `error`");
    }
    let id_is_plain = message.id.is_none_or(|id| {
        let first = id.get().as_bytes().first().copied().unwrap_or(b'n');
        first == b'"' || first == b'-' || first.is_ascii_digit() || message.is_response
    });
    if id_is_plain {
        Ok(())
    } else {
        unclear("`id` is neither text nor number")
    }
}

/// The parameters that matter to any method.
#[derive(Debug, Default)]
pub(crate) struct Params<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) uri: Option<Cow<'a, str>>,
    pub(crate) protocol_version: Option<Cow<'a, str>>,
    pub(crate) client: Client<'a>,
    pub(crate) request_id: Option<&'a RawValue>,
    pub(crate) arguments: Option<&'a RawValue>,
    /// `notifications.resourceSubscriptions` of `subscriptions/listen`.
    pub(crate) subscriptions: Vec<Cow<'a, str>>,
    pub(crate) reference: Reference<'a>,
    pub(crate) meta: Meta<'a>,
}

/// What `completion/complete` is about.
#[derive(Debug, Default)]
pub(crate) struct Reference<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) uri: Option<Cow<'a, str>>,
}

#[derive(Debug, Default)]
pub(crate) struct Client<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) version: Option<Cow<'a, str>>,
}

/// What `subscriptions/listen` wants to be told of.
#[derive(Debug, Default)]
struct Wanted<'a> {
    resources: Texts<'a>,
}

impl<'a> From<Object<Wanted<'a>>> for Vec<Cow<'a, str>> {
    fn from(object: Object<Wanted<'a>>) -> Self {
        object.0.unwrap_or_default().resources.0
    }
}

/// A list of texts; what is none is left out.
#[derive(Debug, Default)]
struct Texts<'a>(Vec<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Texts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<Text<'de>>::deserialize(deserializer)?;
        Ok(Self(texts.into_iter().filter_map(|text| text.0).collect()))
    }
}

/// `params._meta`.
#[derive(Debug, Default)]
pub(crate) struct Meta<'a> {
    pub(crate) protocol_version: Option<Cow<'a, str>>,
    pub(crate) client: Client<'a>,
    pub(crate) traceparent: Option<Cow<'a, str>>,
}

/// An object of which some fields matter.
trait Fields<'a>: Default {
    /// Names that decide; a repetition, or the same name in another case, makes the message ambiguous.
    const CONTROL: &'static [&'static str];
    /// Reads the value of a field, if it is one that matters.
    fn take<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<Taken, M::Error>;
}

/// What became of a field.
enum Taken {
    Read,
    /// It does not matter, and its value is still to be skipped.
    Skip,
}

macro_rules! fields {
    ($name:ident { $($key:literal => $($slot:ident).+: $type:ty,)+ }) => {
        impl<'a> Fields<'a> for $name<'a> {
            const CONTROL: &'static [&'static str] = &[$($key,)+];
            fn take<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<Taken, M::Error> {
                match key {
                    $($key => self.$($slot).+ = map.next_value::<$type>()?.into(),)+
                    _ => return Ok(Taken::Skip),
                }
                Ok(Taken::Read)
            }
        }
    };
}

fields!(Params {
    "name" => name: Text<'a>,
    "uri" => uri: Text<'a>,
    "protocolVersion" => protocol_version: Text<'a>,
    "clientInfo" => client: Object<Client<'a>>,
    "requestId" => request_id: Raw<'a>,
    "arguments" => arguments: Raw<'a>,
    "notifications" => subscriptions: Object<Wanted<'a>>,
    "ref" => reference: Object<Reference<'a>>,
    "_meta" => meta: Object<Meta<'a>>,
});
fields!(Wanted { "resourceSubscriptions" => resources: Texts<'a>, });
fields!(Reference { "name" => name: Text<'a>, "uri" => uri: Text<'a>, });
fields!(Client { "name" => name: Text<'a>, "version" => version: Text<'a>, });
fields!(Meta {
    "io.modelcontextprotocol/protocolVersion" => protocol_version: Text<'a>,
    "io.modelcontextprotocol/clientInfo" => client: Object<Client<'a>>,
    "traceparent" => traceparent: Text<'a>,
});

impl<'a> Fields<'a> for Message<'a> {
    const CONTROL: &'static [&'static str] = &["jsonrpc", "id", "method", "params", "result", "error"];
    fn take<M: MapAccess<'a>>(&mut self, key: &str, map: &mut M) -> Result<Taken, M::Error> {
        match key {
            "jsonrpc" => self.version = map.next_value::<Text<'a>>()?.into(),
            "id" => self.id = map.next_value::<Raw<'a>>()?.into(),
            "method" => {
                let text: Text<'a> = map.next_value()?;
                self.method = Some(text.0.ok_or_else(|| M::Error::custom("`method` is not text"))?);
            }
            "params" => self.params = map.next_value::<Object<Params<'a>>>()?.into(),
            "result" | "error" => {
                self.is_response = true;
                map.next_value::<Plain>()?;
            }
            _ => return Ok(Taken::Skip),
        }
        Ok(Taken::Read)
    }
}

impl<'de> Deserialize<'de> for Message<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Object::<Self>::deserialize(deserializer)?;
        object.0.ok_or_else(|| D::Error::custom("the message is no object"))
    }
}

/// Text, or nothing where something else stands: what that means is for the server to say.
struct Text<'a>(Option<Cow<'a, str>>);

impl<'a> From<Text<'a>> for Option<Cow<'a, str>> {
    fn from(text: Text<'a>) -> Self {
        text.0
    }
}

/// An object's fields, or nothing where something else stands.
struct Object<T>(Option<T>);

macro_rules! object_into {
    ($($name:ident),+) => {$(
        impl<'a> From<Object<$name<'a>>> for $name<'a> {
            fn from(object: Object<$name<'a>>) -> Self {
                object.0.unwrap_or_default()
            }
        }
    )+};
}
object_into!(Params, Reference, Client, Meta);

/// The parts of a visitor that take no note of what they see.
macro_rules! ignore_other_values {
    ($($method:ident($type:ty)),+) => {$(
        fn $method<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok(None)
        }
    )+};
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }
    ignore_other_values!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64));
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        while seq.next_element::<Plain>()?.is_some() {}
        Ok(None)
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        while map.next_entry::<Plain, Plain>()?.is_some() {}
        Ok(None)
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Fields<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    ignore_other_values!(
        visit_bool(bool),
        visit_i64(i64),
        visit_u64(u64),
        visit_f64(f64),
        visit_str(&str)
    );
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        while seq.next_element::<Plain>()?.is_some() {}
        Ok(None)
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = T::default();
        // One bit per control name seen.
        let mut seen = 0_u32;
        while let Some(Text(Some(key))) = map.next_key::<Text<'de>>()? {
            if let Some(index) = T::CONTROL.iter().position(|name| is_alike(name, &key)) {
                if T::CONTROL[index] != key {
                    return Err(M::Error::custom(format_args!(
                        "`{}` is written in another way",
                        T::CONTROL[index]
                    )));
                }
                if seen & (1 << index) != 0 {
                    return Err(M::Error::custom(format_args!("`{}` is given twice", T::CONTROL[index])));
                }
                seen |= 1 << index;
            }
            if let Taken::Skip = fields.take(&key, &mut map)? {
                map.next_value::<Plain>()?;
            }
        }
        Ok(Some(fields))
    }
}

impl<'de, T: Fields<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct Batch<'a>(Vec<Message<'a>>);

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Batch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut messages = Vec::new();
        while let Some(message) = seq.next_element()? {
            messages.push(message);
            if messages.len() > BATCH_MAX {
                return Err(S::Error::custom(format_args!("a batch has at most {BATCH_MAX} messages")));
            }
        }
        if messages.is_empty() {
            return Err(S::Error::custom("the batch is empty"));
        }
        Ok(Batch(messages))
    }
}

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BatchVisitor)
    }
}

#[cfg(test)]
mod tests;
