//! The decision: which checks a call passes, in which order, and what the first failing one says.
//!
//! ```text
//!  1  policy was read                       policy_unavailable
//!  2  a presented session is known          session_not_found      (also for handshakes and lists, which end here)
//!     and alive                             session_revoked, session_expired, session_idle
//!     and the claims agree with it          identity_mismatch
//!  3  somebody is named                     missing_identity       (before 2 where sessions go by name)
//!  4  a session, where one is required      missing_session
//!  5  proven, where the policy asks it      identity_not_verified
//!  6  the kind is open to callers           kind_denied            (kinds that need only an identity end here)
//!  7  grants for the caller, at this time   no_matching_grant*, outside_time_window*
//!  8  no rule forbids it                    tool_denied, resource_denied, prompt_denied
//!  9  some grant covers it                  tool_not_granted*, resource_not_granted*, prompt_not_granted*
//! 10  the server says what it does          tool_side_effect_unknown
//! 11  its definition is the approved one    tool_changed
//! 12  a covering grant allows the effect    side_effect_not_allowed, arguments_not_allowed
//! 13  grants carry trust                    grant_without_trust*
//! 14  trust and consent suffice             trust_too_low
//! 15  the token has the scopes              insufficient_scope
//! ```
//!
//! Reasons with a star are left to `default_decision`: nobody spoke about the call.
//!
//! Trust: every grant that covers the call and allows its effect contributes. Most trust among them is `admin`; the requirement
//! is the tool's, raised by the rules of contributing grants, so that a strict rule binds whichever grant allows the call. The
//! session's consent caps: `effective = min(admin, consented)`. Where no session is presented, the lowest consent that the caller
//! gave in any session still listed caps, so that leaving the session out gains nothing.

use std::sync::Arc;

use super::call::{Arguments, Call, Claims, Presented, Target};
use super::compile::Policy;
use super::merge::Merged;
use super::reason::Reason;
use super::session::{self, Session};
use super::verdict::{Caller, Shadow, Verdict};
use super::words::{Assurance, AuthMode, KindRule, Mode, Risk, SideEffect, Trust, Verification};
use crate::{Decision, Identity, Timestamp};

impl Policy {
    /// Judges a call. Pure and total.
    pub fn decide(&self, call: &Call<'_>, now: Timestamp) -> Verdict {
        let mut verdict = Verdict::blank(self);
        let reason = self.judge(call, now, &mut verdict).err().unwrap_or(Reason::Allowed);
        let decision = match reason {
            Reason::Allowed => Decision::Allow,
            reason if reason.is_left_to_default() => self.default,
            _ => Decision::Deny,
        };
        (verdict.decision, verdict.reason) = (decision, reason);
        if self.mode == Mode::Observe && self.is_available {
            verdict.shadow = Some(Shadow { decision, reason });
            (verdict.decision, verdict.reason) = (Decision::Allow, Reason::Allowed);
        }
        verdict
    }

    /// Whether a list may show this to the caller: whether some call of it could pass, with arguments that please.
    pub fn may_list(&self, call: &Call<'_>, now: Timestamp) -> bool {
        let call = Call {
            arguments: Arguments::Any,
            ..*call
        };
        !self.filters_lists() || self.decide(&call, now).decision == Decision::Allow
    }

    /// Every check in its order; the first that fails tells why.
    fn judge(&self, call: &Call<'_>, now: Timestamp, verdict: &mut Verdict) -> Result<(), Reason> {
        if !self.is_available {
            return if call.target == Target::Open {
                Ok(())
            } else {
                Err(Reason::PolicyUnavailable)
            };
        }
        let claims = if self.auth == AuthMode::None {
            Claims::NOBODY
        } else {
            call.claims
        };
        verdict.caller = Caller {
            session: None,
            identity: if claims.is_empty() { Identity::None } else { claims.identity },
        };
        let seen = self.look_up(&call.presented, &claims);
        let is_judged = call.target != Target::Open;
        let by_name = self.verification == Verification::Name;
        if is_judged && by_name && claims.is_empty() && !matches!(seen, Seen::Proven(_)) && self.auth != AuthMode::None {
            return Err(Reason::MissingIdentity);
        }
        let session = self.check_session(seen, &claims, call, now, verdict)?;
        if !is_judged {
            return Ok(());
        }
        let caller = verdict.caller.clone();
        let who = caller.who(&claims);
        if who.is_empty() && self.auth != AuthMode::None {
            return Err(Reason::MissingIdentity);
        }
        if self.needs_session && session.is_none() {
            return Err(Reason::MissingSession);
        }
        if self.require == Assurance::Verified && verdict.caller.identity != Identity::Verified {
            return Err(Reason::IdentityNotVerified);
        }
        match self.kind(&call.target) {
            KindRule::Denied => return Err(Reason::KindDenied),
            KindRule::Identified => return Ok(()),
            KindRule::Granted => {}
        }
        let asked = self.asked(call);
        verdict.required_trust = Some(asked.required);
        verdict.required_side_effect = asked.effect;
        verdict.risk_level = asked.risk;
        let merged = self.merge(&who, call, asked.effect, now)?;
        let trusted = self.weigh(&asked, &merged, call, verdict)?;
        let consented = session.map_or_else(|| self.lowest_consent(&who), |session| Some(session.consented));
        check_trust(trusted, consented, verdict)?;
        self.check_scopes(call, verdict)?;
        verdict.charges = self.charges(&merged, &who);
        Ok(())
    }
}

/// What became of a presented session.
#[derive(Clone, Copy)]
enum Seen<'p> {
    Nothing,
    Unknown,
    /// The caller holds its credential.
    Proven(&'p Session),
    /// The caller says its name.
    Named(&'p Session),
}

impl Policy {
    /// The session that is presented, and whether it is proven (or only named).
    pub(super) fn find(&self, presented: &Presented<'_>) -> Option<(&Session, bool)> {
        match *presented {
            Presented::Nothing => None,
            Presented::Certified { namespace, name } => Some((self.session_named(namespace, name)?, true)),
            Presented::Header(text) => {
                if let Some(at) = self.by_hash.get(&session::hash(text)) {
                    return Some((self.sessions.get(*at)?, true));
                }
                if self.verification == Verification::Token {
                    return None;
                }
                let (namespace, name) = text.split_once('/').unwrap_or((&self.home, text));
                let session = self.session_named(namespace, name)?;
                // Whoever has a credential must show it.
                session.hash.is_none().then_some((session, false))
            }
        }
    }

    fn look_up(&self, presented: &Presented<'_>, claims: &Claims<'_>) -> Seen<'_> {
        if matches!(presented, Presented::Nothing | Presented::Header("")) {
            return Seen::Nothing;
        }
        match self.find(presented) {
            Some((session, true)) => Seen::Proven(session),
            Some((session, false)) if session.subject.covers(claims) => Seen::Named(session),
            _ => Seen::Unknown,
        }
    }

    fn check_session<'p>(
        &self,
        seen: Seen<'p>,
        claims: &Claims<'_>,
        call: &Call<'_>,
        now: Timestamp,
        verdict: &mut Verdict,
    ) -> Result<Option<&'p Session>, Reason> {
        let (session, is_proven) = match seen {
            Seen::Nothing => return Ok(None),
            Seen::Unknown => return Err(Reason::SessionNotFound),
            Seen::Proven(session) => (session, true),
            Seen::Named(session) => (session, false),
        };
        verdict.matched_session = Some(Arc::clone(&session.name));
        let fault = session.fault(now, call.last_used, self.idle_max);
        if let Some(version) = session.version.as_ref().filter(|_| fault.is_some()) {
            verdict.policy_version = Arc::clone(version);
        }
        if is_proven {
            verdict.caller = Caller {
                session: Some(Arc::clone(&session.subject)),
                identity: Identity::Verified,
            };
        }
        match fault {
            Some(reason) => Err(reason),
            None if session.subject.disagrees(claims) => Err(Reason::IdentityMismatch),
            None => Ok(Some(session)),
        }
    }

    pub(super) const fn kind(&self, target: &Target<'_>) -> KindRule {
        match target {
            Target::Tool(_) => KindRule::Granted,
            Target::Resource(_) => self.resources,
            Target::Prompt(_) => self.prompts,
            Target::Task => self.tasks,
            Target::Open | Target::Other => self.others,
            Target::Unclear => KindRule::Denied,
        }
    }
}

/// What a call asks for.
pub(super) struct Asked<'p> {
    pub(super) required: Trust,
    pub(super) effect: Option<SideEffect>,
    risk: Option<Risk>,
    pin: Option<&'p str>,
}

impl Policy {
    pub(super) fn asked(&self, call: &Call<'_>) -> Asked<'_> {
        let effect = match call.target {
            Target::Tool(name) => match self.tools.get(name) {
                Some(tool) => {
                    return Asked {
                        required: tool.required,
                        effect: tool.effect,
                        risk: tool.risk,
                        pin: tool.pin.as_deref(),
                    };
                }
                None => None,
            },
            Target::Resource(_) | Target::Prompt(_) | Target::Task | Target::Open => Some(SideEffect::Read),
            // What we do not know may do anything.
            Target::Other | Target::Unclear => Some(SideEffect::Destructive),
        };
        Asked {
            required: Trust::Low,
            effect,
            risk: Risk::rate(effect, Trust::Low),
            pin: None,
        }
    }
}

impl Policy {
    /// What the grants give, where none forbids: checks 8 to 13.
    fn weigh(&self, asked: &Asked<'_>, merged: &Merged, call: &Call<'_>, verdict: &mut Verdict) -> Result<Trust, Reason> {
        if merged.folded.denied.is_some() {
            self.attribute(merged.folded.denied, verdict);
            return Err(match call.target {
                Target::Resource(_) => Reason::ResourceDenied,
                Target::Prompt(_) => Reason::PromptDenied,
                _ => Reason::ToolDenied,
            });
        }
        let Some(covered) = merged.covered() else {
            return Err(match call.target {
                Target::Resource(_) => Reason::ResourceNotGranted,
                Target::Prompt(_) => Reason::PromptNotGranted,
                _ => Reason::ToolNotGranted,
            });
        };
        self.attribute(Some(covered), verdict);
        let effect = asked.effect.ok_or(Reason::ToolSideEffectUnknown)?;
        if let (Some(pin), Some(seen)) = (asked.pin, call.definition)
            && pin != seen
        {
            return Err(Reason::ToolChanged);
        }
        let contribution = merged.contribution(effect).map_err(|(reason, grant)| {
            self.attribute(grant, verdict);
            reason
        })?;
        let (admin, giver) = contribution.trust;
        let raised = contribution.required.filter(|(required, _)| *required > asked.required);
        // Each grant in its order speaks for the call when it is the first to give more trust or to ask for more.
        let speaker = raised.map_or(giver, |(_, raiser)| raiser.max(giver));
        self.attribute(Some(speaker), verdict);
        if let Some((required, _)) = raised {
            verdict.required_trust = Some(required);
        }
        if admin == Trust::None {
            return Err(Reason::GrantWithoutTrust);
        }
        Ok(admin)
    }

    /// The least that the caller consented to in any session still listed.
    fn lowest_consent(&self, who: &Claims<'_>) -> Option<Trust> {
        self.index.places(who).filter_map(|place| place.consent).min()
    }

    fn check_scopes(&self, call: &Call<'_>, verdict: &mut Verdict) -> Result<(), Reason> {
        let Some(scopes) = call.claims.scopes else { return Ok(()) };
        let of_tool = match call.target {
            Target::Tool(name) => self.tools.get(name).map_or(&[][..], |tool| &tool.scopes),
            _ => &[],
        };
        let is_missing = |scope: &&String| !scopes.split_ascii_whitespace().any(|held| held == scope.as_str());
        verdict.missing_scopes = self.scopes.iter().chain(of_tool).filter(is_missing).cloned().collect();
        if verdict.missing_scopes.is_empty() {
            Ok(())
        } else {
            Err(Reason::InsufficientScope)
        }
    }
}

fn check_trust(admin: Trust, consented: Option<Trust>, verdict: &mut Verdict) -> Result<(), Reason> {
    let effective = consented.map_or(admin, |consented| consented.min(admin));
    verdict.admin_trust = Some(admin);
    verdict.consented_trust = consented;
    verdict.effective_trust = Some(effective);
    if verdict.required_trust.is_some_and(|required| effective < required) {
        return Err(Reason::TrustTooLow);
    }
    Ok(())
}
