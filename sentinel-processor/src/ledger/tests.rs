use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn note(ledger: &mut Ledger, producer: &str, seq: u64) {
    ledger.note(Numbered {
        producer,
        seq,
        hour: i64::try_from(seq / 10).unwrap(),
    });
}

#[test]
fn late_events_fill_their_gap_and_repeats_are_told() {
    let mut ledger = Ledger::default();
    for seq in [7, 8, 12, 10] {
        note(&mut ledger, "gateway-1", seq);
    }
    assert_eq!(ledger.counts(), Counts { missing: 2, repeated: 0 });
    for seq in [9, 9, 11, 12, 3] {
        note(&mut ledger, "gateway-1", seq);
    }
    note(&mut ledger, "gateway-2", 100);
    assert_eq!(ledger.counts(), Counts { missing: 0, repeated: 3 });
    let hour = |received, missing, repeated| HourCounts {
        received,
        missing,
        repeated,
    };
    let told: Vec<_> = ledger.hours().collect();
    assert_eq!(told, [(0, hour(5, 0, 2)), (1, hour(4, 0, 1)), (10, hour(1, 0, 0))]);
}

#[test]
fn memory_is_bounded_and_the_silent_go_first() {
    let mut ledger = Ledger::default();
    for producer in 0..5_000 {
        note(&mut ledger, "busy", producer);
        note(&mut ledger, &format!("producer-{producer}"), 1);
    }
    assert_eq!(ledger.producers.len(), PRODUCERS_MAX);
    assert_eq!(ledger.producers["busy"].next, 5_000);
    for seq in 0..10_000 {
        note(&mut ledger, "holes", seq * 2);
    }
    assert_eq!(ledger.producers["holes"].gaps.len(), GAPS_MAX);
    assert_eq!(ledger.counts().missing, 9_999);
    assert_eq!(ledger.hours().count(), HOURS_MAX);
}

proptest! {
    #[test]
    fn counts_are_those_of_a_set(seqs in proptest::collection::vec(0_u64..60, 1..80)) {
        let (mut ledger, mut seen) = (Ledger::default(), BTreeSet::new());
        let first = seqs[0];
        let mut repeated = 0;
        for seq in seqs {
            note(&mut ledger, "p", seq);
            // What is before the first one is unknown, and counts as come before.
            if seq < first || !seen.insert(seq) {
                repeated += 1;
            }
        }
        let last = *seen.last().unwrap();
        let missing = (first..=last).filter(|seq| !seen.contains(seq)).count() as u64;
        prop_assert_eq!(ledger.counts(), Counts { missing, repeated });
        let hours = ledger.hours().fold((0, 0), |(missing, repeated), (_, hour)| (missing + hour.missing, repeated + hour.repeated));
        prop_assert_eq!(hours, (missing, repeated));
    }

    /// Lost at any moment, read back as last kept, and given the queue again from there or from before.
    #[test]
    fn a_restart_does_not_show(seqs in proptest::collection::vec(0_u64..60, 1..80), kept in 0_usize..80, lost in 0_usize..80, again in 0_usize..80) {
        let (lost, kept) = (lost.min(seqs.len()), kept.min(lost).min(seqs.len()));
        let again = again.min(kept);
        let span = |ledger: &mut Ledger, from: usize, to: usize| {
            let events = (from..to).map(|at| (at as u64, Numbered { producer: "p", seq: seqs[at], hour: 0 }));
            ledger.note_span(0, to as u64, events);
        };
        let mut whole = Ledger::default();
        span(&mut whole, 0, seqs.len());
        let mut before = Ledger::default();
        span(&mut before, 0, kept);
        let file = serde_json::to_vec(&before).unwrap();
        span(&mut before, kept, lost);
        let mut after: Ledger = serde_json::from_slice(&file).unwrap();
        span(&mut after, again, seqs.len());
        prop_assert_eq!(after.counts(), whole.counts());
        prop_assert_eq!(after.hours().collect::<Vec<_>>(), whole.hours().collect::<Vec<_>>());
    }
}
