//! What the policy says to a call, with everything the event of the call tells about it.

use std::sync::Arc;
use std::time::Duration;

use super::call::Claims;
use super::compile::Policy;
use super::reason::Reason;
use super::words::{Risk, SideEffect, Trust};
use crate::{Decision, Identity};

/// The decision about one call. Owns what it names, so that it may outlive the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to do with the call.
    pub decision: Decision,
    /// Why. When the policy observes, this is [`Reason::Allowed`], and `shadow` tells more.
    pub reason: Reason,
    /// What would have been decided, when the policy only observes.
    pub shadow: Option<Shadow>,
    /// Label of the grant or session that decided, else of the policy.
    pub policy_version: Arc<str>,
    /// Revision of the document.
    pub policy_revision: Arc<str>,
    /// Trust the call asks for.
    pub required_trust: Option<Trust>,
    /// What the call does, where the server says so.
    pub required_side_effect: Option<SideEffect>,
    /// How risky the call is rated.
    pub risk_level: Option<Risk>,
    /// Most trust that grants give.
    pub admin_trust: Option<Trust>,
    /// Trust the person consented to.
    pub consented_trust: Option<Trust>,
    /// The lower of the two.
    pub effective_trust: Option<Trust>,
    /// The grant that decided.
    pub matched_grant: Option<Arc<ObjectName>>,
    /// The session that was presented and known.
    pub matched_session: Option<Arc<ObjectName>>,
    /// Who the call counts for: the session's subject, else the claims.
    pub caller: Caller,
    /// Rates to be charged before the call passes; the call is refused with [`Reason::RateExceeded`] when one is used up.
    pub charges: Vec<Charge>,
    /// Scopes that the token lacks, for the challenge of [`Reason::InsufficientScope`].
    pub missing_scopes: Vec<String>,
}

/// What would have been decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    /// The decision.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
}

/// Who a call counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Subject of the session, when its credential was shown.
    pub session: Option<Arc<Subject>>,
    /// How sure we are.
    pub identity: Identity,
}

impl Verdict {
    /// Nothing decided yet.
    pub(super) fn blank(policy: &Policy) -> Self {
        Self {
            decision: Decision::Deny,
            reason: Reason::PolicyUnavailable,
            shadow: None,
            policy_version: Arc::clone(&policy.version),
            policy_revision: Arc::clone(&policy.revision),
            required_trust: None,
            required_side_effect: None,
            risk_level: None,
            admin_trust: None,
            consented_trust: None,
            effective_trust: None,
            matched_grant: None,
            matched_session: None,
            caller: Caller {
                session: None,
                identity: Identity::None,
            },
            charges: Vec::new(),
            missing_scopes: Vec::new(),
        }
    }

    /// Person, agent and team that the call counts for.
    pub fn who<'a>(&'a self, claims: &Claims<'a>) -> Claims<'a> {
        self.caller.who(claims)
    }
}

impl Caller {
    /// Person, agent and team: the session's, where its credential was shown; what that leaves open is taken from the claims only
    /// when these are proven too.
    pub fn who<'a>(&'a self, claims: &Claims<'a>) -> Claims<'a> {
        let Some(subject) = &self.session else {
            return match self.identity {
                Identity::None => Claims::NOBODY,
                _ => *claims,
            };
        };
        let open = if claims.identity == Identity::Verified {
            *claims
        } else {
            Claims::NOBODY
        };
        let own = |own: &'a str, open: &'a str| if own.is_empty() { open } else { own };
        Claims {
            human: own(&subject.human, open.human),
            agent: own(&subject.agent, open.agent),
            team: own(&subject.team, open.team),
            identity: Identity::Verified,
            scopes: claims.scopes,
        }
    }
}

/// Person, agent and team; empty texts are absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Subject {
    /// Person.
    pub human: String,
    /// Agent.
    pub agent: String,
    /// Team.
    pub team: String,
}

/// Namespace and name of a grant or session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name within it.
    pub name: String,
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A rate that the call uses up one unit of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Grant whose rate it is.
    pub grant: Arc<ObjectName>,
    /// Whose count: `None` when all callers under the grant share it.
    pub caller: Option<Subject>,
    /// Calls.
    pub calls: u32,
    /// In this time.
    pub per: Duration,
}
