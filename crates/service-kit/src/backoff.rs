//! Pauses between attempts: exponential with full jitter, bounded, and over at once when the process stops.

use std::time::Duration;

use crate::random::Random;
use crate::tasks::Shutdown;

/// How pauses grow and when they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Upper bound of the first pause; doubles with each one.
    pub first: Duration,
    /// Upper bound of every pause.
    pub pause_max: Duration,
    /// Number of pauses before giving up; `None` tries until shutdown.
    pub attempts_max: Option<u32>,
}

impl Default for BackoffPolicy {
    /// 100 ms doubling to 20 s, until shutdown. Shorter than the grace period, so that shutdown never waits on it.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            pause_max: Duration::from_secs(20),
            attempts_max: None,
        }
    }
}

/// The pauses of one run of attempts, as an iterator.
///
/// Each is drawn evenly from zero to the current bound ("full jitter"), so that many clients that failed together do not come
/// back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    paused: u32,
    random: Random,
}

/// How a [`Backoff::pause`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pause {
    /// Try again.
    Elapsed,
    /// The process is stopping: leave the loop.
    ShutdownRequested,
    /// There are no attempts left.
    Exhausted,
}

impl Backoff {
    pub fn new(policy: BackoffPolicy) -> Self {
        Self {
            policy,
            paused: 0,
            random: Random::from_process(),
        }
    }

    /// The same pauses for the same seed.
    pub fn seeded(policy: BackoffPolicy, seed: u64) -> Self {
        Self {
            policy,
            paused: 0,
            random: Random::from_seed(seed),
        }
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.paused = 0;
    }

    /// Number of pauses since the start or the last [`reset`](Self::reset).
    pub fn attempts(&self) -> u32 {
        self.paused
    }

    /// Waits for the next pause, or until shutdown.
    pub async fn pause(&mut self, shutdown: &Shutdown) -> Pause {
        if shutdown.is_requested() {
            return Pause::ShutdownRequested;
        }
        let Some(pause) = self.next() else {
            return Pause::Exhausted;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => Pause::Elapsed,
            () = shutdown.requested() => Pause::ShutdownRequested,
        }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.policy.attempts_max.is_some_and(|max| self.paused >= max) {
            return None;
        }
        let doubled = self
            .policy
            .first
            .saturating_mul(1_u32.checked_shl(self.paused).unwrap_or(u32::MAX));
        let bound = doubled.min(self.policy.pause_max);
        self.paused = self.paused.saturating_add(1);
        let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(self.random.next() % bound_ns.saturating_add(1).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, BackoffPolicy, Pause};
    use crate::tasks::{Stage, Tasks};

    fn policy(attempts_max: Option<u32>) -> BackoffPolicy {
        BackoffPolicy {
            first: Duration::from_millis(10),
            pause_max: Duration::from_millis(200),
            attempts_max,
        }
    }

    #[test]
    fn pauses_stay_below_a_doubling_bound() {
        for seed in 0..200 {
            let mut bound = Duration::from_millis(10);
            for pause in Backoff::seeded(policy(None), seed).take(100) {
                assert!(pause <= bound, "{pause:?} over {bound:?}, seed {seed}");
                bound = (bound * 2).min(Duration::from_millis(200));
            }
        }
    }

    #[test]
    fn jitter_uses_the_whole_range() {
        let pauses: Vec<_> = Backoff::seeded(policy(None), 7).skip(10).take(1_000).collect();
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(20)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(180)));
    }

    #[test]
    fn attempts_are_bounded_and_start_over() {
        let mut backoff = Backoff::seeded(policy(Some(3)), 1);
        assert_eq!(backoff.by_ref().count(), 3);
        assert_eq!(backoff.next(), None);
        backoff.reset();
        assert_eq!(backoff.count(), 3);
    }

    #[tokio::test]
    async fn a_pause_ends_at_shutdown() {
        let running = Tasks::for_test();
        let shutdown = running.tasks().shutdown(Stage::Pipeline);
        let hour = Duration::from_hours(1);
        let mut backoff = Backoff::seeded(
            BackoffPolicy {
                first: hour,
                pause_max: hour,
                attempts_max: None,
            },
            3,
        );
        let (pause, _report) = tokio::join!(backoff.pause(&shutdown), running.stop());
        assert_eq!(pause, Pause::ShutdownRequested);
        assert_eq!(backoff.pause(&shutdown).await, Pause::ShutdownRequested);
    }
}
