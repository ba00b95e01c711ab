//! Grants by whom they are for, so that judging a call looks at those of its caller alone.
//!
//! A grant names up to three of person, agent and team, so those of one caller lie in at most eight places. Within a place,
//! grants that hold at any time and on any condition are folded together when the policy is loaded: what they say about a tool
//! is one [`Folded`] value, however many they are. The others (with times, conditions or rates) are asked one by one.

use std::collections::HashMap;

use super::call::{Claims, Target};
use super::compile::{About, Grant};
use super::verdict::Subject;
use super::words::{SideEffect, Trust};
use crate::Decision;

/// A grant's place in the order of names. Lower counts as earlier wherever the first of several is told.
pub(super) type GrantNumber = u32;

/// Stands for a field that a subject leaves open.
const OPEN: u32 = 0;

/// Everything in a policy that belongs to subjects.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: [HashMap<Box<str>, u32>; 3],
    places: HashMap<[u32; 3], Place>,
    /// Which fields the subjects in use name: bit `n` is set when some subject names exactly the fields whose bits are in `n`.
    shapes: u8,
}

/// What a policy holds for one subject.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Whether grants are here that hold at any time.
    pub(super) has_lasting: bool,
    /// Lasting grants without rules: about everything.
    pub(super) open: Folded,
    /// What rules of lasting grants say about tools.
    pub(super) tools: HashMap<Box<str>, Folded>,
    /// Lasting grants with rules about prompts or resources.
    pub(super) globs: Vec<GrantNumber>,
    /// Grants with times, conditions or rates.
    pub(super) loose: Vec<GrantNumber>,
    /// The least that this subject consented to in a session.
    pub(super) consent: Option<Trust>,
}

impl Index {
    /// Puts grants, in their order, where their callers find them.
    pub(super) fn add_grants(&mut self, grants: &[Grant]) {
        for (number, grant) in (0..).zip(grants) {
            self.place_of(&grant.subject).add(number, grant);
        }
    }

    pub(super) fn add_consent(&mut self, subject: &Subject, consented: Trust) {
        let place = self.place_of(subject);
        place.consent = Some(place.consent.map_or(consented, |before| before.min(consented)));
    }

    fn place_of(&mut self, subject: &Subject) -> &mut Place {
        let mut key = [OPEN; 3];
        let mut shape = 0;
        for (field, text) in [&subject.human, &subject.agent, &subject.team].into_iter().enumerate() {
            if text.is_empty() {
                continue;
            }
            shape |= 1 << field;
            let names = &mut self.names[field];
            let fresh = u32::try_from(names.len() + 1).unwrap_or(u32::MAX);
            key[field] = *names.entry(text.as_str().into()).or_insert(fresh);
        }
        self.shapes |= 1 << shape;
        self.places.entry(key).or_default()
    }

    /// The places whose subjects cover a caller, at most eight. Nobody in particular covers any caller who is somebody.
    pub(super) fn places<'p>(&'p self, who: &Claims<'_>) -> impl Iterator<Item = &'p Place> {
        let mut known = [None; 3];
        for (field, text) in [who.human, who.agent, who.team].into_iter().enumerate() {
            if !text.is_empty() {
                known[field] = self.names[field].get(text).copied();
            }
        }
        let shapes = if who.is_empty() { 0 } else { self.shapes };
        (0..8_u8)
            .filter(move |shape| shapes >> shape & 1 == 1)
            .filter_map(move |shape| {
                let mut key = [OPEN; 3];
                for (field, slot) in key.iter_mut().enumerate() {
                    if shape >> field & 1 == 1 {
                        *slot = known[field]?;
                    }
                }
                self.places.get(&key)
            })
    }
}

impl Place {
    fn add(&mut self, number: GrantNumber, grant: &Grant) {
        if grant.is_loose() {
            self.loose.push(number);
            return;
        }
        self.has_lasting = true;
        if grant.rules.is_empty() {
            self.open.add(number, grant, Said::COVERED);
            return;
        }
        let mut tools: HashMap<&str, Said> = HashMap::new();
        let mut has_globs = false;
        for rule in &grant.rules {
            match &rule.about {
                About::Tool(name) => tools.entry(name).or_default().hear(rule.decision, rule.required),
                About::Prompt(_) | About::Resource(_) => has_globs = true,
            }
        }
        for (name, said) in tools {
            if !self.tools.contains_key(name) {
                self.tools.insert(name.into(), Folded::default());
            }
            if let Some(folded) = self.tools.get_mut(name) {
                folded.add(number, grant, said);
            }
        }
        if has_globs {
            self.globs.push(number);
        }
    }

    /// What lasting grants say about a target without being asked one by one.
    pub(super) fn folded(&self, target: &Target<'_>) -> Folded {
        match target {
            Target::Tool(name) => self.tools.get(*name).map_or(self.open, |folded| folded.with(&self.open)),
            _ => self.open,
        }
    }
}

/// What the rules of one grant say about a call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) denies: bool,
    pub(super) covers: bool,
    /// It would cover the call, were the arguments others.
    pub(super) is_unmet: bool,
    pub(super) required: Option<Trust>,
}

impl Said {
    /// Without rules a grant is about everything.
    pub(super) const COVERED: Self = Self {
        denies: false,
        covers: true,
        is_unmet: false,
        required: None,
    };

    pub(super) fn hear(&mut self, decision: Decision, required: Trust) {
        match decision {
            Decision::Deny => self.denies = true,
            Decision::Allow => {
                self.covers = true;
                self.required = self.required.max(Some(required));
            }
        }
    }
}

/// What any number of grants say about a call, whatever the order they are folded in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Folded {
    /// First that forbids it.
    pub(super) denied: Option<GrantNumber>,
    /// First that covers it.
    pub(super) covered: Option<GrantNumber>,
    /// What those that cover it and allow its effect contribute, by effect.
    effects: [Option<Contribution>; 3],
}

/// What grants give to a call that they cover and whose effect they allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contribution {
    /// Most trust, and the first grant that gives it.
    pub(super) trust: (Trust, GrantNumber),
    /// Highest requirement of a rule, and the first grant with it.
    pub(super) required: Option<(Trust, GrantNumber)>,
}

impl Folded {
    pub(super) fn add(&mut self, number: GrantNumber, grant: &Grant, said: Said) {
        if said.denies {
            self.denied = first(self.denied, Some(number));
        }
        if !said.covers {
            return;
        }
        self.covered = first(self.covered, Some(number));
        let own = Contribution {
            trust: (grant.trust, number),
            required: said.required.map(|required| (required, number)),
        };
        for effect in &grant.effects {
            let slot = &mut self.effects[*effect as usize];
            *slot = Contribution::both(*slot, Some(own));
        }
    }

    pub(super) fn with(&self, other: &Self) -> Self {
        Self {
            denied: first(self.denied, other.denied),
            covered: first(self.covered, other.covered),
            effects: std::array::from_fn(|at| Contribution::both(self.effects[at], other.effects[at])),
        }
    }

    pub(super) const fn contribution(&self, effect: SideEffect) -> Option<Contribution> {
        self.effects[effect as usize]
    }
}

impl Contribution {
    fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (Some(one), Some(other)) = (one, other) else {
            return one.or(other);
        };
        Some(Self {
            trust: higher(one.trust, other.trust),
            required: match (one.required, other.required) {
                (Some(one), Some(other)) => Some(higher(one, other)),
                (one, other) => one.or(other),
            },
        })
    }
}

/// The higher trust; among equals that of the earlier grant.
fn higher(one: (Trust, GrantNumber), other: (Trust, GrantNumber)) -> (Trust, GrantNumber) {
    if (one.0, std::cmp::Reverse(one.1)) >= (other.0, std::cmp::Reverse(other.1)) {
        one
    } else {
        other
    }
}

pub(super) fn first(one: Option<GrantNumber>, other: Option<GrantNumber>) -> Option<GrantNumber> {
    one.into_iter().chain(other).min()
}
