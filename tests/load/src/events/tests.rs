use std::collections::{BTreeMap, BTreeSet};

use domain::event::{Draft, NamespaceRule, Receipt};
use domain::{Decision, Event};

use super::*;

const END: Timestamp = Timestamp::from_seconds(1_795_000_000);

fn events(seed: u64, count: usize) -> Vec<Event> {
    let lines = Generator::new(seed, Timeline::past(END, 30, count as u64)).lines(count);
    let receipt = Receipt {
        now: END,
        key: None,
        rule: &NamespaceRule::Any,
        trace_id: None,
        age_max: Duration::from_hours(24 * 90),
        ahead_max: Duration::ZERO,
    };
    lines
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let draft = Draft::parse(line).unwrap();
            draft.admit(&receipt, || panic!("every event brings its id")).unwrap()
        })
        .collect()
}

#[test]
fn events_are_accepted_whole() {
    let events = events(7, 2_000);
    assert_eq!(events.len(), 2_000);
    let unknown: Vec<_> = events.iter().filter(|event| !event.payload.attributes.is_empty()).collect();
    assert!(
        unknown.is_empty(),
        "a key that is no column: {:?}",
        unknown[0].payload.attributes
    );
}

#[test]
fn a_seed_gives_the_same_events_again() {
    assert_eq!(events(7, 50), events(7, 50));
    assert_ne!(events(7, 50), events(8, 50));
}

#[test]
fn times_and_ids_grow_over_the_whole_window() {
    let events = events(7, 5_000);
    assert!(events.is_sorted_by_key(|event| event.timestamp));
    assert!(events.is_sorted_by_key(|event| event.id.made_at_millis()));
    assert_eq!(events.iter().map(|event| event.id).collect::<BTreeSet<_>>().len(), 5_000);
    let window = events[4_999].timestamp.since(events[0].timestamp);
    assert!(window > Duration::from_hours(24 * 29), "{window:?}");
}

#[test]
fn shares_are_those_of_the_field() {
    let events = events(7, 20_000);
    let denied = events
        .iter()
        .filter(|event| event.payload.decision == Some(Decision::Deny))
        .count();
    assert!((600..900).contains(&denied), "{denied} of 20000 are denied");
    let mut servers = BTreeMap::<_, usize>::new();
    for event in &events {
        *servers.entry((event.namespace(), event.server())).or_default() += 1;
    }
    assert_eq!(servers.len(), NAMESPACES * SERVERS);
    let most = servers.values().max().unwrap();
    assert!(*most > 20_000 / 15, "the busiest server has {most} of 20000 calls");
}
