//! How often: counts of many callers in fixed memory, without locks.
//!
//! Each count is the time at which its bucket will be full again (the generic cell rate algorithm). A caller has two places in the
//! table, picked by its hash, and the emptier one of them counts: two callers hinder each other only when they share both.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Places in a table; 512 KiB, taken only where a rate is in force.
const PLACES: usize = 1 << 16;

/// Calls in a time, which may also come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub calls: u32,
    pub per: Duration,
}

/// The counts of all callers.
#[derive(Debug)]
pub(crate) struct Rates {
    full_at: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Rates {
    pub(crate) fn new() -> Self {
        Self::with_places(PLACES)
    }

    pub(crate) fn with_places(count: usize) -> Self {
        Self {
            full_at: (0..count).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Uses up one call, or tells how long to wait.
    pub(crate) fn take(&self, who: &impl Hash, rate: Rate, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let per = nanos(rate.per);
        let each = per.checked_div(u64::from(rate.calls)).unwrap_or(u64::MAX);
        let [one, other] = places(self.hasher.hash_one(who), self.full_at.len()).map(|place| &self.full_at[place]);
        loop {
            let (first, second) = (one.load(Ordering::Relaxed), other.load(Ordering::Relaxed));
            let (least, least_at) = if first <= second { (one, first) } else { (other, second) };
            let full_at = least_at.max(now);
            let next = full_at.saturating_add(each);
            if next - now > per {
                return Err(Duration::from_nanos((next - now).saturating_sub(per)));
            }
            if least
                .compare_exchange_weak(least_at, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                one.fetch_max(next, Ordering::Relaxed);
                other.fetch_max(next, Ordering::Relaxed);
                return Ok(());
            }
        }
    }
}

/// How many requests of each caller are being answered.
#[derive(Debug)]
pub(crate) struct InFlight {
    counts: Box<[AtomicU32]>,
    hasher: RandomState,
}

/// One request's place; to be given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place([usize; 2]);

impl InFlight {
    pub(crate) fn new() -> Self {
        Self {
            counts: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn enter(&self, who: &impl Hash, max: u32) -> Option<Place> {
        let place = Place(places(self.hasher.hash_one(who), PLACES));
        let before = place.0.map(|place| self.counts[place].fetch_add(1, Ordering::Relaxed));
        if before[0].min(before[1]) < max {
            return Some(place);
        }
        self.leave(place);
        None
    }

    pub(crate) fn leave(&self, place: Place) {
        for place in place.0 {
            self.counts[place].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Two different places for a hash.
fn places(hash: u64, count: usize) -> [usize; 2] {
    let [a, b, c, d, ..] = hash.to_le_bytes();
    let one = usize::from(u16::from_le_bytes([a, b])) % count;
    let other = usize::from(u16::from_le_bytes([c, d])) % count;
    [one, if one == other { (other + 1) % count } else { other }]
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{InFlight, Rate, Rates};

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rates = Rates::new();
        let rate = Rate {
            calls: 4,
            per: Duration::from_secs(2),
        };
        let start = Duration::from_secs(100);
        let passed = (0..10).filter(|_| rates.take(&"alice", rate, start).is_ok()).count();
        assert_eq!(passed, 4);
        assert_eq!(rates.take(&"alice", rate, start), Err(Duration::from_millis(500)));
        assert_eq!(rates.take(&"bob", rate, start), Ok(()), "another has a count of its own");
        assert_eq!(rates.take(&"alice", rate, start + Duration::from_millis(500)), Ok(()));
        assert!(rates.take(&"alice", rate, start + Duration::from_millis(600)).is_err());
        let later = start + Duration::from_mins(1);
        assert_eq!((0..10).filter(|_| rates.take(&"alice", rate, later).is_ok()).count(), 4);
    }

    #[test]
    fn no_calls_at_all_is_a_rate_too() {
        let none = Rate {
            calls: 0,
            per: Duration::from_secs(1),
        };
        assert!(Rates::new().take(&1, none, Duration::from_secs(9)).is_err());
    }

    #[test]
    fn places_in_flight_are_given_back() {
        let in_flight = InFlight::new();
        let held: Vec<_> = (0..3).filter_map(|_| in_flight.enter(&"alice", 2)).collect();
        assert_eq!(held.len(), 2);
        assert!(in_flight.enter(&"bob", 2).is_some());
        in_flight.leave(held[0]);
        assert!(in_flight.enter(&"alice", 2).is_some());
    }
}
