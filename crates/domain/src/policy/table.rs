//! Tables of expected decisions, as people write them for their policies and we for ours.
//!
//! ```yaml
//! at: 2026-11-22T12:00:00Z
//! cases:
//!   - {name: alice reads, human: alice, tool: list_invoices, expect: allow, grant: acme/alice}
//!   - {name: bob does not, human: bob, tool: list_invoices, expect: deny no_matching_grant}
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::call::{Arguments, Call, Claims, Presented, Target};
use super::compile::Policy;
use super::span::parse_duration;
use super::verdict::{ObjectName, Verdict};
use super::words::{Risk, Trust};
use crate::{Identity, Timestamp};

/// A table, and maybe the policy document it is about.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The document; where it is absent, the table is about the one it is run on.
    #[serde(default)]
    pub document: Option<Value>,
    /// The time of cases that name none; the time of the run when absent.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A call, and what is expected of it. What is left out is absent, or not looked at.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Person claimed.
    pub human: String,
    /// Agent claimed.
    pub agent: String,
    /// Team claimed.
    pub team: String,
    /// Whether a token or certificate proves these claims.
    pub verified: bool,
    /// Scopes of the token, separated by blanks.
    pub scopes: Option<String>,
    /// Text of the session header.
    pub session: String,
    /// `namespace/name` of a session proven by certificate.
    pub certified: String,
    /// How long ago the session was last used, such as `2h`.
    pub used_ago: String,
    /// Method, for calls that are about neither tool, prompt nor resource.
    pub method: String,
    /// Tool called.
    pub tool: Option<String>,
    /// Prompt asked for.
    pub prompt: Option<String>,
    /// URI of the resource read.
    pub resource: Option<String>,
    /// Arguments, as a value.
    pub args: Option<Value>,
    /// Arguments, as JSON text.
    pub args_text: String,
    /// Hash of the tool's definition as last listed.
    pub definition: Option<String>,
    /// Whether the question is if a list may show it.
    pub listed: bool,
    /// When the call is made.
    pub at: Option<Timestamp>,
    /// Decision and reason: `allow`, `deny trust_too_low`.
    pub expect: String,
    /// What would have been decided, where the policy observes.
    pub shadow: Option<String>,
    /// `namespace/name` of the grant that decides; empty for none.
    pub grant: Option<String>,
    /// `namespace/name` of the session found; empty for none.
    pub found: Option<String>,
    /// Label of the policy.
    pub version: Option<String>,
    /// Trust the call asks for.
    pub required: Option<Trust>,
    /// Most trust that grants give.
    pub admin: Option<Trust>,
    /// Trust consented to.
    pub consented: Option<Trust>,
    /// Trust that counts.
    pub effective: Option<Trust>,
    /// Rating of the call; empty for none.
    pub risk: Option<String>,
    /// Grants whose rates are charged, separated by blanks.
    pub charges: Option<String>,
}

/// What a case expected and did not get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected:?}, got {got:?}")]
pub struct Mismatch {
    /// Which column of the table.
    pub what: &'static str,
    /// What it says.
    pub expected: String,
    /// What was decided.
    pub got: String,
}

impl Case {
    /// Judges the call, and tells every expectation that is not met.
    pub fn run(&self, policy: &Policy, now: Timestamp) -> (Verdict, Vec<Mismatch>) {
        let now = self.at.unwrap_or(now);
        let arguments = self.args.as_ref().map_or_else(|| self.args_text.clone(), Value::to_string);
        let call = self.call(&arguments, now);
        let verdict = policy.decide(&call, now);
        let mismatches = self.mismatches(&verdict);
        (verdict, mismatches)
    }

    /// The call as the policy sees it.
    pub fn call<'a>(&'a self, arguments: &'a str, now: Timestamp) -> Call<'a> {
        let presented = match self.certified.split_once('/') {
            Some((namespace, name)) => Presented::Certified { namespace, name },
            None if self.session.is_empty() => Presented::Nothing,
            None => Presented::Header(&self.session),
        };
        let target = match (&self.tool, &self.prompt, &self.resource) {
            (Some(tool), ..) => Target::Tool(tool),
            (_, Some(prompt), _) => Target::Prompt(prompt),
            (.., Some(uri)) => Target::Resource(uri),
            _ => Target::of(&self.method, None, None),
        };
        Call {
            target,
            arguments: if self.listed {
                Arguments::Any
            } else {
                Arguments::Json(arguments)
            },
            claims: Claims {
                human: &self.human,
                agent: &self.agent,
                team: &self.team,
                identity: if self.verified {
                    Identity::Verified
                } else {
                    Identity::Asserted
                },
                scopes: self.scopes.as_deref(),
            },
            presented,
            last_used: parse_duration(&self.used_ago).map(|ago: Duration| now.minus(ago)),
            definition: self.definition.as_deref(),
        }
    }

    fn mismatches(&self, verdict: &Verdict) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        let mut compare = |what, expected: &str, got: String| {
            if expected != got {
                mismatches.push(Mismatch {
                    what,
                    expected: expected.to_owned(),
                    got,
                });
            }
        };
        // The reason may be left out, most of all where a call is allowed.
        let told = |expected: &str, decision: &dyn std::fmt::Display, reason: &dyn std::fmt::Display| {
            if expected.contains(' ') {
                format!("{decision} {reason}")
            } else {
                decision.to_string()
            }
        };
        compare("expect", &self.expect, told(&self.expect, &verdict.decision, &verdict.reason));
        if let Some(expected) = &self.shadow {
            let got = verdict
                .shadow
                .map_or_else(String::new, |shadow| told(expected, &shadow.decision, &shadow.reason));
            compare("shadow", expected, got);
        }
        let name = |object: &Option<Arc<ObjectName>>| object.as_ref().map_or_else(String::new, ToString::to_string);
        let charged: Vec<String> = verdict.charges.iter().map(|charge| charge.grant.to_string()).collect();
        for (what, expected, got) in [
            ("grant", &self.grant, name(&verdict.matched_grant)),
            ("found", &self.found, name(&verdict.matched_session)),
            ("version", &self.version, verdict.policy_version.to_string()),
            ("risk", &self.risk, verdict.risk_level.map_or("", Risk::as_str).to_owned()),
            ("charges", &self.charges, charged.join(" ")),
        ] {
            if let Some(expected) = expected {
                compare(what, expected, got);
            }
        }
        for (what, expected, got) in [
            ("required", self.required, verdict.required_trust),
            ("admin", self.admin, verdict.admin_trust),
            ("consented", self.consented, verdict.consented_trust),
            ("effective", self.effective, verdict.effective_trust),
        ] {
            if let Some(expected) = expected {
                compare(what, expected.as_str(), got.map_or("", Trust::as_str).to_owned());
            }
        }
        mismatches
    }
}
