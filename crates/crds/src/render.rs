//! The policy document of a server, from the objects that may speak about it.
//!
//! One pure function for the operator and for the standalone reconciler: equal objects give equal bytes, in whatever order they are
//! listed. A grant or session of another namespace counts only where the server's `allowReferencesFrom` names that namespace.

use std::str::FromStr;
use std::time::Duration;

use domain::Timestamp;
use domain::policy::document::{self, Document};

use crate::grant::{McpAccessGrant, McpAccessGrantSpec, PromptRule, ResourceRule, ToolRule, Window};
use crate::object::ServerRef;
use crate::server::{AuthSpec, McpServer, PolicySpec, SessionSpec, ToolSpec};
use crate::session::McpAgentSession;

/// What a document tells beyond the objects.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// Cluster the server runs in.
    pub cluster: &'a str,
    /// The time, for leaving out what ended.
    pub now: Timestamp,
    /// How long what ended is still told, so that callers learn why they are refused.
    pub grace: Duration,
}

/// How an object stands to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// It is about another server.
    Other,
    /// It is about this server and may be.
    Admitted,
    /// It is about this server, from a namespace that the server does not let in.
    Foreign,
}

impl Reference {
    /// How an object in namespace `own` stands to a server.
    pub fn of(server_ref: &ServerRef, own: &str, server: &McpServer) -> Self {
        let home = server.metadata.namespace.as_str();
        if server_ref.name != server.metadata.name.as_str() || server_ref.namespace_from(own) != home {
            Self::Other
        } else if own == home || server.spec.allow_references_from.iter().any(|allowed| allowed == own) {
            Self::Admitted
        } else {
            Self::Foreign
        }
    }
}

/// Renders the document, stamped. Objects about other servers, and those that may not speak about this one, are left out.
pub fn render<'a>(
    server: &McpServer,
    grants: impl IntoIterator<Item = &'a McpAccessGrant>,
    sessions: impl IntoIterator<Item = &'a McpAgentSession>,
    occasion: &Occasion<'_>,
) -> Document {
    let admits = |server_ref: &ServerRef, own: &str| Reference::of(server_ref, own, server) == Reference::Admitted;
    let spec = &server.spec;
    let mut document = Document {
        server: document::Server {
            name: server.metadata.name.to_string(),
            namespace: server.metadata.namespace.to_string(),
            team_id: text(spec.team()),
            cluster: occasion.cluster.to_owned(),
        },
        auth: Some(auth(&spec.auth.clone().unwrap_or_default())),
        policy: Some(policy(&spec.policy.clone().unwrap_or_default())),
        session: Some(session_settings(&spec.session.clone().unwrap_or_default())),
        tools: spec.tools.iter().map(tool).collect(),
        grants: grants
            .into_iter()
            .filter(|object| admits(&object.spec.server_ref, object.metadata.namespace.as_str()))
            .map(grant)
            .collect(),
        sessions: sessions
            .into_iter()
            .filter(|object| admits(&object.spec.server_ref, object.metadata.namespace.as_str()))
            .map(session)
            .collect(),
        ..Document::default()
    };
    document.prune(occasion.now, occasion.grace);
    document.stamp();
    document
}

fn auth(auth: &AuthSpec) -> document::Auth {
    document::Auth {
        mode: word(auth.mode().as_str()),
        human_id_header: auth.human_id_header().to_owned(),
        agent_id_header: auth.agent_id_header().to_owned(),
        team_id_header: auth.team_id_header().to_owned(),
        session_id_header: auth.session_id_header().to_owned(),
        token_header: auth.token_header().to_owned(),
        issuer_url: text(auth.issuer_url.as_deref()),
        audience: text(auth.audience.as_deref()),
        trust_domain: text(auth.trust_domain.as_deref()),
        required_scopes: auth.required_scopes.clone(),
    }
}

fn policy(policy: &PolicySpec) -> document::Settings {
    document::Settings {
        mode: word(policy.mode().as_str()),
        default_decision: word(policy.default_decision().as_str()),
        enforce_on: policy.enforce_on().to_owned(),
        policy_version: policy.policy_version().to_owned(),
        require_identity: policy.require_identity.and_then(|assurance| word(assurance.as_str())),
        resources: policy.resources.and_then(|rule| word(rule.as_str())),
        prompts: policy.prompts.and_then(|rule| word(rule.as_str())),
        tasks: policy.tasks.and_then(|rule| word(rule.as_str())),
        others: policy.others.and_then(|rule| word(rule.as_str())),
        lists: policy.lists.and_then(|lists| word(lists.as_str())),
    }
}

fn session_settings(session: &SessionSpec) -> document::SessionSettings {
    document::SessionSettings {
        required: session.required,
        store: session.store().to_owned(),
        header_name: session.header_name().to_owned(),
        max_lifetime: session.max_lifetime().to_owned(),
        idle_timeout: session.idle_timeout().to_owned(),
        upstream_token_header: session.upstream_token_header().to_owned(),
        verification: word(session.verification().as_str()),
    }
}

fn tool(tool: &ToolSpec) -> document::Tool {
    document::Tool {
        name: tool.name.clone(),
        description: text(tool.description.as_deref()),
        required_trust: word(tool.required_trust().as_str()),
        side_effect: word(tool.side_effect.as_str()),
        risk_level: tool.risk_level.and_then(|risk| word(risk.as_str())),
        labels: tool.labels.clone(),
        pin: text(tool.pin.as_deref()),
        required_scopes: tool.required_scopes.clone(),
    }
}

fn grant(object: &McpAccessGrant) -> document::Grant {
    let spec: &McpAccessGrantSpec = &object.spec;
    document::Grant {
        name: object.metadata.name.to_string(),
        namespace: object.metadata.namespace.to_string(),
        human_id: text(spec.subject.human()),
        agent_id: text(spec.subject.agent()),
        team_id: text(spec.subject.team()),
        max_trust: word(spec.max_trust().as_str()),
        allowed_side_effects: spec
            .allowed_side_effects
            .iter()
            .filter_map(|effect| word(effect.as_str()))
            .collect(),
        policy_version: text(spec.policy_version.as_deref()),
        disabled: spec.disabled,
        tool_rules: spec.tool_rules.iter().map(tool_rule).collect(),
        prompt_rules: spec.prompt_rules.iter().map(prompt_rule).collect(),
        resource_rules: spec.resource_rules.iter().map(resource_rule).collect(),
        valid_from: moment(spec.valid_from),
        valid_until: moment(spec.valid_until),
        windows: spec.windows.iter().map(window).collect(),
        rate: spec.rate.as_ref().map(|rate| document::Rate {
            calls: rate.calls,
            per: rate.per.to_string(),
            by: rate.by.and_then(|scope| word(scope.as_str())),
        }),
    }
}

fn tool_rule(rule: &ToolRule) -> document::Rule {
    document::Rule {
        name: rule.name.clone(),
        decision: word(rule.decision.as_str()),
        required_trust: word(rule.required_trust().as_str()),
        when: text(rule.when.as_deref()),
    }
}

fn prompt_rule(rule: &PromptRule) -> document::Rule {
    document::Rule {
        name: rule.name.clone(),
        decision: word(rule.decision.as_str()),
        required_trust: rule.required_trust.and_then(|trust| word(trust.as_str())),
        when: text(rule.when.as_deref()),
    }
}

fn resource_rule(rule: &ResourceRule) -> document::ResourceRule {
    document::ResourceRule {
        uri: rule.uri.clone(),
        decision: word(rule.decision.as_str()),
        required_trust: rule.required_trust.and_then(|trust| word(trust.as_str())),
    }
}

fn window(window: &Window) -> document::Window {
    document::Window {
        days: window.days.iter().map(ToString::to_string).collect(),
        from: text(window.from.as_deref()),
        to: text(window.to.as_deref()),
        utc_offset: text(window.utc_offset.as_deref()),
    }
}

fn session(object: &McpAgentSession) -> document::Session {
    let spec = &object.spec;
    document::Session {
        name: object.metadata.name.to_string(),
        namespace: object.metadata.namespace.to_string(),
        human_id: text(spec.subject.human()),
        agent_id: text(spec.subject.agent()),
        team_id: text(spec.subject.team()),
        consented_trust: word(spec.consented_trust().as_str()),
        revoked: spec.revoked,
        revoked_at: moment(spec.revoked_at),
        expires_at: moment(spec.expires_at),
        issued_at: moment(object.metadata.created),
        policy_version: text(spec.policy_version.as_deref()),
        upstream_token_ref: spec
            .upstream_token_secret_ref
            .as_ref()
            .map_or_else(String::new, |secret| format!("{}/{}", secret.name, secret.key)),
        token_hash: text(spec.token_hash.as_deref()),
    }
}

/// The document's word for one of ours: both sets are spelt alike, as a test shows.
fn word<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

/// RFC 3339 in UTC; whole seconds, which is nearly always, without a fraction.
fn moment(time: Option<Timestamp>) -> String {
    let text = time.map(|time| time.to_string()).unwrap_or_default();
    text.strip_suffix(".000000000Z")
        .map_or_else(|| text.clone(), |seconds| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests;
