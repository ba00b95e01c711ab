//! Why a call is decided as it is: the checks it passed, the one it failed, and the grant that came nearest.

use super::call::{Arguments, Call, Claims, Target};
use super::compile::{Grant, Policy};
use super::document::{self, Document};
use super::merge::Asking;
use super::reason::Reason;
use super::verdict::{ObjectName, Verdict};
use super::words::{KindRule, SideEffect, Trust};
use crate::Timestamp;

/// The decision about a call, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub verdict: Verdict,
    /// Checks in their order, up to the one that decided.
    pub steps: Vec<Step>,
    /// Of a refused call: the grant with the fewest obstacles.
    pub nearest: Option<Nearest>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is checked, in a word or two.
    pub check: &'static str,
    /// What was found.
    pub finding: String,
    /// The reason, where it failed.
    pub failed: Option<Reason>,
}

/// A grant that does not let the call pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// Which.
    pub grant: ObjectName,
    /// Everything that stands between it and the call.
    pub obstacles: Vec<String>,
}

/// Explains what a document says about a call.
pub fn explain(document: &Document, call: &Call<'_>, now: Timestamp) -> Explanation {
    let policy = Policy::compile(document);
    let verdict = policy.decide(call, now);
    let caller = verdict.caller.clone();
    let who = caller.who(&call.claims);
    let reason = verdict.shadow.map_or(verdict.reason, |shadow| shadow.reason);
    let steps = steps(&policy, call, &who, &verdict, reason);
    // Where the session caps, no grant is in the way.
    let is_capped = verdict.admin_trust >= verdict.required_trust && reason == Reason::TrustTooLow;
    let asks_grants = is_about_grants(reason) && !is_capped;
    let nearest = asks_grants.then(|| nearest(document, &policy, call, &who, now));
    Explanation {
        verdict,
        steps,
        nearest: nearest.flatten(),
    }
}

/// The checks, as the reasons they may fail for.
const CHECKS: [(&str, &[Reason]); 8] = [
    (
        "session",
        &[
            Reason::SessionNotFound,
            Reason::SessionRevoked,
            Reason::SessionExpired,
            Reason::SessionIdle,
            Reason::IdentityMismatch,
            Reason::MissingSession,
        ],
    ),
    ("identity", &[Reason::MissingIdentity, Reason::IdentityNotVerified]),
    ("kind of call", &[Reason::KindDenied]),
    ("grants", &[Reason::NoMatchingGrant, Reason::OutsideTimeWindow]),
    (
        "rules",
        &[
            Reason::ToolDenied,
            Reason::ResourceDenied,
            Reason::PromptDenied,
            Reason::ToolNotGranted,
            Reason::ResourceNotGranted,
            Reason::PromptNotGranted,
        ],
    ),
    (
        "side effect",
        &[
            Reason::ToolSideEffectUnknown,
            Reason::ToolChanged,
            Reason::SideEffectNotAllowed,
            Reason::ArgumentsNotAllowed,
        ],
    ),
    ("trust", &[Reason::GrantWithoutTrust, Reason::TrustTooLow]),
    ("scopes", &[Reason::InsufficientScope]),
];

fn is_about_grants(reason: Reason) -> bool {
    CHECKS[3..7].iter().any(|(_, reasons)| reasons.contains(&reason))
}

fn steps(policy: &Policy, call: &Call<'_>, who: &Claims<'_>, verdict: &Verdict, reason: Reason) -> Vec<Step> {
    // Handshakes end with the session, kinds that need only an identity with the kind.
    let needs_grant = call.target != Target::Open && policy.kind(&call.target) == KindRule::Granted;
    let count = match (call.target, needs_grant) {
        (Target::Open, _) => 1,
        (_, false) => 3,
        (_, true) => CHECKS.len(),
    };
    let mut steps = Vec::new();
    for (check, reasons) in &CHECKS[..count] {
        let failed = reasons.contains(&reason).then_some(reason);
        let finding = failed.map_or_else(
            || passed(check, policy, call, who, verdict),
            |reason| found(reason, call, verdict),
        );
        steps.push(Step { check, finding, failed });
        if failed.is_some() {
            break;
        }
    }
    steps
}

/// What a passed check found.
fn passed(check: &str, policy: &Policy, call: &Call<'_>, who: &Claims<'_>, verdict: &Verdict) -> String {
    let name = |trust: Option<Trust>| trust.map_or("none", Trust::as_str);
    match check {
        "session" => match &verdict.matched_session {
            Some(session) => format!("{session} is alive"),
            None => "none presented, none required".to_owned(),
        },
        "identity" => format!("{} ({})", people(who), verdict.caller.identity),
        "kind of call" => match policy.kind(&call.target) {
            KindRule::Granted => "needs a grant".to_owned(),
            rule => format!("needs nothing else ({rule})"),
        },
        "grants" => "some are for this caller, at this time".to_owned(),
        "rules" => "covered, and not forbidden".to_owned(),
        "side effect" => format!("{}, allowed", effect(verdict.required_side_effect)),
        "trust" => format!(
            "{} asked, {} by grant, {} consented: {} counts",
            name(verdict.required_trust),
            name(verdict.admin_trust),
            name(verdict.consented_trust.or(verdict.admin_trust)),
            name(verdict.effective_trust)
        ),
        _ => "none missing".to_owned(),
    }
}

/// What a failed check found.
fn found(reason: Reason, call: &Call<'_>, verdict: &Verdict) -> String {
    let grant = || {
        verdict
            .matched_grant
            .as_ref()
            .map_or_else(|| "a grant".to_owned(), ToString::to_string)
    };
    let session = || {
        verdict
            .matched_session
            .as_ref()
            .map_or_else(|| "the session".to_owned(), ToString::to_string)
    };
    let name = |trust: Option<Trust>| trust.map_or("none", Trust::as_str);
    match reason {
        Reason::SessionNotFound => "the session presented is not known to this server".to_owned(),
        Reason::SessionRevoked => format!("{} was revoked", session()),
        Reason::SessionExpired => format!("{} has expired", session()),
        Reason::SessionIdle => format!("{} was not used for too long", session()),
        Reason::IdentityMismatch => format!("{} was made for somebody else than {}", session(), people(&call.claims)),
        Reason::MissingSession => "none presented, one required".to_owned(),
        Reason::MissingIdentity => "nobody is named".to_owned(),
        Reason::IdentityNotVerified => format!("{} is only claimed", people(&call.claims)),
        Reason::KindDenied => "refused to everybody".to_owned(),
        Reason::NoMatchingGrant => "none is for this caller".to_owned(),
        Reason::OutsideTimeWindow => "none of this caller's holds at this time".to_owned(),
        Reason::ToolDenied | Reason::ResourceDenied | Reason::PromptDenied => format!("{} forbids it", grant()),
        Reason::ToolNotGranted | Reason::ResourceNotGranted | Reason::PromptNotGranted => {
            "no grant of this caller names it".to_owned()
        }
        Reason::ToolSideEffectUnknown => "the server does not list the tool with its side effect".to_owned(),
        Reason::ToolChanged => "the tool's definition is not the approved one".to_owned(),
        Reason::SideEffectNotAllowed => format!("no grant of this caller allows {}", effect(verdict.required_side_effect)),
        Reason::ArgumentsNotAllowed => format!("{} allows it with other arguments", grant()),
        Reason::GrantWithoutTrust => format!("{} gives no trust", grant()),
        Reason::TrustTooLow => format!(
            "{} asked, {} by grant, {} consented",
            name(verdict.required_trust),
            name(verdict.admin_trust),
            name(verdict.consented_trust.or(verdict.admin_trust))
        ),
        Reason::InsufficientScope => format!("the token lacks {}", verdict.missing_scopes.join(" ")),
        Reason::Allowed | Reason::RateExceeded | Reason::PolicyUnavailable => reason.to_string(),
    }
}

fn effect(effect: Option<SideEffect>) -> &'static str {
    effect.map_or("unknown", SideEffect::as_str)
}

fn people(who: &Claims<'_>) -> String {
    let parts: Vec<String> = [("human", who.human), ("agent", who.agent), ("team", who.team)]
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(what, name)| format!("{what} {name}"))
        .collect();
    if parts.is_empty() {
        "nobody".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The grant with the fewest obstacles; the first by name among equals.
fn nearest(document: &Document, policy: &Policy, call: &Call<'_>, who: &Claims<'_>, now: Timestamp) -> Option<Nearest> {
    let home = &document.server.namespace;
    let one = |grant: &document::Grant| {
        let enabled = document::Grant {
            disabled: false,
            ..grant.clone()
        };
        let compiled = Grant::new(&enabled, home)?;
        let mut obstacles = obstacles(&compiled, policy, call, who, now);
        if grant.disabled {
            obstacles.insert(0, "it is disabled".to_owned());
        }
        let name = ObjectName::new(&grant.namespace, &grant.name, home);
        (!obstacles.is_empty()).then_some(Nearest { grant: name, obstacles })
    };
    let mut found: Vec<Nearest> = document.grants.iter().filter_map(one).collect();
    found.sort_by(|one, other| (one.obstacles.len(), &one.grant).cmp(&(other.obstacles.len(), &other.grant)));
    found.into_iter().next()
}

fn obstacles(grant: &Grant, policy: &Policy, call: &Call<'_>, who: &Claims<'_>, now: Timestamp) -> Vec<String> {
    let mut obstacles = Vec::new();
    for (field, own, asked) in [
        ("human", &grant.subject.human, who.human),
        ("agent", &grant.subject.agent, who.agent),
        ("team", &grant.subject.team, who.team),
    ] {
        if !own.is_empty() && own != asked {
            obstacles.push(format!("it is for {field} {own}"));
        }
    }
    if !grant.validity.holds(now) {
        obstacles.push("it does not hold at this time".to_owned());
    }
    let asked = policy.asked(call);
    let said = grant.say(&Asking::new(call, asked.effect));
    if said.denies {
        obstacles.push("it forbids the call".to_owned());
    } else if said.is_unmet && !said.covers && call.arguments != Arguments::Any {
        obstacles.push("it allows the call with other arguments".to_owned());
    } else if !said.covers {
        obstacles.push("its rules do not name what is called".to_owned());
    }
    match asked.effect {
        Some(effect) if !grant.effects.contains(&effect) => obstacles.push(format!("it does not allow {effect}")),
        Some(_) => {}
        None => obstacles.push("the server does not say what the tool does".to_owned()),
    }
    let required = asked.required.max(said.required.unwrap_or(Trust::None));
    if grant.trust < required {
        obstacles.push(format!("it gives {} trust, {required} is asked", grant.trust));
    }
    obstacles
}
