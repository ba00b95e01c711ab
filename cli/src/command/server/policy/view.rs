//! Policies and decisions as people read them.

use std::fmt::Write as _;

use domain::Decision;
use domain::policy::document::{Grant, Rule, Session, Settings};
use domain::policy::explain::Explanation;
use domain::policy::table::{Case, Mismatch};
use domain::policy::{Verdict, diff::Difference};
use serde::{Deserialize, Serialize};

use super::source::Inspected;
use super::word;
use crate::render;
use crate::text::safe;

/// Changes that are shown; the count tells of the rest.
const CHANGES_SHOWN_MAX: usize = 200;

/// Why a call is decided as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Explained {
    pub(super) decision: String,
    reason: String,
    #[serde(default)]
    hint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    would_be: Option<Told>,
    #[serde(default)]
    human: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    team: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    steps: Vec<Checked>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nearest: Option<Nearest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    matched_grant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    required_trust: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effective_trust: Option<String>,
    #[serde(default)]
    revision: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    decision: String,
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    check: String,
    finding: String,
    passed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nearest {
    grant: String,
    obstacles: Vec<String>,
}

impl Explained {
    pub(super) fn of(explanation: Explanation, (human, agent, team): (&str, &str, &str), session: Option<&str>) -> Self {
        let verdict = explanation.verdict;
        let decisive = verdict.shadow.map_or(verdict.reason, |shadow| shadow.reason);
        Self {
            decision: word(verdict.decision).to_owned(),
            reason: verdict.reason.as_str().to_owned(),
            hint: decisive.hint().to_owned(),
            would_be: verdict.shadow.map(|shadow| Told {
                decision: word(shadow.decision).to_owned(),
                reason: shadow.reason.as_str().to_owned(),
            }),
            human: human.to_owned(),
            agent: agent.to_owned(),
            team: team.to_owned(),
            session: session.map(str::to_owned),
            steps: explanation
                .steps
                .into_iter()
                .map(|step| Checked {
                    check: step.check.to_owned(),
                    finding: step.finding,
                    passed: step.failed.is_none(),
                })
                .collect(),
            nearest: explanation.nearest.map(|nearest| Nearest {
                grant: nearest.grant.to_string(),
                obstacles: nearest.obstacles,
            }),
            matched_grant: verdict.matched_grant.map(|name| name.to_string()),
            required_trust: verdict.required_trust.map(|trust| trust.as_str().to_owned()),
            effective_trust: verdict.effective_trust.map(|trust| trust.as_str().to_owned()),
            revision: verdict.policy_revision.to_string(),
        }
    }
}

pub(super) fn explained(told: &Explained) -> String {
    let mut head = format!("{}: {}", told.decision.to_uppercase(), told.reason);
    if let Some(would) = &told.would_be {
        // Writing to a String cannot fail.
        let _ignored = write!(
            head,
            " (observed only; enforced it would be {} {})",
            would.decision, would.reason
        );
    }
    let who = [("human", &told.human), ("agent", &told.agent), ("team", &told.team)];
    let who = who
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(what, name)| format!("{what} {}", safe(name)));
    let session = told.session.iter().map(|name| format!("session {}", safe(name)));
    let who: Vec<_> = who.chain(session).collect();
    let who = if who.is_empty() {
        "nobody known".to_owned()
    } else {
        who.join(", ")
    };
    let rows = told.steps.iter().map(|step| {
        let mark = if step.passed { "passes" } else { "STOPS" };
        vec![step.check.clone(), mark.to_owned(), safe(&step.finding)]
    });
    let mut out = format!("{head}\nCaller: {who}\n\n{}", render::table(&["CHECK", "", "FINDING"], rows));
    if let Some(grant) = &told.matched_grant {
        let _ignored = write!(out, "\n\nDecided by the grant {}.", safe(grant));
    }
    if let Some(nearest) = &told.nearest {
        let _ignored = write!(out, "\n\nThe nearest grant is {}; in its way:", safe(&nearest.grant));
        for obstacle in &nearest.obstacles {
            let _ignored = write!(out, "\n  - {}", safe(obstacle));
        }
    }
    if !told.hint.is_empty() {
        let _ignored = write!(out, "\n\ntry: {}", told.hint);
    }
    out
}

pub(super) fn inspected(told: &Inspected) -> String {
    let document = &told.policy;
    let settings = document.policy.clone().unwrap_or_default();
    let mut rows = vec![
        ("Server", format!("{} in {}", document.server.name, document.server.namespace)),
        ("Revision", told.revision.clone()),
        ("Policy", rule_of(&settings)),
        ("Identity", identity_of(told)),
    ];
    if let Some(published) = &told.published {
        let replicas = published
            .active_replicas
            .map_or_else(String::new, |count| format!(", in force on {count} gateways"));
        let revision = published.revision.clone().unwrap_or_else(|| "nothing yet".to_owned());
        rows.push(("Gateways have", format!("{revision}{replicas}")));
    }
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), safe(&value)]);
    let mut parts = vec![
        render::table(&["", ""], rows),
        tools(told),
        grants(&document.grants),
        sessions(&document.sessions),
    ];
    parts.extend(told.unread.iter().map(|fault| format!("unread: {}", safe(fault))));
    parts.join("\n\n")
}

fn rule_of(settings: &Settings) -> String {
    let mode = settings.mode.map_or("allow-list", |mode| mode.as_str());
    let default = settings.default_decision.map_or("deny", word);
    format!("{mode}, what nobody spoke about: {default}")
}

fn identity_of(told: &Inspected) -> String {
    let document = &told.policy;
    let mode = document
        .auth
        .as_ref()
        .and_then(|auth| auth.mode)
        .map_or("header", |mode| mode.as_str());
    let session = document.session.clone().unwrap_or_default();
    let needs = if session.required {
        "a session is needed"
    } else {
        "no session is needed"
    };
    format!("{mode}, {needs}")
}

fn tools(told: &Inspected) -> String {
    if told.policy.tools.is_empty() {
        return "No tools are declared.".to_owned();
    }
    let rows = told.policy.tools.iter().map(|tool| {
        vec![
            safe(&tool.name),
            tool.required_trust.map_or("low", |trust| trust.as_str()).to_owned(),
            tool.side_effect
                .map_or("unknown: refused", |effect| effect.as_str())
                .to_owned(),
        ]
    });
    render::table(&["TOOL", "TRUST", "SIDE EFFECT"], rows)
}

fn subject(human: &str, agent: &str, team: &str) -> String {
    let parts = [("", human), ("agent ", agent), ("team ", team)];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(what, name)| format!("{what}{name}"))
        .collect();
    if parts.is_empty() {
        "anybody identified".to_owned()
    } else {
        safe(&parts.join(", "))
    }
}

fn rules(rules: &[Rule]) -> String {
    if rules.is_empty() {
        return "every tool".to_owned();
    }
    let written = rules.iter().map(|rule| {
        let sign = if rule.decision == Some(Decision::Deny) { "not " } else { "" };
        let trust = rule
            .required_trust
            .map_or_else(String::new, |trust| format!(" at {}", trust.as_str()));
        format!("{sign}{}{trust}", rule.name)
    });
    safe(&written.collect::<Vec<_>>().join(", "))
}

fn grants(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "No grants: nothing is allowed that the default refuses.".to_owned();
    }
    let rows = grants.iter().map(|grant| {
        let effects: Vec<_> = grant.allowed_side_effects.iter().map(|effect| effect.as_str()).collect();
        let state = if grant.disabled { " (disabled)" } else { "" };
        vec![
            format!("{}{state}", safe(&grant.name)),
            subject(&grant.human_id, &grant.agent_id, &grant.team_id),
            grant.max_trust.map_or("low", |trust| trust.as_str()).to_owned(),
            effects.join(","),
            rules(&grant.tool_rules),
        ]
    });
    render::table(&["GRANT", "FOR", "TRUST", "SIDE EFFECTS", "TOOLS"], rows)
}

fn sessions(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "No sessions.".to_owned();
    }
    let rows = sessions.iter().map(|session| {
        vec![
            safe(&session.name),
            subject(&session.human_id, &session.agent_id, &session.team_id),
            session.consented_trust.map_or("low", |trust| trust.as_str()).to_owned(),
            if session.expires_at.is_empty() {
                "-".to_owned()
            } else {
                safe(&session.expires_at)
            },
            if session.revoked { "revoked" } else { "works until then" }.to_owned(),
        ]
    });
    render::table(&["SESSION", "FOR", "TRUST", "ENDS", "STATE"], rows)
}

/// What a gateway has in force.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InForce {
    pub(super) server: String,
    namespace: String,
    mode: String,
    #[serde(default)]
    revision: Option<String>,
    grants: u64,
    sessions: u64,
}

pub(super) fn in_force(governed: &[InForce]) -> String {
    let rows = governed.iter().map(|one| {
        vec![
            safe(&one.server),
            safe(&one.namespace),
            safe(&one.mode),
            one.grants.to_string(),
            one.sessions.to_string(),
            one.revision.as_deref().map_or_else(|| "no policy".to_owned(), safe),
        ]
    });
    render::table(&["SERVER", "NAMESPACE", "MODE", "GRANTS", "SESSIONS", "REVISION"], rows)
}

/// One row of a table of expectations.
#[derive(Debug, Serialize)]
pub(super) struct Tested {
    name: String,
    pub(super) passed: bool,
    decision: &'static str,
    reason: &'static str,
    mismatches: Vec<String>,
}

impl Tested {
    pub(super) fn of(case: &Case, (verdict, mismatches): &(Verdict, Vec<Mismatch>)) -> Self {
        Self {
            name: case.name.clone(),
            passed: mismatches.is_empty(),
            decision: word(verdict.decision),
            reason: verdict.reason.as_str(),
            mismatches: mismatches.iter().map(ToString::to_string).collect(),
        }
    }
}

pub(super) fn tested(cases: &[Tested]) -> String {
    let rows = cases.iter().map(|case| {
        let told = if case.passed {
            format!("{} {}", case.decision, case.reason)
        } else {
            case.mismatches.join("; ")
        };
        vec![
            if case.passed { "ok" } else { "FAILED" }.to_owned(),
            safe(&case.name),
            safe(&told),
        ]
    });
    let failed = cases.iter().filter(|case| !case.passed).count();
    let table = render::table(&["", "CASE", "DECISION"], rows);
    format!("{table}\n\n{} cases, {failed} failed.", cases.len())
}

/// What a change of policy means.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    pub(super) changes: Vec<Changed>,
    gains: usize,
    losses: usize,
    complete: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Changed {
    caller: String,
    target: String,
    before: Told,
    after: Told,
    is_gain: bool,
}

impl Compared {
    pub(super) fn of(difference: &Difference) -> Self {
        let told = |(decision, reason): (Decision, domain::policy::Reason)| Told {
            decision: word(decision).to_owned(),
            reason: reason.as_str().to_owned(),
        };
        let changes: Vec<_> = difference
            .changes
            .iter()
            .map(|change| Changed {
                caller: change.caller.to_string(),
                target: change.target.clone(),
                before: told(change.before),
                after: told(change.after),
                is_gain: change.is_gain(),
            })
            .collect();
        let gains = changes.iter().filter(|change| change.is_gain).count();
        Self {
            gains,
            losses: changes.len() - gains,
            complete: difference.is_complete,
            changes,
        }
    }
}

pub(super) fn compared(compared: &Compared) -> String {
    if compared.changes.is_empty() {
        return "Nobody gains and nobody loses.".to_owned();
    }
    let rows = compared.changes.iter().take(CHANGES_SHOWN_MAX).map(|change| {
        let (sign, reason) = if change.is_gain {
            ("gains", &change.before.reason)
        } else {
            ("LOSES", &change.after.reason)
        };
        vec![safe(&change.caller), sign.to_owned(), safe(&change.target), reason.clone()]
    });
    let mut out = render::table(&["CALLER", "", "WHAT", "REFUSED FOR"], rows);
    let _ignored = write!(out, "\n\n{} gains, {} losses.", compared.gains, compared.losses);
    if compared.changes.len() > CHANGES_SHOWN_MAX {
        let _ignored = write!(out, " The first {CHANGES_SHOWN_MAX} are shown; -o json has all.");
    }
    if !compared.complete {
        out.push_str(" There are more questions than were asked.");
    }
    out
}
