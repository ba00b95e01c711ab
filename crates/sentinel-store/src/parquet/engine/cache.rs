//! What files that no longer change add up to, remembered within a bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::count::Counter;

/// Counters by the question and the files they are of; the one not asked for longest makes room.
#[derive(Debug)]
pub(super) struct Cache {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    counters: HashMap<String, Entry>,
    bytes: usize,
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    counter: Arc<Counter>,
    bytes: usize,
    turn: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            kept: Mutex::default(),
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Counter>> {
        let mut kept = self.kept();
        kept.turn += 1;
        let turn = kept.turn;
        let entry = kept.counters.get_mut(name)?;
        entry.turn = turn;
        Some(Arc::clone(&entry.counter))
    }

    /// Remembers a counter, unless it alone would take much of the room.
    pub(super) fn keep(&self, name: String, counter: &Arc<Counter>) {
        let bytes = counter.bytes() + name.len();
        if bytes > self.bytes_max / 4 {
            return;
        }
        let mut kept = self.kept();
        kept.turn += 1;
        let entry = Entry {
            counter: Arc::clone(counter),
            bytes,
            turn: kept.turn,
        };
        kept.bytes += bytes;
        if let Some(before) = kept.counters.insert(name, entry) {
            kept.bytes -= before.bytes;
        }
        while kept.bytes > self.bytes_max {
            let Some(oldest) = kept
                .counters
                .iter()
                .min_by_key(|(_, entry)| entry.turn)
                .map(|(name, _)| name.clone())
            else {
                return;
            };
            let gone = kept.counters.remove(&oldest).map_or(0, |entry| entry.bytes);
            kept.bytes -= gone;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
