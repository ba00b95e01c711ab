//! Entry points for fuzzers. Each takes any bytes and panics when a promise of this crate does not hold for them.

use std::time::Duration;

use crate::event::{Draft, NamespaceRule, Receipt, compact};
use crate::policy::{Arguments, Call, Claims, Document, Policy, Presented, Target, explain};
use crate::{Event, EventId, Identity, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

/// One event as posted: both readers agree, and what is admitted survives either encoding.
pub fn event(json: &[u8]) {
    let Ok(draft) = Draft::parse(json) else { return };
    let general: Draft = serde_json::from_slice(json).expect("the general reader takes what the quick one took");
    assert_eq!(draft, general, "both readers see the same event");
    let receipt = Receipt {
        now: NOW,
        key: Some("key"),
        rule: &NamespaceRule::Any,
        trace_id: None,
        age_max: Duration::from_hours(1 << 18),
        ahead_max: Duration::from_hours(1 << 18),
    };
    let Ok(event) = draft.admit(&receipt, || EventId::from_bytes([7; 16])) else {
        return;
    };
    let mut row = Vec::new();
    compact::write(&event, &mut row);
    assert_eq!(compact::read(&row).as_ref(), Ok(&event), "a row gives back its event");
    let text = serde_json::to_vec(&event).expect("an event can be written");
    let back: Event = serde_json::from_slice(&text).expect("an event as written can be read");
    assert_eq!(back, event, "the wire form gives back its event");
}

/// A row of the log: what reads as an event is written alike again.
pub fn row(bytes: &[u8]) {
    let Ok(event) = compact::read(bytes) else { return };
    let mut row = Vec::new();
    compact::write(&event, &mut row);
    assert_eq!(compact::read(&row), Ok(event));
}

/// A policy document: faults stay with their entries, writing changes nothing, and an explanation tells the decision made.
pub fn policy(json: &[u8]) {
    let Ok((mut document, _faults)) = Document::parse(json) else {
        return;
    };
    // It may be without the entries that were at fault.
    document.stamp();
    let (mut again, _faults) = Document::parse(document.to_json().as_bytes()).expect("a document as written can be read");
    again.stamp();
    assert_eq!(again.to_json(), document.to_json());
    let compiled = Policy::compile(&document);
    for call in calls(&document) {
        let verdict = compiled.decide(&call, NOW);
        assert_eq!(explain(&document, &call, NOW).verdict, verdict);
    }
}

/// A few calls that the document has something to say about.
fn calls(document: &Document) -> Vec<Call<'_>> {
    let claims = document.grants.first().map_or(Claims::NOBODY, |grant| Claims {
        human: &grant.human_id,
        agent: &grant.agent_id,
        team: &grant.team_id,
        identity: Identity::Verified,
        scopes: None,
    });
    let tools = document
        .tools
        .iter()
        .map(|tool| tool.name.as_str())
        .chain(["unknown"])
        .take(8);
    tools
        .flat_map(|tool| {
            [Arguments::Json(r#"{"amount":5,"name":"x"}"#), Arguments::Any].map(|arguments| Call {
                arguments,
                claims,
                presented: Presented::Nothing,
                ..Call::of(Target::Tool(tool))
            })
        })
        .collect()
}
