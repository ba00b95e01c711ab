//! The decision: a pure function of the policy and what is known about the request.
//!
//! There is always a policy. Today's only one observes: it lets everything pass, and everything is recorded.

use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::Decision;

use crate::inspect::MessageKind;

/// What a policy judges.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `None` for requests without a message: streams, ends of sessions.
    pub kind: Option<MessageKind>,
    pub method: Option<&'a str>,
    pub tool: Option<&'a str>,
    pub resource: Option<&'a str>,
    pub human: Option<&'a str>,
    pub agent: Option<&'a str>,
    pub team: Option<&'a str>,
}

/// What a policy says, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    /// A reason code.
    pub reason: &'static str,
}

/// The rules of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Observe,
}

impl Policy {
    /// Lets everything pass.
    pub const fn observe() -> Self {
        Self { mode: Mode::Observe }
    }

    /// `observe` or `enforce`.
    pub const fn mode(&self) -> &'static str {
        match self.mode {
            Mode::Observe => "observe",
        }
    }

    /// Judges a call. Total, without I/O or clock.
    pub fn decide(&self, _call: &Call<'_>) -> Verdict {
        match self.mode {
            Mode::Observe => Verdict {
                decision: Decision::Allow,
                reason: "allowed",
            },
        }
    }
}

/// A place for the policy in force. Clones share it; replacing it is atomic and takes effect with the next request.
#[derive(Debug, Clone)]
pub struct PolicyCell(Arc<ArcSwap<Policy>>);

impl PolicyCell {
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }

    pub fn replace(&self, policy: Policy) {
        self.0.store(Arc::new(policy));
    }

    pub fn mode(&self) -> &'static str {
        self.0.load().mode()
    }

    pub(crate) fn decide(&self, call: &Call<'_>) -> Verdict {
        self.0.load().decide(call)
    }
}

impl Default for PolicyCell {
    fn default() -> Self {
        Self::new(Policy::observe())
    }
}
