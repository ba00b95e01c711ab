//! The evaluator a second time, as simple as can be: one list after the other, in the order of the rules. Slow, and easy to read.

use super::super::condition::{Answer, ArgumentsOnce, Condition};
use super::super::document::{Document, Grant, Session};
use super::super::glob::{Glob, Subject};
use super::super::session::token_hash;
use super::super::span::{Validity, parse_duration};
use super::super::words::{Assurance, AuthMode, KindRule, Mode, SideEffect, Trust, Verification};
use super::super::{Arguments, Call, Claims, Presented, Reason, Target};
use crate::{Decision, Identity, Timestamp};

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) decision: Decision,
    pub(super) reason: Reason,
    pub(super) grant: Option<String>,
    pub(super) version: String,
    pub(super) trusts: [Option<Trust>; 4],
}

pub(super) fn decide(document: &Document, call: &Call<'_>, now: Timestamp) -> Told {
    let settings = document.policy.clone().unwrap_or_default();
    let mut told = Told {
        decision: Decision::Deny,
        reason: Reason::Allowed,
        grant: None,
        version: if settings.policy_version.is_empty() {
            "v1".to_owned()
        } else {
            settings.policy_version.clone()
        },
        trusts: [None; 4],
    };
    told.reason = judge(document, call, now, &mut told).err().unwrap_or(Reason::Allowed);
    told.decision = match told.reason {
        Reason::Allowed => Decision::Allow,
        Reason::NoMatchingGrant
        | Reason::OutsideTimeWindow
        | Reason::ToolNotGranted
        | Reason::ResourceNotGranted
        | Reason::PromptNotGranted
        | Reason::GrantWithoutTrust => settings.default_decision.unwrap_or(Decision::Deny),
        _ => Decision::Deny,
    };
    if settings.mode == Some(Mode::Observe) {
        (told.decision, told.reason) = (Decision::Allow, Reason::Allowed);
    }
    told
}

#[expect(
    clippy::too_many_lines,
    reason = "one list from top to bottom is what makes it easy to read"
)]
fn judge(document: &Document, call: &Call<'_>, now: Timestamp, told: &mut Told) -> Result<(), Reason> {
    let settings = document.policy.clone().unwrap_or_default();
    let sessions = document.session.clone().unwrap_or_default();
    let is_nobody = document.auth.as_ref().and_then(|auth| auth.mode) == Some(AuthMode::None);
    let mut claims = call.claims;
    if is_nobody {
        claims = Claims::NOBODY;
    }
    let by_name = sessions.verification == Some(Verification::Name);
    let proven = proven(document, call);
    let is_open = call.target == Target::Open;
    if !is_open && by_name && claims.is_empty() && proven.is_none() && !is_nobody {
        return Err(Reason::MissingIdentity);
    }
    let named = match call.presented {
        Presented::Header(name) if by_name && proven.is_none() => document.sessions.iter().find(|session| {
            let full = format!("{}/{}", home(document, &session.namespace), session.name);
            let asked = if name.contains('/') {
                name.to_owned()
            } else {
                format!("{}/{name}", document.server.namespace)
            };
            full == asked && session.token_hash.is_empty() && covers(session, &claims)
        }),
        _ => None,
    };
    let session = proven.or(named);
    if session.is_none() && !matches!(call.presented, Presented::Nothing | Presented::Header("")) {
        return Err(Reason::SessionNotFound);
    }
    if let Some(session) = session {
        check_life(document, session, call, now, told)?;
        let differ = |own: &str, claimed: &str| !own.is_empty() && !claimed.is_empty() && own != claimed;
        if differ(&session.human_id, claims.human)
            || differ(&session.agent_id, claims.agent)
            || differ(&session.team_id, claims.team)
        {
            return Err(Reason::IdentityMismatch);
        }
    }
    if is_open {
        return Ok(());
    }
    let mut who = claims;
    if let Some(session) = proven {
        let open = if claims.identity == Identity::Verified {
            claims
        } else {
            Claims::NOBODY
        };
        who.human = if session.human_id.is_empty() {
            open.human
        } else {
            &session.human_id
        };
        who.agent = if session.agent_id.is_empty() {
            open.agent
        } else {
            &session.agent_id
        };
        who.team = if session.team_id.is_empty() {
            open.team
        } else {
            &session.team_id
        };
        who.identity = Identity::Verified;
    }
    if who.is_empty() && !is_nobody {
        return Err(Reason::MissingIdentity);
    }
    if sessions.required && session.is_none() {
        return Err(Reason::MissingSession);
    }
    if settings.require_identity == Some(Assurance::Verified) && (who.is_empty() || who.identity != Identity::Verified) {
        return Err(Reason::IdentityNotVerified);
    }
    let kind = match call.target {
        Target::Tool(_) => KindRule::Granted,
        Target::Resource(_) => settings.resources.unwrap_or(KindRule::Granted),
        Target::Prompt(_) => settings.prompts.unwrap_or(KindRule::Granted),
        Target::Task => settings.tasks.unwrap_or(KindRule::Identified),
        Target::Open | Target::Other => settings.others.unwrap_or(KindRule::Identified),
        Target::Unclear => KindRule::Denied,
    };
    match kind {
        KindRule::Denied => return Err(Reason::KindDenied),
        KindRule::Identified => return Ok(()),
        KindRule::Granted => {}
    }
    let admin = grants(document, call, &who, now, told)?;
    let consented = match session {
        Some(session) => Some(session.consented_trust.unwrap_or(Trust::Low)),
        None => document
            .sessions
            .iter()
            .filter(|session| !who.is_empty() && covers(session, &who))
            .map(|session| session.consented_trust.unwrap_or(Trust::Low))
            .min(),
    };
    let effective = consented.unwrap_or(admin).min(admin);
    (told.trusts[1], told.trusts[2], told.trusts[3]) = (Some(admin), consented, Some(effective));
    if Some(effective) < told.trusts[0] {
        return Err(Reason::TrustTooLow);
    }
    scopes(document, call)
}

#[expect(
    clippy::too_many_lines,
    reason = "one list from top to bottom is what makes it easy to read"
)]
fn grants(document: &Document, call: &Call<'_>, who: &Claims<'_>, now: Timestamp, told: &mut Told) -> Result<Trust, Reason> {
    let tool = match call.target {
        Target::Tool(name) => document.tools.iter().find(|tool| tool.name == name),
        _ => None,
    };
    let effect = match call.target {
        Target::Tool(_) => tool.and_then(|tool| tool.side_effect),
        Target::Other => Some(SideEffect::Destructive),
        _ => Some(SideEffect::Read),
    };
    let mut required = tool.and_then(|tool| tool.required_trust).unwrap_or(Trust::Low);
    told.trusts[0] = Some(required);
    let mut matching: Vec<&Grant> = document
        .grants
        .iter()
        .filter(|grant| {
            let fits = |own: &str, asked: &str| own.is_empty() || own == asked;
            let subject =
                fits(&grant.human_id, who.human) && fits(&grant.agent_id, who.agent) && fits(&grant.team_id, who.team);
            !grant.disabled && subject && !who.is_empty()
        })
        .collect();
    if matching.is_empty() {
        return Err(Reason::NoMatchingGrant);
    }
    matching.retain(|grant| {
        Validity::parse(&grant.valid_from, &grant.valid_until, &grant.windows).is_ok_and(|validity| validity.holds(now))
    });
    if matching.is_empty() {
        return Err(Reason::OutsideTimeWindow);
    }
    matching.sort_by_key(|grant| (home(document, &grant.namespace), grant.name.clone()));
    let (mut covered, mut contributed, mut unmet, mut unmet_effect) = (None, false, None, None);
    let (mut admin, mut speaker) = (Trust::None, None);
    for grant in matching {
        let rules = rules(grant, call);
        if rules.iter().any(|rule| rule.holds == Holds::Denies) {
            attribute(document, Some(grant), told);
            return Err(match call.target {
                Target::Resource(_) => Reason::ResourceDenied,
                Target::Prompt(_) => Reason::PromptDenied,
                _ => Reason::ToolDenied,
            });
        }
        let has_none = grant.tool_rules.is_empty() && grant.prompt_rules.is_empty() && grant.resource_rules.is_empty();
        let allows_effect = effect.is_some_and(|effect| grant.allowed_side_effects.contains(&effect));
        if !has_none && !rules.iter().any(|rule| rule.holds == Holds::Allows) {
            if rules.iter().any(|rule| rule.holds == Holds::WouldAllow) {
                unmet = unmet.or(Some(grant));
                unmet_effect = unmet_effect.or(allows_effect.then_some(grant));
            }
            continue;
        }
        covered = covered.or(Some(grant));
        if !allows_effect {
            continue;
        }
        let trust = grant.max_trust.unwrap_or(Trust::Low);
        if !contributed || trust > admin {
            (admin, speaker, contributed) = (trust, Some(grant), true);
        }
        for rule in rules.iter().filter(|rule| rule.holds == Holds::Allows) {
            if rule.required > required {
                (required, speaker) = (rule.required, Some(grant));
            }
        }
    }
    let Some(first) = covered.or(unmet) else {
        return Err(match call.target {
            Target::Resource(_) => Reason::ResourceNotGranted,
            Target::Prompt(_) => Reason::PromptNotGranted,
            _ => Reason::ToolNotGranted,
        });
    };
    attribute(document, Some(first), told);
    if effect.is_none() {
        return Err(Reason::ToolSideEffectUnknown);
    }
    if let (Some(pin), Some(seen)) = (tool.map(|tool| &tool.pin).filter(|pin| !pin.is_empty()), call.definition)
        && pin != seen
    {
        return Err(Reason::ToolChanged);
    }
    if !contributed {
        attribute(document, unmet_effect, told);
        let reason = unmet_effect.map_or(Reason::SideEffectNotAllowed, |_| Reason::ArgumentsNotAllowed);
        return Err(reason);
    }
    told.trusts[0] = Some(required);
    attribute(document, speaker, told);
    if admin == Trust::None {
        Err(Reason::GrantWithoutTrust)
    } else {
        Ok(admin)
    }
}

#[derive(PartialEq)]
enum Holds {
    Allows,
    WouldAllow,
    Denies,
    DoesNot,
}

struct Rule {
    holds: Holds,
    required: Trust,
}

/// The rules of a grant that are about a call.
fn rules(grant: &Grant, call: &Call<'_>) -> Vec<Rule> {
    let met = |when: &str, decision: Decision| match (when, call.arguments) {
        ("", _) => true,
        (_, Arguments::Any) => decision == Decision::Allow,
        (when, Arguments::Json(text)) => match Condition::parse(when).map(|when| when.ask(&ArgumentsOnce::new(text))) {
            Ok(Answer::Holds) => true,
            Ok(Answer::DoesNotHold) => false,
            Ok(Answer::Unclear) | Err(_) => decision == Decision::Deny,
        },
    };
    let rule = |decision: Option<Decision>, required: Option<Trust>, when: &str| {
        let decision = decision.unwrap_or(Decision::Allow);
        Rule {
            holds: match (decision, met(when, decision)) {
                (Decision::Deny, true) => Holds::Denies,
                (Decision::Deny, false) => Holds::DoesNot,
                (Decision::Allow, true) => Holds::Allows,
                (Decision::Allow, false) => Holds::WouldAllow,
            },
            required: required.unwrap_or(Trust::Low),
        }
    };
    let matches = |glob: &Glob, subject: &Subject<'_>, decision: Option<Decision>| match decision {
        Some(Decision::Deny) => glob.maybe_matches(subject),
        _ => glob.surely_matches(subject),
    };
    match call.target {
        Target::Tool(name) => {
            let named = grant.tool_rules.iter().filter(|rule| rule.name == name);
            named.map(|own| rule(own.decision, own.required_trust, &own.when)).collect()
        }
        Target::Prompt(name) => {
            let named = grant.prompt_rules.iter();
            let named = named.filter(|rule| matches(&Glob::over_names(&rule.name), &Subject::name(name), rule.decision));
            named.map(|own| rule(own.decision, own.required_trust, &own.when)).collect()
        }
        Target::Resource(uri) => {
            let named = grant.resource_rules.iter();
            let named = named.filter(|rule| matches(&Glob::over_uris(&rule.uri), &Subject::uri(uri), rule.decision));
            named.map(|own| rule(own.decision, own.required_trust, "")).collect()
        }
        _ => Vec::new(),
    }
}

fn proven<'d>(document: &'d Document, call: &Call<'_>) -> Option<&'d Session> {
    document.sessions.iter().find(|session| match call.presented {
        Presented::Nothing | Presented::Header("") => false,
        Presented::Header(text) => session.token_hash == token_hash(text),
        Presented::Certified { namespace, name } => home(document, &session.namespace) == namespace && session.name == name,
    })
}

fn check_life(document: &Document, session: &Session, call: &Call<'_>, now: Timestamp, told: &mut Told) -> Result<(), Reason> {
    let settings = document.session.clone().unwrap_or_default();
    let time = |text: &str| Timestamp::parse(text).ok();
    let lived_out = match (time(&session.issued_at), parse_duration(&settings.max_lifetime)) {
        (Some(issued), Some(max)) => now > issued.plus(max),
        _ => false,
    };
    let expired = !session.expires_at.is_empty() && time(&session.expires_at).is_none_or(|end| now > end);
    let idle = match (call.last_used, parse_duration(&settings.idle_timeout)) {
        (Some(last), Some(max)) => now.since(last) > max,
        _ => false,
    };
    let reason = if session.revoked {
        Reason::SessionRevoked
    } else if expired || lived_out {
        Reason::SessionExpired
    } else if idle {
        Reason::SessionIdle
    } else {
        return Ok(());
    };
    if !session.policy_version.is_empty() {
        told.version.clone_from(&session.policy_version);
    }
    Err(reason)
}

fn covers(session: &Session, who: &Claims<'_>) -> bool {
    let fits = |own: &str, asked: &str| own.is_empty() || own == asked;
    fits(&session.human_id, who.human) && fits(&session.agent_id, who.agent) && fits(&session.team_id, who.team)
}

fn scopes(document: &Document, call: &Call<'_>) -> Result<(), Reason> {
    let Some(held) = call.claims.scopes else { return Ok(()) };
    let mut needed = document
        .auth
        .as_ref()
        .map(|auth| auth.required_scopes.clone())
        .unwrap_or_default();
    if let Target::Tool(name) = call.target {
        needed.extend(
            document
                .tools
                .iter()
                .filter(|tool| tool.name == name)
                .flat_map(|tool| tool.required_scopes.clone()),
        );
    }
    let has = |scope: &String| held.split_whitespace().any(|own| own == scope);
    if needed.iter().all(has) {
        Ok(())
    } else {
        Err(Reason::InsufficientScope)
    }
}

fn attribute(document: &Document, grant: Option<&Grant>, told: &mut Told) {
    let Some(grant) = grant else { return };
    told.grant = Some(format!("{}/{}", home(document, &grant.namespace), grant.name));
    if !grant.policy_version.is_empty() {
        told.version.clone_from(&grant.policy_version);
    }
}

fn home(document: &Document, namespace: &str) -> String {
    if namespace.is_empty() {
        document.server.namespace.clone()
    } else {
        namespace.to_owned()
    }
}
