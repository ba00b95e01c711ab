//! Recognising events that are stored already, exactly and without asking files for the common case.
//!
//! Ids of version 7 grow with time. Every such id above the *floor* that was ever stored is in the window; so one that is above the
//! floor and not in the window is new, and that is nearly every event. The floor rises when the window is full, and starts at the
//! greatest id in any file. Ids at or below the floor, and ids of other versions, are looked for in memory and then in files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use domain::{Event, EventId};

/// What was inserted: positions and ids.
#[derive(Debug)]
pub(super) struct Dedup {
    /// One past the last inserted offset of each partition.
    pub(super) ends: BTreeMap<u32, u64>,
    window: BTreeSet<u128>,
    window_max: usize,
    /// Greatest id that may be stored without being in the window; `None`: there is none.
    floor: Option<u128>,
    active: Ids,
    frozen: Ids,
}

type Ids = HashSet<u128, BuildHasherDefault<Fold>>;

/// Ids are random in half of their bits already.
#[derive(Debug, Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, id: u128) {
        // Multiplying spreads what an unfair sender leaves alike.
        let folded = (id ^ (id >> 64)) & u128::from(u64::MAX);
        self.0 = u64::try_from(folded)
            .unwrap_or(0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

impl Dedup {
    /// Begins with what files tell: positions, and the greatest id of version 7.
    pub(super) fn new(ends: BTreeMap<u32, u64>, floor: Option<EventId>, window_max: usize) -> Self {
        Self {
            ends,
            window: BTreeSet::new(),
            window_max,
            floor: floor.map(|id| id.as_u128()),
            active: Ids::default(),
            frozen: Ids::default(),
        }
    }

    /// Which of the events are new. `in_files` removes from a set the ids that no file has.
    pub(super) fn fresh<'a, E>(
        &self,
        events: impl Iterator<Item = &'a Event> + Clone,
        in_files: impl FnOnce(&HashSet<EventId>) -> Result<HashSet<EventId>, E>,
    ) -> Result<Vec<bool>, E> {
        let count = events.size_hint().0;
        let mut seen = HashSet::with_capacity(count);
        let mut doubtful = HashSet::new();
        let mut fresh = Vec::with_capacity(count);
        for event in events.clone() {
            let id = event.id.as_u128();
            let known = !seen.insert(id) || self.window.contains(&id);
            let above = event.id.made_at_millis().is_some() && self.floor.is_none_or(|floor| id > floor);
            let hot = !known && !above && (self.active.contains(&id) || self.frozen.contains(&id));
            if !known && !above && !hot {
                doubtful.insert(event.id);
            }
            fresh.push(!known && !hot);
        }
        if !doubtful.is_empty() {
            let stored = in_files(&doubtful)?;
            for (fresh, event) in fresh.iter_mut().zip(events) {
                *fresh &= !stored.contains(&event.id);
            }
        }
        Ok(fresh)
    }

    /// The events are stored, in memory.
    pub(super) fn accept(&mut self, ids: impl Iterator<Item = EventId>) {
        for id in ids {
            self.active.insert(id.as_u128());
            if id.made_at_millis().is_some() && self.floor.is_none_or(|floor| id.as_u128() > floor) {
                self.window.insert(id.as_u128());
            }
        }
        while self.window.len() > self.window_max {
            self.floor = self.window.pop_first().max(self.floor);
        }
    }

    /// What is in memory is on its way to files.
    pub(super) fn freeze(&mut self) {
        self.frozen = std::mem::take(&mut self.active);
    }

    /// What was on its way is in files.
    pub(super) fn thaw(&mut self) {
        self.frozen = Ids::default();
    }
}
