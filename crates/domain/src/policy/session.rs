//! Sessions: how one is recognised, and whether it is alive.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::call::Claims;
use super::document;
use super::reason::Reason;
use super::verdict::{ObjectName, Subject};
use super::words::Trust;
use crate::Timestamp;

/// SHA-256 of a session's credential.
pub(crate) type Hash = [u8; 32];

const PREFIX: &str = "sha256:";

/// The hash of a credential as documents and objects hold it: `sha256:` and hex.
pub fn token_hash(credential: &str) -> String {
    format!("{PREFIX}{}", hex::encode(hash(credential)))
}

pub(crate) fn hash(credential: &str) -> Hash {
    Sha256::digest(credential.as_bytes()).into()
}

/// Reads `sha256:` and hex.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(text.trim().strip_prefix(PREFIX)?, &mut hash).ok()?;
    Some(hash)
}

/// A session, ready to be asked.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: Arc<ObjectName>,
    pub(crate) subject: Arc<Subject>,
    pub(crate) hash: Option<Hash>,
    pub(crate) consented: Trust,
    pub(crate) version: Option<Arc<str>>,
    revoked: bool,
    /// The earlier of its end and its longest life.
    ends: Option<Timestamp>,
}

impl Session {
    pub(crate) fn new(session: &document::Session, namespace: &str, life_max: Option<Duration>) -> Self {
        let expires = match session.expires_at.trim() {
            "" => None,
            // What cannot be read has ended.
            text => Some(Timestamp::parse(text).unwrap_or(Timestamp::MIN)),
        };
        let issued = Timestamp::parse(session.issued_at.trim()).ok();
        let outlived = issued.zip(life_max).map(|(issued, life_max)| issued.plus(life_max));
        Self {
            name: Arc::new(ObjectName::new(&session.namespace, &session.name, namespace)),
            subject: Arc::new(Subject::new(&session.human_id, &session.agent_id, &session.team_id)),
            hash: parse_hash(&session.token_hash),
            consented: session.consented_trust.unwrap_or(Trust::Low),
            version: (!session.policy_version.is_empty()).then(|| session.policy_version.as_str().into()),
            revoked: session.revoked,
            ends: expires.into_iter().chain(outlived).min(),
        }
    }

    /// Why it is dead, if it is.
    pub(crate) fn fault(&self, now: Timestamp, last_used: Option<Timestamp>, idle_max: Option<Duration>) -> Option<Reason> {
        if self.revoked {
            return Some(Reason::SessionRevoked);
        }
        if self.ends.is_some_and(|end| now > end) {
            return Some(Reason::SessionExpired);
        }
        let is_idle = last_used.zip(idle_max).is_some_and(|(last, max)| now.since(last) > max);
        is_idle.then_some(Reason::SessionIdle)
    }
}

impl Subject {
    pub(crate) fn new(human: &str, agent: &str, team: &str) -> Self {
        Self {
            human: human.to_owned(),
            agent: agent.to_owned(),
            team: team.to_owned(),
        }
    }
}

impl Subject {
    fn fields<'a>(&'a self, claims: &Claims<'a>) -> [(&'a str, &'a str); 3] {
        [
            (&self.human, claims.human),
            (&self.agent, claims.agent),
            (&self.team, claims.team),
        ]
    }

    /// Whether somebody with these claims is meant.
    pub(crate) fn covers(&self, claims: &Claims<'_>) -> bool {
        self.fields(claims)
            .iter()
            .all(|(own, claimed)| own.is_empty() || own == claimed)
    }

    /// Whether the claims name somebody else.
    pub(crate) fn disagrees(&self, claims: &Claims<'_>) -> bool {
        let differ = |(own, claimed): &(&str, &str)| !own.is_empty() && !claimed.is_empty() && own != claimed;
        self.fields(claims).iter().any(differ)
    }
}

impl ObjectName {
    /// `namespace` may be empty, which means `home`.
    pub(crate) fn new(namespace: &str, name: &str, home: &str) -> Self {
        Self {
            namespace: if namespace.is_empty() { home } else { namespace }.to_owned(),
            name: name.to_owned(),
        }
    }
}
