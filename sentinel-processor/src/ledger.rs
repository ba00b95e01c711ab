//! The completeness ledger: producers number their events without gaps, so what is missing or came twice can be told. Pure.

use std::collections::{BTreeMap, HashMap};

/// Producers that are followed; the one silent for longest makes room.
const PRODUCERS_MAX: usize = 1_024;
/// Gaps that are followed per producer; the oldest is counted as lost for good.
const GAPS_MAX: usize = 64;

/// What the numbers of all producers tell.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    producers: HashMap<String, Producer>,
    turn: u64,
    counts: Counts,
}

/// Events that producers numbered, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Numbers skipped that have not come. Goes down again when they come late.
    pub(crate) missing: u64,
    /// Numbers that came again.
    pub(crate) repeated: u64,
}

#[derive(Debug)]
struct Producer {
    /// First number not yet seen.
    next: u64,
    /// Ranges before `next` that were skipped: first number to one past the last.
    gaps: BTreeMap<u64, u64>,
    /// When it was last heard of.
    turn: u64,
}

impl Ledger {
    /// Takes note of one event. Numbers before the first one seen of a producer are not missed: they came before our start.
    pub(crate) fn note(&mut self, producer: &str, seq: u64) {
        self.turn += 1;
        let turn = self.turn;
        let Some(known) = self.producers.get_mut(producer) else {
            self.make_room();
            let new = Producer {
                next: seq.saturating_add(1),
                gaps: BTreeMap::new(),
                turn,
            };
            self.producers.insert(producer.to_owned(), new);
            return;
        };
        known.turn = turn;
        if seq >= known.next {
            if seq > known.next {
                self.counts.missing += seq - known.next;
                known.gaps.insert(known.next, seq);
                // Still missing, but no longer waited for.
                if known.gaps.len() > GAPS_MAX {
                    known.gaps.pop_first();
                }
            }
            known.next = seq.saturating_add(1);
        } else if known.fill(seq) {
            self.counts.missing -= 1;
        } else {
            self.counts.repeated += 1;
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn make_room(&mut self) {
        if self.producers.len() < PRODUCERS_MAX {
            return;
        }
        let silent = self
            .producers
            .iter()
            .min_by_key(|(_, producer)| producer.turn)
            .map(|(name, _)| name.clone());
        if let Some(name) = silent {
            self.producers.remove(&name);
        }
    }
}

impl Producer {
    /// Takes a number out of the gap it lies in.
    fn fill(&mut self, seq: u64) -> bool {
        let Some((&first, &end)) = self.gaps.range(..=seq).next_back() else {
            return false;
        };
        if seq >= end {
            return false;
        }
        self.gaps.remove(&first);
        if first < seq {
            self.gaps.insert(first, seq);
        }
        if seq + 1 < end {
            self.gaps.insert(seq + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn late_events_fill_their_gap_and_repeats_are_told() {
        let mut ledger = Ledger::default();
        for seq in [7, 8, 12, 10] {
            ledger.note("gateway-1", seq);
        }
        assert_eq!(ledger.counts(), Counts { missing: 2, repeated: 0 });
        for seq in [9, 9, 11, 12, 3] {
            ledger.note("gateway-1", seq);
        }
        ledger.note("gateway-2", 100);
        assert_eq!(ledger.counts(), Counts { missing: 0, repeated: 3 });
    }

    #[test]
    fn memory_is_bounded_and_the_silent_go_first() {
        let mut ledger = Ledger::default();
        for producer in 0..5_000 {
            ledger.note("busy", producer);
            ledger.note(&format!("producer-{producer}"), 1);
        }
        assert_eq!(ledger.producers.len(), PRODUCERS_MAX);
        assert_eq!(ledger.producers["busy"].next, 5_000);
        for seq in 0..10_000 {
            ledger.note("holes", seq * 2);
        }
        assert_eq!(ledger.producers["holes"].gaps.len(), GAPS_MAX);
        assert_eq!(ledger.counts().missing, 9_999);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_set(seqs in proptest::collection::vec(0_u64..60, 1..80)) {
            let (mut ledger, mut seen) = (Ledger::default(), BTreeSet::new());
            let first = seqs[0];
            let mut repeated = 0;
            for seq in seqs {
                ledger.note("p", seq);
                // What is before the first one is unknown, and counts as come before.
                if seq < first || !seen.insert(seq) {
                    repeated += 1;
                }
            }
            let last = *seen.last().unwrap();
            let missing = (first..=last).filter(|seq| !seen.contains(seq)).count() as u64;
            prop_assert_eq!(ledger.counts(), Counts { missing, repeated });
        }
    }
}
