use proptest::prelude::*;

use super::super::super::position::record_of;
use super::*;
use crate::contract::event;

const ALL: BatchLimit = BatchLimit {
    events: 1_000,
    bytes: 1 << 20,
};
const AT: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn few(events: usize) -> BatchLimit {
    BatchLimit { events, ..ALL }
}

/// A record of so many events.
fn value(record: i64, count: usize) -> Vec<u8> {
    let number = |line: usize| u64::try_from(record).unwrap() * 100 + line as u64;
    let lines = (0..count).map(|line| serde_json::to_vec(&event(number(line))).unwrap());
    lines.collect::<Vec<_>>().join(&b'\n')
}

fn with(committed: Committed, records: std::ops::Range<i64>, count: usize) -> Partition {
    let mut partition = Partition::new(3, committed);
    for record in records {
        assert_eq!(partition.push(record, AT, &value(record, count), Instant::now()), Jump::None);
    }
    partition
}

fn cut(partition: &mut Partition, limit: BatchLimit) -> Cut {
    match partition.cut(limit, Duration::ZERO, Instant::now()) {
        Step::Cut(cut) => cut,
        other => panic!("{other:?}"),
    }
}

fn ends(cut: &Cut) -> (u64, u64, usize) {
    (cut.span.first, cut.span.end, cut.records.len())
}

#[test]
fn leases_join_and_stop_at_the_limit() {
    let mut partition = with(Committed::default(), 0..2, 5);
    assert_eq!(ends(&cut(&mut partition, few(3))), (0, 3, 3));
    assert_eq!(ends(&cut(&mut partition, few(4))), (3, offset_of(1, 2), 4));
    let last = cut(&mut partition, ALL);
    assert_eq!(ends(&last), (offset_of(1, 2), offset_of(2, 0), 3));
    assert_eq!((last.claim, last.complete_through), (Claim::New, AT.minus(SETTLED)));
    assert!(matches!(partition.cut(ALL, Duration::ZERO, Instant::now()), Step::Empty));
}

#[test]
fn a_lease_may_wait_for_more_until_it_is_full_or_old() {
    let begun = Instant::now();
    let mut partition = Partition::new(0, Committed::default());
    let age = Duration::from_millis(100);
    partition.push(0, AT, &value(0, 2), begun);
    assert!(matches!(partition.cut(few(3), age, begun), Step::Wait(until) if until == begun + age));
    assert!(matches!(partition.cut(few(2), age, begun), Step::Cut(_)), "full");
    partition.push(1, AT, &value(1, 2), begun);
    assert!(matches!(partition.cut(few(3), age, begun + age), Step::Cut(_)), "old");
}

#[test]
fn what_was_handed_out_comes_again_as_it_was() {
    let mut first = with(Committed::default(), 0..4, 5);
    let before: Vec<_> = [few(7), few(2), few(9)].map(|limit| ends(&cut(&mut first, limit))).to_vec();
    let (end, metadata) = first.would_commit(before[0].1);
    let committed = Committed::parse(record_of(end), &metadata);
    // The record the commit names is read again from its beginning.
    let mut second = Partition::new(3, committed);
    assert!(second.wants(few(1)), "a lease of before is read whole");
    second.push(1, AT, &value(1, 5), Instant::now());
    assert_eq!(ends(&cut(&mut second, few(1))), before[1], "whatever the limit now");
    assert!(
        matches!(second.cut(few(1), Duration::ZERO, Instant::now()), Step::Empty),
        "the rest is not read yet"
    );
    for record in 2..4 {
        second.push(record, AT, &value(record, 5), Instant::now());
    }
    let again = cut(&mut second, few(1));
    assert_eq!((ends(&again), again.claim), (before[2], Claim::Known));
    let new = cut(&mut second, ALL);
    assert_eq!((ends(&new), new.claim), ((before[2].1, offset_of(4, 0), 2), Claim::New));
}

#[test]
fn gaps_and_steps_back_are_told() {
    let mut partition = with(Committed::default(), 0..1, 2);
    assert_eq!(partition.push(5, AT, &value(5, 2), Instant::now()), Jump::Lost(4));
    assert_eq!(
        ends(&cut(&mut partition, ALL)),
        (0, offset_of(6, 0), 4),
        "the span covers what is gone"
    );
    assert_eq!(partition.push(2, AT, &value(2, 2), Instant::now()), Jump::Back);
}

#[test]
fn a_claim_of_which_nothing_is_left_is_passed_over() {
    let committed = Committed {
        end: offset_of(2, 0),
        claims: vec![offset_of(3, 0)],
    };
    let mut partition = Partition::new(0, committed);
    assert_eq!(partition.push(7, AT, &value(7, 1), Instant::now()), Jump::Lost(5));
    let next = cut(&mut partition, ALL);
    assert_eq!((ends(&next), next.claim), ((offset_of(3, 0), offset_of(8, 0), 1), Claim::New));
}

#[test]
fn the_rest_of_a_claim_without_events_does_not_hold_up_what_follows() {
    let committed = Committed {
        end: 5,
        claims: vec![offset_of(1, 0)],
    };
    let mut partition = with(committed, 0..1, 5);
    assert!(partition.wants(ALL), "nothing of the claim is left, so more is wanted");
    partition.push(1, AT, &value(1, 2), Instant::now());
    assert_eq!(ends(&cut(&mut partition, ALL)), (offset_of(1, 0), offset_of(2, 0), 2));
}

#[test]
fn what_waits_is_counted_and_beyond_that_reckoned() {
    let mut partition = with(Committed::default(), 0..2, 5);
    assert_eq!(partition.waiting(0), 10);
    assert_eq!(partition.waiting(3), 25, "records like those before");
    cut(&mut partition, few(4));
    assert_eq!(partition.waiting(0), 6);
}

proptest! {
    /// Owners come and go, each reads some leases and commits some: every event is in leases, in order, and a span once seen
    /// is either seen again as it was or is final.
    #[test]
    fn spans_never_overlap_another_way(turns in prop::collection::vec((1..9_usize, 0..5_usize, 0..5_usize), 1..12)) {
        const RECORDS: i64 = 12;
        let mut committed = Committed::default();
        let mut seen: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
        for (limit, leases, commits) in turns {
            let from = record_of(committed.end);
            let mut partition = Partition::new(0, committed.clone());
            for record in from..RECORDS {
                partition.push(record, AT, &value(record, 3), Instant::now());
            }
            let mut at = committed.end;
            let mut cuts = Vec::new();
            for _ in 0..leases {
                let Step::Cut(cut) = partition.cut(few(limit), Duration::ZERO, Instant::now()) else { break };
                prop_assert_eq!(cut.span.first, at, "leases join");
                at = cut.span.end;
                prop_assert_eq!(*seen.entry(cut.span.first).or_insert(at), at, "the same span again");
                cuts.push(cut);
            }
            let end = cuts.iter().take(commits).next_back().map_or(committed.end, |cut| cut.span.end);
            let (end, metadata) = partition.would_commit(end);
            committed = Committed::parse(record_of(end), &metadata);
            prop_assert_eq!(committed.end, end);
        }
    }
}
