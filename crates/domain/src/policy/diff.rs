//! Who gains and who loses when one document takes the place of another.
//!
//! Both are asked the same questions: everybody that a grant or session of either names, and somebody that none names, calls every
//! tool, prompt and resource that either names, and one of each that none names. A pattern stands for one text that it matches.

use std::collections::BTreeSet;

use super::call::{Arguments, Call, Claims, Presented, Target};
use super::compile::Policy;
use super::document::Document;
use super::reason::Reason;
use super::verdict::{ObjectName, Subject, Verdict};
use super::words::AuthMode;
use crate::{Decision, Identity, Timestamp};

/// Most questions asked; some half a second.
const QUESTIONS_MAX: usize = 1_000_000;
/// Stands for whoever and whatever no document names.
const OTHER: &str = "(any other)";

/// What changes from one document to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Calls that are decided otherwise.
    pub changes: Vec<Change>,
    /// Whether all questions were asked.
    pub is_complete: bool,
}

/// A call that is decided otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Who calls.
    pub caller: Prober,
    /// What is called: `tool list_invoices`.
    pub target: String,
    /// What was decided.
    pub before: (Decision, Reason),
    /// What will be.
    pub after: (Decision, Reason),
}

impl Change {
    /// Whether the caller gains by it.
    pub fn is_gain(&self) -> bool {
        self.after.0 == Decision::Allow
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prober {
    /// Somebody without a session.
    Subject(Subject),
    /// The holder of a session.
    Session(ObjectName),
}

impl std::fmt::Display for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Session(name) => write!(f, "session {name}"),
            Self::Subject(subject) => {
                let mut before = "";
                for (what, name) in [("human", &subject.human), ("agent", &subject.agent), ("team", &subject.team)] {
                    if !name.is_empty() {
                        write!(f, "{before}{what} {name}")?;
                        before = ", ";
                    }
                }
                Ok(())
            }
        }
    }
}

/// Compares what two documents decide at a time. Conditions count as they favour the caller.
pub fn diff(before: &Document, after: &Document, now: Timestamp) -> Difference {
    let policies = [Policy::compile(before), Policy::compile(after)];
    let probers = probers(before, after);
    let targets = targets(before, after);
    let mut changes = Vec::new();
    let mut questions = 0;
    for prober in &probers {
        for (kind, name) in &targets {
            questions += 1;
            if questions > QUESTIONS_MAX {
                return Difference {
                    changes,
                    is_complete: false,
                };
            }
            let [before, after] =
                [0, 1].map(|at| told(&policies[at].decide(&question(prober, *kind, name, &policies[at]), now)));
            if before.0 != after.0 {
                changes.push(Change {
                    caller: prober.clone(),
                    target: format!("{kind} {name}"),
                    before,
                    after,
                });
            }
        }
    }
    Difference {
        changes,
        is_complete: true,
    }
}

/// What is decided, or would be where the policy only observes.
fn told(verdict: &Verdict) -> (Decision, Reason) {
    let enforced = (verdict.decision, verdict.reason);
    verdict.shadow.map_or(enforced, |shadow| (shadow.decision, shadow.reason))
}

fn question<'a>(prober: &'a Prober, kind: Named, name: &'a str, policy: &Policy) -> Call<'a> {
    let target = match kind {
        Named::Tool => Target::Tool(name),
        Named::Prompt => Target::Prompt(name),
        Named::Resource => Target::Resource(name),
    };
    let mut call = Call {
        arguments: Arguments::Any,
        ..Call::of(target)
    };
    match prober {
        Prober::Session(session) => {
            call.presented = Presented::Certified {
                namespace: &session.namespace,
                name: &session.name,
            };
        }
        Prober::Subject(subject) => {
            let is_proven = matches!(policy.auth, AuthMode::OAuth | AuthMode::Mtls);
            call.claims = Claims {
                human: &subject.human,
                agent: &subject.agent,
                team: &subject.team,
                identity: if is_proven { Identity::Verified } else { Identity::Asserted },
                scopes: None,
            };
        }
    }
    call
}

fn probers(before: &Document, after: &Document) -> BTreeSet<Prober> {
    let mut probers = BTreeSet::from([Prober::Subject(Subject::new(OTHER, "", ""))]);
    for document in [before, after] {
        let home = &document.server.namespace;
        let grants = document
            .grants
            .iter()
            .map(|grant| Subject::new(&grant.human_id, &grant.agent_id, &grant.team_id));
        probers.extend(grants.filter(|subject| *subject != Subject::default()).map(Prober::Subject));
        let names = document
            .sessions
            .iter()
            .map(|session| ObjectName::new(&session.namespace, &session.name, home));
        probers.extend(names.map(Prober::Session));
    }
    probers
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Tool,
    Prompt,
    Resource,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
        })
    }
}

fn targets(before: &Document, after: &Document) -> BTreeSet<(Named, String)> {
    let mut targets: BTreeSet<_> = [Named::Tool, Named::Prompt, Named::Resource]
        .map(|kind| (kind, OTHER.to_owned()))
        .into();
    let sample = |pattern: &str| pattern.replace("**", "x").replace(['*', '?'], "x");
    for document in [before, after] {
        targets.extend(document.tools.iter().map(|tool| (Named::Tool, tool.name.clone())));
        for grant in &document.grants {
            targets.extend(grant.tool_rules.iter().map(|rule| (Named::Tool, rule.name.clone())));
            targets.extend(grant.prompt_rules.iter().map(|rule| (Named::Prompt, sample(&rule.name))));
            targets.extend(grant.resource_rules.iter().map(|rule| (Named::Resource, sample(&rule.uri))));
        }
    }
    targets
}
