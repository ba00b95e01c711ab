//! What is judged: a call as the gateway understood it, borrowed from the request.

use crate::{Identity, Timestamp};

/// One request, as far as a policy cares.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// What it is about.
    pub target: Target<'a>,
    /// With which arguments.
    pub arguments: Arguments<'a>,
    /// Who the request says it is from.
    pub claims: Claims<'a>,
    /// The session it presents.
    pub presented: Presented<'a>,
    /// When that session was last used before; `None` when that is not known.
    pub last_used: Option<Timestamp>,
    /// Hash of the tool's definition as last listed by the server; `None` when it was not seen.
    pub definition: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// A call without arguments by nobody known.
    pub const fn of(target: Target<'a>) -> Self {
        Self {
            target,
            arguments: Arguments::Json(""),
            claims: Claims::NOBODY,
            presented: Presented::Nothing,
            last_used: None,
            definition: None,
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `tools/call` of a tool.
    Tool(&'a str),
    /// Reading or watching a resource by URI.
    Resource(&'a str),
    /// Getting a prompt, or completing its arguments.
    Prompt(&'a str),
    /// Asking for, changing or ending a task.
    Task,
    /// A request that hands out nothing by itself: handshake, ping, lists (their items are judged one by one).
    Open,
    /// A method we do not know.
    Other,
    /// A request that could be about two things, depending on who reads it: refused to everybody.
    Unclear,
}

impl<'a> Target<'a> {
    /// The target of a method. `name` is `params.name` (or that of a completion's `ref`), `uri` is `params.uri` (or that of the
    /// `ref`). `subscriptions/listen` is judged once per URI in it; without any it is [`Target::Other`].
    pub fn of(method: &str, name: Option<&'a str>, uri: Option<&'a str>) -> Self {
        match method {
            "tools/call" | "call_tool" => Self::Tool(name.unwrap_or_default()),
            "prompts/get" => Self::Prompt(name.unwrap_or_default()),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" | "resources/directory/read" => {
                Self::Resource(uri.unwrap_or_default())
            }
            "completion/complete" | "subscriptions/listen" => match (uri, name) {
                (Some(_), Some(_)) => Self::Unclear,
                (Some(uri), None) => Self::Resource(uri),
                (None, Some(name)) => Self::Prompt(name),
                (None, None) => Self::Other,
            },
            "initialize"
            | "ping"
            | "logging/setLevel"
            | "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list" => Self::Open,
            _ if method.starts_with("tasks/") => Self::Task,
            _ if method.starts_with("notifications/") => Self::Open,
            _ => Self::Other,
        }
    }
}

/// The arguments of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments<'a> {
    /// JSON text of `params.arguments`; empty when the call has none.
    Json(&'a str),
    /// Not known, because the question is whether some call would pass: conditions count as they favour the caller.
    Any,
}

/// Who a request says it is from. Empty texts count as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims<'a> {
    /// Person.
    pub human: &'a str,
    /// Agent.
    pub agent: &'a str,
    /// Team.
    pub team: &'a str,
    /// Whether a credential proves it.
    pub identity: Identity,
    /// Scopes of the access token, separated by blanks; `None` when there is no token.
    pub scopes: Option<&'a str>,
}

impl Claims<'_> {
    /// No claim at all.
    pub const NOBODY: Self = Self {
        human: "",
        agent: "",
        team: "",
        identity: Identity::None,
        scopes: None,
    };

    /// Whether nobody is named.
    pub const fn is_empty(&self) -> bool {
        self.human.is_empty() && self.agent.is_empty() && self.team.is_empty()
    }
}

/// The session a request presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// None.
    Nothing,
    /// The text of the session header: a secret credential, or a name where the server accepts names.
    Header(&'a str),
    /// A session proven by a client certificate.
    Certified {
        /// Namespace of the session object.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
}
