//! A policy of any number of grants and sessions, of which one is the caller's.

use domain::policy::document::{Grant, Rule, Server, Session, Settings, Tool};
use domain::policy::{Document, Mode, SideEffect, Trust, token_hash};

/// What every call presents.
pub(super) const CREDENTIAL: &str = "mcps_load_0123456789abcdef0123456789abcdef";

/// The policy as JSON. Each grant is for one person, and each session is of one.
pub(super) fn document(entries: usize) -> String {
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        side_effect: Some(SideEffect::Read),
        ..Tool::default()
    };
    let human = |number: usize| format!("person-{number}");
    let grant = |number: usize| Grant {
        name: format!("grant-{number}"),
        human_id: human(number),
        max_trust: Some(Trust::High),
        allowed_side_effects: vec![SideEffect::Read],
        tool_rules: ["echo", "ticks", "large"]
            .map(|name| Rule {
                name: name.to_owned(),
                ..Rule::default()
            })
            .into(),
        ..Grant::default()
    };
    let session = |number: usize| Session {
        name: format!("session-{number}"),
        human_id: human(number),
        agent_id: "agent".to_owned(),
        consented_trust: Some(Trust::High),
        token_hash: token_hash(&if number == 0 {
            CREDENTIAL.to_owned()
        } else {
            format!("mcps_load_{number}")
        }),
        ..Session::default()
    };
    let mut document = Document {
        server: Server {
            name: "load".to_owned(),
            namespace: "default".to_owned(),
            ..Server::default()
        },
        policy: Some(Settings {
            mode: Some(Mode::AllowList),
            ..Settings::default()
        }),
        tools: ["echo", "ticks", "large"].map(tool).into(),
        grants: (0..entries).map(grant).collect(),
        sessions: (0..entries).map(session).collect(),
        ..Document::default()
    };
    document.stamp();
    document.to_json()
}
