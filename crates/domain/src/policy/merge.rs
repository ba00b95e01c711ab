//! What the grants of a caller say about a call, taken together.

use std::sync::Arc;

use super::call::{Arguments, Call, Claims, Target};
use super::compile::{About, Grant, Policy, Rule};
use super::condition::{Answer, ArgumentsOnce};
use super::glob;
use super::index::{Contribution, Folded, GrantNumber, Said, first};
use super::reason::Reason;
use super::verdict::{Charge, Subject, Verdict};
use super::words::{RateScope, SideEffect};
use crate::{Decision, Timestamp};

/// What all grants of a caller say.
pub(super) struct Merged {
    pub(super) folded: Folded,
    /// First grant that covers the call with other arguments, and first of those that allows its effect too.
    unmet: [Option<GrantNumber>; 2],
    /// Grants with rates that contribute.
    rated: Vec<GrantNumber>,
}

/// A call with what is worked out once for all grants.
pub(super) struct Asking<'a> {
    target: Target<'a>,
    subject: Option<glob::Subject<'a>>,
    effect: Option<SideEffect>,
    /// `None` when any will do.
    arguments: Option<ArgumentsOnce<'a>>,
}

impl Policy {
    /// Asks every grant of the caller. Fails where no grant is for the caller at this time.
    pub(super) fn merge(
        &self,
        who: &Claims<'_>,
        call: &Call<'_>,
        effect: Option<SideEffect>,
        now: Timestamp,
    ) -> Result<Merged, Reason> {
        let asking = Asking::new(call, effect);
        let mut merged = Merged {
            folded: Folded::default(),
            unmet: [None; 2],
            rated: Vec::new(),
        };
        let (mut is_matched, mut is_in_time) = (false, false);
        for place in self.index.places(who) {
            if place.has_lasting {
                (is_matched, is_in_time) = (true, true);
                merged.folded = merged.folded.with(&place.folded(&call.target));
            }
            if asking.subject.is_some() {
                for number in &place.globs {
                    merged.ask(*number, self.grant(*number), &asking);
                }
            }
            for number in &place.loose {
                let grant = self.grant(*number);
                is_matched = true;
                if grant.validity.holds(now) {
                    is_in_time = true;
                    merged.ask(*number, grant, &asking);
                }
            }
        }
        match (is_matched, is_in_time) {
            (_, true) => Ok(merged),
            (true, false) => Err(Reason::OutsideTimeWindow),
            (false, false) => Err(Reason::NoMatchingGrant),
        }
    }

    pub(super) fn grant(&self, number: GrantNumber) -> &Grant {
        // Numbers come from the list itself.
        &self.grants[number as usize]
    }

    /// The rates that contributing grants ask to be charged.
    pub(super) fn charges(&self, merged: &Merged, who: &Claims<'_>) -> Vec<Charge> {
        let mut rated = merged.rated.clone();
        rated.sort_unstable();
        let charge = |number| {
            let grant = self.grant(number);
            grant.rate.map(|rate| Charge {
                grant: Arc::clone(&grant.name),
                caller: (rate.by == RateScope::Caller).then(|| Subject::new(who.human, who.agent, who.team)),
                calls: rate.calls,
                per: rate.per,
            })
        };
        rated.into_iter().filter_map(charge).collect()
    }

    /// Names the grant that decided, with its version.
    pub(super) fn attribute(&self, number: Option<GrantNumber>, verdict: &mut Verdict) {
        let Some(number) = number else { return };
        let grant = self.grant(number);
        verdict.matched_grant = Some(Arc::clone(&grant.name));
        if let Some(version) = &grant.version {
            verdict.policy_version = Arc::clone(version);
        }
    }
}

impl Merged {
    fn ask(&mut self, number: GrantNumber, grant: &Grant, asking: &Asking<'_>) {
        let said = grant.say(asking);
        self.folded.add(number, grant, said);
        let allows_effect = asking.effect.is_some_and(|effect| grant.effects.contains(&effect));
        if said.is_unmet && !said.covers {
            self.unmet[0] = first(self.unmet[0], Some(number));
            if allows_effect {
                self.unmet[1] = first(self.unmet[1], Some(number));
            }
        }
        if said.covers && allows_effect && grant.rate.is_some() {
            self.rated.push(number);
        }
    }

    /// First grant that covers the call, be it with other arguments.
    pub(super) fn covered(&self) -> Option<GrantNumber> {
        self.folded.covered.or(self.unmet[0])
    }

    /// What is contributed to a call with this effect, or why nothing is and which grant to name.
    pub(super) fn contribution(&self, effect: SideEffect) -> Result<Contribution, (Reason, Option<GrantNumber>)> {
        match (self.folded.contribution(effect), self.unmet[1]) {
            (Some(contribution), _) => Ok(contribution),
            (None, Some(unmet)) => Err((Reason::ArgumentsNotAllowed, Some(unmet))),
            (None, None) => Err((Reason::SideEffectNotAllowed, self.covered())),
        }
    }
}

impl<'a> Asking<'a> {
    pub(super) fn new(call: &Call<'a>, effect: Option<SideEffect>) -> Self {
        Self {
            target: call.target,
            subject: match call.target {
                Target::Prompt(name) => Some(glob::Subject::name(name)),
                Target::Resource(uri) => Some(glob::Subject::uri(uri)),
                _ => None,
            },
            effect,
            arguments: match call.arguments {
                Arguments::Json(text) => Some(ArgumentsOnce::new(text)),
                Arguments::Any => None,
            },
        }
    }
}

impl Grant {
    /// What its rules say about a call.
    pub(super) fn say(&self, asking: &Asking<'_>) -> Said {
        if self.rules.is_empty() {
            return Said::COVERED;
        }
        let mut said = Said::default();
        for rule in self.rules.iter().filter(|rule| rule.is_about(asking)) {
            if rule.holds(asking) {
                said.hear(rule.decision, rule.required);
            } else if rule.decision == Decision::Allow {
                said.is_unmet = true;
            }
        }
        said
    }
}

impl Rule {
    fn is_about(&self, asking: &Asking<'_>) -> bool {
        let matches = |pattern: &glob::Glob| {
            asking.subject.as_ref().is_some_and(|subject| match self.decision {
                Decision::Allow => pattern.surely_matches(subject),
                Decision::Deny => pattern.maybe_matches(subject),
            })
        };
        match (&self.about, &asking.target) {
            (About::Tool(name), Target::Tool(asked)) => **name == **asked,
            (About::Prompt(pattern), Target::Prompt(_)) | (About::Resource(pattern), Target::Resource(_)) => matches(pattern),
            _ => false,
        }
    }

    /// Whether its condition is met. Where it cannot be told, a rule that allows does not hold and one that denies does.
    fn holds(&self, asking: &Asking<'_>) -> bool {
        let Some(condition) = &self.when else { return true };
        let favourable = self.decision == Decision::Allow;
        match asking.arguments.as_ref().map(|arguments| condition.ask(arguments)) {
            Some(Answer::Holds) => true,
            Some(Answer::DoesNotHold) => false,
            Some(Answer::Unclear) => !favourable,
            None => favourable,
        }
    }
}
