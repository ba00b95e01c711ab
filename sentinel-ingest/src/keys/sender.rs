//! Who sends: the holder of a key, or of a token.

use std::sync::Arc;
use std::time::Duration;

use domain::event::NamespaceRule;

use super::file::ANY_NAMESPACE;
use super::ring::{Key, KeyRing};
use crate::oidc::Oidc;

/// Whom ingest takes events from.
#[derive(Clone, Debug)]
pub struct Senders {
    pub(crate) keys: KeyRing,
    pub(crate) oidc: Option<Oidc>,
}

impl Senders {
    /// Those with a key, and those with a token of an identity provider.
    pub fn new(keys: KeyRing, oidc: Option<Oidc>) -> Self {
        Self { keys, oidc }
    }
}

impl From<KeyRing> for Senders {
    fn from(keys: KeyRing) -> Self {
        Self::new(keys, None)
    }
}

/// What a verified token lets its holder do.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) id: String,
    pub(crate) rule: NamespaceRule,
}

/// Whoever sent a request, verified.
#[derive(Clone, Debug)]
pub(crate) enum Sender {
    Key(Arc<Key>),
    Token(Arc<Grant>),
}

impl Sender {
    /// What events say they were received by.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Key(key) => key.id(),
            Self::Token(grant) => &grant.id,
        }
    }

    pub(crate) fn rule(&self) -> &NamespaceRule {
        match self {
            Self::Key(key) => key.rule(),
            Self::Token(grant) => &grant.rule,
        }
    }

    /// The namespace, or `*` for several.
    pub(crate) fn namespace(&self) -> &str {
        match self.rule() {
            NamespaceRule::Only(namespace, _) => namespace.as_str(),
            NamespaceRule::OneOf(_) | NamespaceRule::Any => ANY_NAMESPACE,
        }
    }

    /// Takes the right to send so many events, or says when to come again. Tokens have no rate.
    pub(crate) fn take(&self, events: usize, now: Duration) -> Result<(), Duration> {
        match self {
            Self::Key(key) => key.take(events, now),
            Self::Token(_) => Ok(()),
        }
    }

    pub(crate) fn give_back(&self, events: usize) {
        if let Self::Key(key) = self {
            key.give_back(events);
        }
    }
}
