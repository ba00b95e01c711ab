//! A document made ready to be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::call::Presented;
use super::condition::{Answer, ArgumentsOnce, Condition};
use super::document::{self, Document};
use super::glob::Glob;
use super::index::Index;
use super::session::{self, Session};
use super::span::{Validity, parse_duration};
use super::verdict::{ObjectName, Subject};
use super::words::{Assurance, AuthMode, KindRule, Lists, Mode, RateScope, Risk, SideEffect, Trust, Verification};
use crate::Decision;

/// The rules of one server, compiled. There is always a policy: [`Policy::unavailable`] where none was read.
#[derive(Debug)]
pub struct Policy {
    pub(super) is_available: bool,
    pub(super) mode: Mode,
    pub(super) auth: AuthMode,
    pub(super) default: Decision,
    pub(super) version: Arc<str>,
    pub(super) revision: Arc<str>,
    pub(super) require: Assurance,
    pub(super) resources: KindRule,
    pub(super) prompts: KindRule,
    pub(super) tasks: KindRule,
    pub(super) others: KindRule,
    pub(super) lists: Lists,
    pub(super) needs_session: bool,
    pub(super) verification: Verification,
    pub(super) idle_max: Option<Duration>,
    pub(super) scopes: Box<[String]>,
    pub(super) home: Box<str>,
    pub(super) tools: HashMap<Box<str>, Tool>,
    pub(super) grants: Vec<Grant>,
    pub(super) sessions: Vec<Session>,
    pub(super) by_hash: HashMap<session::Hash, usize>,
    /// Namespace, then name.
    pub(super) by_name: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    pub(super) index: Index,
}

/// A tool of the server.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) required: Trust,
    pub(super) effect: Option<SideEffect>,
    pub(super) risk: Option<Risk>,
    pub(super) pin: Option<Box<str>>,
    pub(super) scopes: Box<[String]>,
}

/// A grant in force.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) name: Arc<ObjectName>,
    pub(super) subject: Subject,
    pub(super) trust: Trust,
    pub(super) effects: Vec<SideEffect>,
    pub(super) version: Option<Arc<str>>,
    pub(super) validity: Validity,
    pub(super) rules: Vec<Rule>,
    pub(super) rate: Option<Rate>,
}

/// What a grant says about something.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) about: About,
    pub(super) decision: Decision,
    pub(super) required: Trust,
    pub(super) when: Option<When>,
}

/// A condition; `None` when it could not be read, and then nobody can tell whether it holds.
#[derive(Debug)]
pub(super) struct When(Option<Condition>);

impl When {
    fn parse(text: &str) -> Self {
        Self(Condition::parse(text).ok())
    }

    pub(super) fn ask(&self, arguments: &ArgumentsOnce<'_>) -> Answer {
        self.0.as_ref().map_or(Answer::Unclear, |condition| condition.ask(arguments))
    }
}

#[derive(Debug)]
pub(super) enum About {
    Tool(Box<str>),
    Prompt(Glob),
    Resource(Glob),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) calls: u32,
    pub(super) per: Duration,
    pub(super) by: RateScope,
}

impl Policy {
    /// Makes a document ready. Cannot fail: what [`Document::parse`] would have reported counts as a refusal.
    pub fn compile(document: &Document) -> Self {
        let settings = document.policy.clone().unwrap_or_default();
        let session = document.session.clone().unwrap_or_default();
        let auth = document.auth.clone().unwrap_or_default();
        let mut policy = Self {
            is_available: true,
            mode: settings.mode.unwrap_or(Mode::AllowList),
            auth: auth.mode.unwrap_or(AuthMode::Header),
            default: settings.default_decision.unwrap_or(Decision::Deny),
            version: or(&settings.policy_version, "v1").into(),
            revision: if document.revision.is_empty() {
                document.revision_of().into()
            } else {
                document.revision.as_str().into()
            },
            require: settings.require_identity.unwrap_or(Assurance::Asserted),
            resources: settings.resources.unwrap_or(KindRule::Granted),
            prompts: settings.prompts.unwrap_or(KindRule::Granted),
            tasks: settings.tasks.unwrap_or(KindRule::Identified),
            others: settings.others.unwrap_or(KindRule::Identified),
            lists: settings.lists.unwrap_or(Lists::Filtered),
            needs_session: session.required,
            verification: session.verification.unwrap_or(Verification::Token),
            idle_max: parse_duration(&session.idle_timeout),
            scopes: auth.required_scopes.into(),
            home: document.server.namespace.as_str().into(),
            tools: document
                .tools
                .iter()
                .map(|tool| (tool.name.as_str().into(), Tool::new(tool)))
                .collect(),
            grants: document
                .grants
                .iter()
                .filter_map(|grant| Grant::new(grant, &document.server.namespace))
                .collect(),
            sessions: Vec::new(),
            by_hash: HashMap::new(),
            by_name: HashMap::new(),
            index: Index::default(),
        };
        policy.grants.sort_by(|one, other| one.name.cmp(&other.name));
        policy.index.add_grants(&policy.grants);
        let life_max = parse_duration(&session.max_lifetime);
        for session in &document.sessions {
            policy.add_session(Session::new(session, &document.server.namespace, life_max));
        }
        policy
    }

    fn add_session(&mut self, session: Session) {
        let at = self.sessions.len();
        if let Some(hash) = session.hash {
            self.by_hash.insert(hash, at);
        }
        self.by_name
            .entry(session.name.namespace.as_str().into())
            .or_default()
            .insert(session.name.name.as_str().into(), at);
        self.index.add_consent(&session.subject, session.consented);
        self.sessions.push(session);
    }

    /// The policy of a server whose document was never read, or was read too long ago: refuses everything but handshakes.
    pub fn unavailable() -> Self {
        Self {
            is_available: false,
            ..Self::compile(&Document::default())
        }
    }

    pub(super) fn session_named(&self, namespace: &str, name: &str) -> Option<&Session> {
        let at = self.by_name.get(namespace)?.get(name)?;
        self.sessions.get(*at)
    }

    /// The session that a request presents, if it is known: the key under which its last use is remembered.
    pub fn session(&self, presented: &Presented<'_>) -> Option<&Arc<ObjectName>> {
        self.find(presented).map(|(session, _)| &session.name)
    }

    /// Revision of the document; that of an empty one when there is none.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether refusals are enforced.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether lists show only what the caller may use.
    pub const fn filters_lists(&self) -> bool {
        matches!((self.lists, self.mode), (Lists::Filtered, Mode::AllowList))
    }

    /// How many grants and sessions it holds.
    pub const fn size(&self) -> (usize, usize) {
        (self.grants.len(), self.sessions.len())
    }
}

impl Grant {
    /// Whether it must be asked anew for each call: it has times, conditions or a rate.
    pub(super) fn is_loose(&self) -> bool {
        !self.validity.is_always() || self.rate.is_some() || self.rules.iter().any(|rule| rule.when.is_some())
    }
}

impl Tool {
    fn new(tool: &document::Tool) -> Self {
        let required = tool.required_trust.unwrap_or(Trust::Low);
        Self {
            required,
            effect: tool.side_effect,
            risk: tool.risk_level.or_else(|| Risk::rate(tool.side_effect, required)),
            pin: (!tool.pin.is_empty()).then(|| tool.pin.as_str().into()),
            scopes: tool.required_scopes.clone().into(),
        }
    }
}

impl Grant {
    /// `None` when it is not in force.
    pub(super) fn new(grant: &document::Grant, home: &str) -> Option<Self> {
        if grant.disabled {
            return None;
        }
        let named = |rules: &[document::Rule], about: fn(&str) -> About| -> Vec<Rule> {
            let rule = |rule: &document::Rule| Rule {
                about: about(&rule.name),
                decision: rule.decision.unwrap_or(Decision::Allow),
                required: rule.required_trust.unwrap_or(Trust::Low),
                when: (!rule.when.is_empty()).then(|| When::parse(&rule.when)),
            };
            rules.iter().map(rule).collect()
        };
        let mut rules = named(&grant.tool_rules, |name| About::Tool(name.into()));
        rules.extend(named(&grant.prompt_rules, |name| About::Prompt(Glob::over_names(name))));
        rules.extend(grant.resource_rules.iter().map(|rule| Rule {
            about: About::Resource(Glob::over_uris(&rule.uri)),
            decision: rule.decision.unwrap_or(Decision::Allow),
            required: rule.required_trust.unwrap_or(Trust::Low),
            when: None,
        }));
        Some(Self {
            name: Arc::new(ObjectName::new(&grant.namespace, &grant.name, home)),
            subject: Subject::new(&grant.human_id, &grant.agent_id, &grant.team_id),
            trust: grant.max_trust.unwrap_or(Trust::Low),
            effects: grant.allowed_side_effects.clone(),
            version: (!grant.policy_version.is_empty()).then(|| grant.policy_version.as_str().into()),
            validity: Validity::parse(&grant.valid_from, &grant.valid_until, &grant.windows)
                .unwrap_or_else(|_| Validity::never()),
            rules,
            rate: grant.rate.as_ref().and_then(Rate::new),
        })
    }
}

impl Rate {
    fn new(rate: &document::Rate) -> Option<Self> {
        Some(Self {
            calls: rate.calls,
            per: parse_duration(&rate.per)?,
            by: rate.by.unwrap_or(RateScope::Caller),
        })
    }
}

fn or<'a>(text: &'a str, absent: &'a str) -> &'a str {
    if text.trim().is_empty() { absent } else { text }
}
