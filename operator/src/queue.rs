//! Which servers want a pass. A key is there once, however often it is added, and never runs twice at the same time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::object::Key;

/// Shortest and longest pause before a failed pass is repeated.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_mins(2);

/// The waiting line.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Keys that wait for their time.
    later: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

/// What a pass wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Wait,
    /// A pass after this time, even if nothing changes.
    After(Duration),
    /// The same again: it failed.
    Retry,
}

impl Queue {
    /// Adds keys; those waiting for a later time run now.
    pub fn add(&self, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.state();
        let mut is_changed = false;
        for key in keys {
            state.later.remove(&key);
            if state.queued.insert(key.clone()) {
                // A key that runs now is taken up again when it ends.
                if !state.running.contains(&key) {
                    state.ready.push_back(key);
                }
                is_changed = true;
            }
        }
        drop(state);
        if is_changed {
            self.changed.notify_one();
        }
    }

    /// The next key, which then counts as running. Keys whose time has come are moved up first.
    pub fn take(&self, now: Instant) -> Option<Key> {
        let mut state = self.state();
        let due: Vec<Key> = state
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            state.later.remove(&key);
            if state.queued.insert(key.clone()) && !state.running.contains(&key) {
                state.ready.push_back(key);
            }
        }
        let key = state.ready.pop_front()?;
        state.queued.remove(&key);
        state.running.insert(key.clone());
        Some(key)
    }

    /// Ends the run of a key.
    pub fn finish(&self, key: Key, next: Next, now: Instant) {
        let mut state = self.state();
        state.running.remove(&key);
        let pause = match next {
            Next::Wait => {
                state.failures.remove(&key);
                None
            }
            Next::After(pause) => {
                state.failures.remove(&key);
                Some(pause)
            }
            Next::Retry => {
                let failures = state.failures.entry(key.clone()).or_default();
                let pause = PAUSE_FIRST.saturating_mul(1 << (*failures).min(16)).min(PAUSE_MAX);
                *failures += 1;
                Some(pause)
            }
        };
        if state.queued.contains(&key) {
            state.ready.push_back(key);
        } else if let Some(pause) = pause {
            state.later.insert(key, now + pause);
        }
    }

    /// Resolves when there may be something to take.
    pub async fn changed(&self) {
        let next = self.state().later.values().min().copied();
        match next {
            Some(at) => tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => self.changed.notified().await,
        }
    }

    /// Number of keys that wait for a pass now.
    pub fn waiting(&self) -> usize {
        self.state().queued.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("a", name)
    }

    #[test]
    fn a_key_waits_once_and_never_runs_twice_at_a_time() {
        let (queue, now) = (Queue::default(), Instant::now());
        queue.add([key("x"), key("x"), key("y")]);
        assert_eq!(queue.take(now), Some(key("x")));
        queue.add([key("x")]);
        assert_eq!(queue.take(now), Some(key("y")));
        assert_eq!(queue.take(now), None, "x runs already");
        queue.finish(key("x"), Next::Wait, now);
        assert_eq!(queue.take(now), Some(key("x")), "it changed while it ran");
        queue.finish(key("x"), Next::Wait, now);
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn failures_wait_longer_each_time_and_a_change_cuts_the_wait_short() {
        let (queue, mut now) = (Queue::default(), Instant::now());
        queue.add([key("x")]);
        let mut pause = PAUSE_FIRST;
        for _ in 0..14 {
            assert_eq!(queue.take(now), Some(key("x")));
            queue.finish(key("x"), Next::Retry, now);
            assert_eq!(queue.take(now + pause - Duration::from_millis(1)), None);
            now += pause;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(pause, PAUSE_MAX);
        queue.take(now).unwrap();
        queue.finish(key("x"), Next::Retry, now);
        queue.add([key("x")]);
        assert_eq!(queue.take(now), Some(key("x")));
        queue.finish(key("x"), Next::After(Duration::from_secs(5)), now);
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(now + Duration::from_secs(5)), Some(key("x")));
    }

    #[tokio::test]
    async fn a_key_added_while_nobody_waits_is_not_missed() {
        let queue = Queue::default();
        queue.add([key("x")]);
        queue.changed().await;
        assert_eq!(queue.waiting(), 1);
    }
}
