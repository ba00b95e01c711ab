//! What is remembered between the requests of one legacy session: who the client said it is, which revision was agreed on, and which
//! requests it gave up.
//!
//! Session ids are credentials, so only their hash is kept. Memory is bounded and entries end when idle: each shard has two
//! generations, and when the younger one is full or old the elder one is dropped whole.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Locks are held for one look-up; this many of them make waiting unlikely.
const SHARDS: usize = 16;

/// A session, hashed together with its server: ids of two servers may be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionKey([u8; 16]);

impl SessionKey {
    pub(crate) fn new(namespace: &str, server: &str, id: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        for part in [namespace.as_bytes(), b"/", server.as_bytes(), b"/", id] {
            hasher.update(part);
        }
        let hash = hasher.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self(key)
    }

    /// What events call the session.
    pub(crate) fn text(self) -> String {
        hex::encode(self.0)
    }

    fn shard(self) -> usize {
        usize::from(self.0[0]) % SHARDS
    }
}

/// What a client told when it opened a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionFacts {
    pub(crate) client_name: Option<String>,
    pub(crate) client_version: Option<String>,
    pub(crate) protocol_version: Option<String>,
}

/// The memory of all sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    facts: Generations<SessionKey, Arc<SessionFacts>>,
    cancelled: Generations<(SessionKey, Box<[u8]>), ()>,
    /// Cancellations noted ever. While there are none, nobody needs to look.
    cancels: AtomicU64,
}

impl Sessions {
    /// Remembers up to `sessions_max` sessions, each for `idle` at least and twice that at most.
    pub(crate) fn new(sessions_max: usize, idle: Duration) -> Self {
        Self {
            facts: Generations::new(sessions_max, idle),
            cancelled: Generations::new(sessions_max, idle),
            cancels: AtomicU64::new(0),
        }
    }

    pub(crate) fn opened(&self, key: SessionKey, facts: SessionFacts, now: Duration) {
        self.facts.insert(key.shard(), key, Arc::new(facts), now);
    }

    pub(crate) fn facts(&self, key: SessionKey, now: Duration) -> Option<Arc<SessionFacts>> {
        self.facts.touch(key.shard(), &key, now)
    }

    /// The client gave up a request of the session.
    pub(crate) fn cancel(&self, key: SessionKey, request_id: &[u8], now: Duration) {
        self.cancelled.insert(key.shard(), (key, request_id.into()), (), now);
        self.cancels.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self, key: SessionKey, request_id: &[u8], now: Duration) -> bool {
        self.cancels.load(Ordering::Acquire) > 0 && self.cancelled.touch(key.shard(), &(key, request_id.into()), now).is_some()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.facts.len()
    }
}

#[derive(Debug)]
struct Generations<K, V> {
    shards: [Mutex<Shard<K, V>>; SHARDS],
    /// Most entries of one generation of one shard.
    entries_max: usize,
    idle: Duration,
}

#[derive(Debug)]
struct Shard<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    turned_at: Duration,
}

impl<K: Hash + Eq + Clone, V: Clone> Generations<K, V> {
    fn new(entries_max: usize, idle: Duration) -> Self {
        let shard = |_| {
            Mutex::new(Shard {
                young: HashMap::new(),
                old: HashMap::new(),
                turned_at: Duration::ZERO,
            })
        };
        Self {
            shards: std::array::from_fn(shard),
            entries_max: (entries_max / (2 * SHARDS)).max(1),
            idle,
        }
    }

    fn with_shard<T>(&self, shard: usize, now: Duration, act: impl FnOnce(&mut Shard<K, V>) -> T) -> T {
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if shard.young.len() >= self.entries_max || now.saturating_sub(shard.turned_at) >= self.idle {
            // After two idle periods without a look, the young generation is old as well.
            let all_idle = now.saturating_sub(shard.turned_at) >= 2 * self.idle;
            shard.old = if all_idle {
                HashMap::new()
            } else {
                std::mem::take(&mut shard.young)
            };
            shard.young = HashMap::new();
            shard.turned_at = now;
        }
        act(&mut shard)
    }

    fn insert(&self, shard: usize, key: K, value: V, now: Duration) {
        self.with_shard(shard, now, |shard| {
            shard.old.remove(&key);
            shard.young.insert(key, value);
        });
    }

    fn touch(&self, shard: usize, key: &K, now: Duration) -> Option<V> {
        self.with_shard(shard, now, |shard| {
            if let Some(value) = shard.young.get(key) {
                return Some(value.clone());
            }
            let (key, value) = shard.old.remove_entry(key)?;
            shard.young.insert(key, value.clone());
            Some(value)
        })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard<K, V>>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SessionFacts, SessionKey, Sessions};

    const IDLE: Duration = Duration::from_mins(1);

    fn key(number: u32) -> SessionKey {
        SessionKey::new("acme", "payments", &number.to_be_bytes())
    }

    #[test]
    fn a_million_sessions_take_bounded_room_and_the_newest_is_known() {
        let sessions = Sessions::new(1_024, IDLE);
        for number in 0..1_000_000 {
            sessions.opened(key(number), SessionFacts::default(), Duration::ZERO);
        }
        assert!(sessions.len() <= 1_024 + 16, "{}", sessions.len());
        assert!(sessions.facts(key(999_999), Duration::ZERO).is_some());
        assert!(sessions.facts(key(0), Duration::ZERO).is_none());
    }

    #[test]
    fn a_used_session_stays_and_an_idle_one_ends() {
        let sessions = Sessions::new(1_024, IDLE);
        sessions.opened(key(1), SessionFacts::default(), Duration::ZERO);
        sessions.opened(key(2), SessionFacts::default(), Duration::ZERO);
        for minute in 1..10 {
            assert!(sessions.facts(key(1), IDLE * minute).is_some(), "minute {minute}");
        }
        assert!(sessions.facts(key(2), IDLE * 10).is_none());
    }

    #[test]
    fn a_cancellation_belongs_to_its_session_and_server() {
        let sessions = Sessions::new(1_024, IDLE);
        assert!(!sessions.is_cancelled(key(1), b"7", Duration::ZERO));
        sessions.cancel(key(1), b"7", Duration::ZERO);
        assert!(sessions.is_cancelled(key(1), b"7", Duration::ZERO));
        assert!(!sessions.is_cancelled(key(2), b"7", Duration::ZERO));
        assert!(!sessions.is_cancelled(key(1), b"\"7\"", Duration::ZERO));
        assert_ne!(SessionKey::new("acme", "a", b"x"), SessionKey::new("acme", "b", b"x"));
    }
}
