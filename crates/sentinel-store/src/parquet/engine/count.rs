//! What the rows of a scan add up to, for several groupings in one pass.
//!
//! Texts become numbers once per dictionary, groups are found by those numbers, and only the groups that an answer shows become
//! texts again. Counters of parts are added to one another; sums and sketches do not show in which order. This is our own because
//! the engine's aggregates carry sketches between their two stages as bytes, and read a table once per grouping.
//!
//! Who asks for the busiest groups of too many is still answered exactly, in two passes. The first keeps counts alone, and takes the
//! median off all of them whenever they are too many (the summary of Misra and Gries): what is left of a count is at most as far
//! below the truth as was taken off in all. That tells which groups can be among the busiest, and the second pass counts only those.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use datafusion::error::DataFusionError;
use domain::Timestamp;

use super::rows::Rows;
use super::texts::Texts;
use crate::memory::grouping::{Grouping, REST};
use crate::memory::tally::{Tallies, Tally};
use crate::sketch::{DistinctSketch, LatencySketch};

/// Most keys of a grouping.
const KEYS_MAX: usize = 6;
/// A text that was not looked at yet.
const UNKNOWN: u32 = u32::MAX;
/// A text of no group that is counted.
const STRANGE: u32 = u32::MAX - 1;

/// Counts of one grouping.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    grouping: Grouping,
    /// Groups that are of interest: those with most events.
    most: usize,
    /// Groups beyond which counts are taken off.
    groups_max: usize,
    /// What was taken off counts; 0: they are exact.
    taken_off: u64,
    /// Whether only groups that are known already are counted.
    closed: bool,
    names: Vec<Names>,
    groups: HashMap<Key, u32, BuildHasherDefault<Mix>>,
    keys: Vec<Key>,
    sums: Vec<Sums>,
    /// One per group, when latencies are counted.
    latencies: Vec<LatencySketch>,
    /// As many per group as the grouping counts.
    distincts: Vec<DistinctSketch>,
}

/// A group: its step, and its keys as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    step: i64,
    ids: [u32; KEYS_MAX],
}

/// What is added up. Bytes stop at the greatest number there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    /// Events, allowed, denied, errors, bytes in, bytes out: as the rollups have them.
    pub(super) counts: [u64; 6],
    pub(super) last_seen: i64,
}

impl Sums {
    const NONE: Self = Self {
        counts: [0; 6],
        last_seen: i64::MIN,
    };

    fn add(&mut self, more: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(more.counts) {
            *sum = sum.saturating_add(more);
        }
        self.last_seen = self.last_seen.max(more.last_seen);
    }
}

impl Counter {
    pub(super) fn new(grouping: Grouping, most: u32, groups_max: usize) -> Self {
        debug_assert!(grouping.keys.len() <= KEYS_MAX);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let names = grouping.keys.iter().map(|_| Names::new(grouping.keep.as_deref())).collect();
        Self {
            grouping,
            // Taking off half of the groups must leave those of interest.
            groups_max: groups_max.max(most.saturating_mul(4)),
            most,
            taken_off: 0,
            closed: false,
            names,
            groups: HashMap::default(),
            keys: Vec::new(),
            sums: Vec::new(),
            latencies: Vec::new(),
            distincts: Vec::new(),
        }
    }

    /// Counts the rows of a batch.
    pub(super) fn add(&mut self, rows: &Rows) -> Result<(), DataFusionError> {
        self.bound();
        let columns = self
            .grouping
            .keys
            .iter()
            .map(|key| rows.texts(key.name()))
            .collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<Vec<u32>> = self
            .names
            .iter_mut()
            .zip(columns)
            .map(|(names, texts)| names.of_rows(texts, rows.len()))
            .collect();
        let tools = self.grouping.tools_only.then(|| rows.texts("tool_name")).transpose()?;
        let distincts = self
            .grouping
            .distinct
            .iter()
            .map(|distinct| rows.distinct(*distinct))
            .collect::<Result<Vec<_>, _>>()?;
        let step = self
            .grouping
            .step
            .map(|step| i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1));
        let mut last: Option<(Key, Option<usize>)> = None;
        for row in 0..rows.len() {
            if tools.is_some_and(|tools| tools.place(row).is_none()) {
                continue;
            }
            let time = rows.time(row);
            let key = Key {
                step: step.map_or(0, |step| time - time.rem_euclid(step)),
                ids: std::array::from_fn(|at| ids.get(at).map_or(0, |ids| ids[row])),
            };
            // Files are sorted: the next row is often of the same group.
            let at = match last {
                Some((known, at)) if known == key => at,
                _ => self.group(key),
            };
            last = Some((key, at));
            let Some(at) = at else { continue };
            self.sums[at].add(&rows.sums(row));
            if let Some(latency) = self.latencies.get_mut(at) {
                rows.add_latency(row, latency)?;
            }
            let sketches = self.distincts.iter_mut().skip(at * distincts.len());
            for (values, sketch) in distincts.iter().zip(sketches) {
                values.add(row, sketch)?;
            }
        }
        Ok(())
    }

    fn group(&mut self, key: Key) -> Option<usize> {
        if self.closed {
            return self.groups.get(&key).map(|at| *at as usize);
        }
        let next = self.keys.len();
        let at = *self.groups.entry(key).or_insert(u32::try_from(next).unwrap_or(u32::MAX)) as usize;
        if at == next {
            self.keys.push(key);
            self.sums.push(Sums::NONE);
            if self.taken_off == 0 {
                if self.grouping.latencies {
                    self.latencies.push(LatencySketch::default());
                }
                let sketches = self.distincts.len() + self.grouping.distinct.len();
                self.distincts.resize_with(sketches, DistinctSketch::default);
            }
        }
        Some(at)
    }

    /// Whether counts are exact.
    pub(super) fn is_exact(&self) -> bool {
        self.taken_off == 0
    }

    /// Takes off counts when groups are too many.
    fn bound(&mut self) {
        if self.closed || self.keys.len() <= self.groups_max {
            return;
        }
        self.count_alone();
        let mut events: Vec<u64> = self.sums.iter().map(|sums| sums.counts[0]).collect();
        let middle = events.len() / 2;
        let off = *events.select_nth_unstable(middle).1;
        self.taken_off += off;
        let (keys, sums) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.sums));
        self.groups.clear();
        for (key, mut sums) in keys.into_iter().zip(sums).filter(|(_, sums)| sums.counts[0] > off) {
            sums.counts[0] -= off;
            self.groups.insert(key, u32::try_from(self.keys.len()).unwrap_or(UNKNOWN));
            self.keys.push(key);
            self.sums.push(sums);
        }
    }

    fn count_alone(&mut self) {
        self.latencies = Vec::new();
        self.distincts = Vec::new();
    }

    /// An empty counter of those groups that can be among the busiest. `None`: counts are too much alike to tell.
    pub(super) fn candidates(&self) -> Option<Self> {
        let mut events: Vec<u64> = self.sums.iter().map(|sums| sums.counts[0]).collect();
        let place = self.most.checked_sub(1).filter(|place| *place < events.len())?;
        let least = *events.select_nth_unstable_by(place, |a, b| b.cmp(a)).1;
        if least <= self.taken_off {
            return None;
        }
        let mut possible = Self::new(self.grouping.clone(), u32::MAX, usize::MAX);
        possible.most = self.most;
        for (key, _) in self
            .keys
            .iter()
            .zip(&self.sums)
            .filter(|(_, sums)| sums.counts[0] + self.taken_off >= least)
        {
            let ids = std::array::from_fn(|column| match (possible.names.get_mut(column), self.names.get(column)) {
                (Some(mine), Some(theirs)) => mine.id(theirs.text(key.ids[column])),
                _ => 0,
            });
            possible.group(Key { step: key.step, ids });
        }
        possible.closed = true;
        possible.names.iter_mut().for_each(|names| names.closed = true);
        Some(possible)
    }

    /// Adds what another of the same grouping has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        let ids: Vec<Vec<u32>> = self
            .names
            .iter_mut()
            .zip(&other.names)
            .map(|(mine, theirs)| theirs.texts.iter().map(|text| mine.id(text)).collect())
            .collect();
        let sketches = self.grouping.distinct.len();
        if !other.is_exact() {
            self.count_alone();
        }
        self.taken_off += other.taken_off;
        for (from, key) in other.keys.iter().enumerate() {
            let at = self.group(Key {
                step: key.step,
                ids: std::array::from_fn(|column| ids.get(column).map_or(0, |ids| ids[key.ids[column] as usize])),
            });
            let Some(at) = at else { continue };
            self.sums[at].add(&other.sums[from]);
            if let (Some(mine), Some(theirs)) = (self.latencies.get_mut(at), other.latencies.get(from)) {
                mine.merge(theirs);
            }
            let theirs = other.distincts.iter().skip(from * sketches).take(sketches);
            for (mine, theirs) in self.distincts.iter_mut().skip(at * sketches).zip(theirs) {
                mine.merge(theirs);
            }
        }
        self.bound();
    }

    pub(super) fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// What tells it from counters of other questions; `None` when what it counts is not the question's alone.
    pub(super) fn name(&self) -> Option<String> {
        (!self.closed).then(|| format!("{:?}", self.grouping))
    }

    /// Whether it has counted nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.taken_off == 0 && self.sums.iter().all(|sums| sums.counts[0] == 0)
    }

    pub(super) fn groups(&self) -> usize {
        self.keys.len()
    }

    /// Memory taken, roughly. Looks at every sketch.
    pub(super) fn bytes(&self) -> usize {
        let fixed = size_of::<Key>() * 2 + size_of::<Sums>() + size_of::<u64>();
        let names: usize = self.names.iter().map(Names::bytes).sum();
        let latencies: usize = self.latencies.iter().map(|one| size_of_val(one) + one.heap_bytes()).sum();
        let distincts: usize = self.distincts.iter().map(|one| size_of_val(one) + one.heap_bytes()).sum();
        self.groups.capacity().max(self.keys.len()) * fixed + names + latencies + distincts
    }

    /// Forgets what only counting needs.
    pub(super) fn finish(&mut self) {
        self.names.iter_mut().for_each(|names| names.seen = None);
    }

    /// The counts of the groups of interest: those that have most events, those with as many in order of their keys.
    pub(super) fn into_tallies(mut self) -> Tallies {
        let mut order: Vec<usize> = (0..self.keys.len()).filter(|at| self.sums[*at].counts[0] > 0).collect();
        if order.len() > self.most {
            order.select_nth_unstable_by(self.most, |a, b| self.compare(*a, *b));
            order.truncate(self.most);
        }
        let sketches = self.grouping.distinct.len();
        let mut tallies = Tallies::with_capacity(order.len());
        for at in order {
            let Key { step, ids } = self.keys[at];
            let names = self.names.iter().zip(ids).map(|(names, id)| names.text(id).to_owned());
            let Sums { counts, last_seen } = self.sums[at];
            let [events, allowed, denied, errors, bytes_in, bytes_out] = counts;
            let tally = Tally {
                events,
                allowed,
                denied,
                errors,
                bytes_in,
                bytes_out,
                latency: self.latencies.get_mut(at).map(std::mem::take).unwrap_or_default(),
                distinct: (0..sketches)
                    .map(|sketch| std::mem::take(&mut self.distincts[at * sketches + sketch]))
                    .collect(),
                last_seen: Timestamp::from_nanos(last_seen),
            };
            tallies.insert((Timestamp::from_nanos(step), names.collect()), tally);
        }
        tallies
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let names = |group: usize| self.names.iter().zip(self.keys[group].ids).map(|(names, id)| names.text(id));
        let events = |group: usize| self.sums[group].counts[0];
        events(b).cmp(&events(a)).then_with(|| names(a).cmp(names(b)))
    }
}

/// The texts of one key, numbered.
#[derive(Debug, Clone)]
struct Names {
    ids: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    /// Texts that keep a number of their own.
    keep: Option<HashSet<String>>,
    /// Whether texts without a number get none.
    closed: bool,
    /// Numbers of the texts of the dictionary looked at last.
    seen: Option<(ArrayRef, Vec<u32>)>,
}

impl Names {
    fn new(keep: Option<&[String]>) -> Self {
        Self {
            ids: HashMap::new(),
            texts: Vec::new(),
            keep: keep.map(|keep| keep.iter().cloned().collect()),
            closed: false,
            seen: None,
        }
    }

    fn of_rows(&mut self, texts: &Texts, rows: usize) -> Vec<u32> {
        let mut known = match self.seen.take() {
            Some((source, known)) if Arc::ptr_eq(&source, texts.source()) => known,
            _ => vec![UNKNOWN; texts.len()],
        };
        let absent = self.id("");
        let ids = (0..rows)
            .map(|row| match texts.place(row) {
                None => absent,
                Some(at) => {
                    if known[at] == UNKNOWN {
                        known[at] = self.id(texts.text(at));
                    }
                    known[at]
                }
            })
            .collect();
        self.seen = Some((Arc::clone(texts.source()), known));
        ids
    }

    fn id(&mut self, text: &str) -> u32 {
        let text = match &self.keep {
            Some(keep) if !keep.contains(text) => REST,
            _ => text,
        };
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        if self.closed {
            return STRANGE;
        }
        let (id, text) = (u32::try_from(self.texts.len()).unwrap_or(UNKNOWN), Arc::<str>::from(text));
        self.texts.push(Arc::clone(&text));
        self.ids.insert(text, id);
        id
    }

    fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", |text| text)
    }

    fn bytes(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, |(source, known)| source.len() + known.len() * 4);
        self.texts.iter().map(|text| text.len() + 80).sum::<usize>() + seen
    }
}

/// Keys are small numbers that we gave out ourselves: no stranger chooses them, so mixing need only be quick.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            self.write_u64(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word.cast_unsigned());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
