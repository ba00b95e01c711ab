//! A key's rate: a bucket of tokens, one per event, that fills at the rate and holds one second's worth.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Fills with time. A request takes as many tokens as it has events, if there is any at all: the level may fall below zero, so that
/// a batch larger than the bucket passes, and whoever comes next waits the longer.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let per_second = f64::from(per_second.get());
        Self {
            per_second,
            level: Mutex::new(Level {
                tokens: per_second,
                at: Duration::ZERO,
            }),
        }
    }

    pub(crate) fn has_rate(&self, per_second: NonZeroU32) -> bool {
        // Both are whole numbers below 2^53, which a float holds exactly.
        self.per_second.total_cmp(&f64::from(per_second.get())).is_eq()
    }

    /// Takes tokens, or says how long to wait for the first one. Taking none asks whether there would be any.
    pub(crate) fn take(&self, events: usize, now: Duration) -> Result<(), Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(level.at).as_secs_f64();
        level.tokens = passed.mul_add(self.per_second, level.tokens).min(self.per_second);
        level.at = level.at.max(now);
        if level.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - level.tokens) / self.per_second));
        }
        level.tokens -= count(events);
        Ok(())
    }

    /// Gives tokens back that bought nothing.
    pub(crate) fn give_back(&self, events: usize) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        level.tokens = (level.tokens + count(events)).min(self.per_second);
    }
}

fn count(events: usize) -> f64 {
    f64::from(u32::try_from(events).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: u32) -> Bucket {
        Bucket::new(NonZeroU32::new(per_second).unwrap())
    }

    #[test]
    fn a_batch_larger_than_the_bucket_passes_and_the_next_waits() {
        let bucket = bucket(10);
        assert_eq!(bucket.take(100, Duration::ZERO), Ok(()));
        let wait = bucket.take(1, Duration::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_millis(9_100));
        assert_eq!(bucket.take(1, Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn an_idle_bucket_holds_one_second_only() {
        let bucket = bucket(2);
        let later = Duration::from_hours(1);
        assert_eq!(bucket.take(1, later), Ok(()));
        assert_eq!(bucket.take(1, later), Ok(()));
        assert_eq!(bucket.take(1, later), Err(Duration::from_millis(500)));
    }

    #[test]
    fn what_bought_nothing_comes_back() {
        let bucket = bucket(2);
        assert_eq!(bucket.take(5, Duration::ZERO), Ok(()));
        bucket.give_back(5);
        assert_eq!(bucket.take(1, Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_clock_that_steps_back_adds_nothing() {
        let bucket = bucket(1);
        assert_eq!(bucket.take(1, Duration::from_secs(9)), Ok(()));
        assert!(bucket.take(1, Duration::from_secs(3)).is_err());
        assert!(bucket.take(1, Duration::from_secs(9)).is_err());
    }
}
