//! The completeness ledger: producers number their events without gaps, so what is missing or came twice can be told. Pure.
//!
//! It is a function of the queue: what it was after some offset, and the events from there on, give what it is. So it is kept beside
//! the store together with the offsets it has seen, written before the queue may forget them, and goes on after a restart as if
//! there had been none.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Producers that are followed; the one silent for longest makes room.
const PRODUCERS_MAX: usize = 1_024;
/// Gaps that are followed per producer; the oldest is counted as lost for good.
const GAPS_MAX: usize = 64;
/// Hours that are told apart; older ones are only in the totals.
const HOURS_MAX: usize = 72;

/// What the numbers of all producers tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    producers: HashMap<String, Producer>,
    turn: u64,
    counts: Counts,
    hours: BTreeMap<i64, HourCounts>,
    /// One past the last offset of each partition that was taken note of.
    ends: BTreeMap<u32, u64>,
}

/// Events that producers numbered, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Numbers skipped that have not come. Goes down again when they come late.
    pub(crate) missing: u64,
    /// Numbers that came again.
    pub(crate) repeated: u64,
}

/// The same of the events received in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct HourCounts {
    /// Numbered events that came.
    pub(crate) received: u64,
    /// Numbers skipped in this hour that have not come, whenever they come.
    pub(crate) missing: u64,
    /// Numbers that came again in this hour.
    pub(crate) repeated: u64,
}

/// One numbered event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered<'a> {
    pub(crate) producer: &'a str,
    pub(crate) seq: u64,
    /// When it was received, in hours since the epoch.
    pub(crate) hour: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Producer {
    /// First number not yet seen.
    next: u64,
    /// Ranges before `next` that were skipped, by their first number.
    gaps: BTreeMap<u64, Gap>,
    /// When it was last heard of.
    turn: u64,
}

/// Numbers that were skipped.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Gap {
    /// One past the last.
    end: u64,
    /// The hour in which it was noticed.
    hour: i64,
}

impl Ledger {
    /// Takes note of what a span of a partition brought, or of the part of it that is new.
    pub(crate) fn note_span<'a>(&mut self, partition: u32, end: u64, events: impl Iterator<Item = (u64, Numbered<'a>)>) {
        let known = self.ends.get(&partition).copied().unwrap_or(0);
        for (_, event) in events.filter(|(offset, _)| *offset >= known) {
            self.note(event);
        }
        self.ends.insert(partition, known.max(end));
    }

    /// Takes note of one event. Numbers before the first one seen of a producer are not missed: they came before our start.
    fn note(&mut self, event: Numbered<'_>) {
        self.turn += 1;
        let turn = self.turn;
        self.hour(event.hour).received += 1;
        let Some(known) = self.producers.get_mut(event.producer) else {
            self.make_room();
            let new = Producer {
                next: event.seq.saturating_add(1),
                gaps: BTreeMap::new(),
                turn,
            };
            self.producers.insert(event.producer.to_owned(), new);
            return;
        };
        known.turn = turn;
        if event.seq >= known.next {
            let skipped = event.seq - known.next;
            if skipped > 0 {
                let gap = Gap {
                    end: event.seq,
                    hour: event.hour,
                };
                known.gaps.insert(known.next, gap);
                // Still missing, but no longer waited for.
                if known.gaps.len() > GAPS_MAX {
                    known.gaps.pop_first();
                }
            }
            known.next = event.seq.saturating_add(1);
            self.counts.missing += skipped;
            self.hour(event.hour).missing += skipped;
        } else if let Some(hour) = known.fill(event.seq) {
            self.counts.missing -= 1;
            if let Some(counts) = self.hours.get_mut(&hour) {
                counts.missing -= 1;
            }
        } else {
            self.counts.repeated += 1;
            self.hour(event.hour).repeated += 1;
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Hours since the epoch with what came in each, oldest first.
    pub(crate) fn hours(&self) -> impl Iterator<Item = (i64, HourCounts)> + '_ {
        self.hours.iter().map(|(hour, counts)| (*hour, *counts))
    }

    fn hour(&mut self, hour: i64) -> &mut HourCounts {
        if !self.hours.contains_key(&hour) && self.hours.len() >= HOURS_MAX {
            self.hours.pop_first();
        }
        self.hours.entry(hour).or_default()
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
    /// Takes a number out of the gap it lies in; gives the hour in which that was noticed.
    fn fill(&mut self, seq: u64) -> Option<i64> {
        let (&first, &gap) = self.gaps.range(..=seq).next_back()?;
        if seq >= gap.end {
            return None;
        }
        self.gaps.remove(&first);
        if first < seq {
            self.gaps.insert(first, Gap { end: seq, ..gap });
        }
        if seq + 1 < gap.end {
            self.gaps.insert(seq + 1, gap);
        }
        Some(gap.hour)
    }
}

#[cfg(test)]
mod tests;
