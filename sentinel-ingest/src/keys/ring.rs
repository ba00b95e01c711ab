//! The keys that ingest checks senders against.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::Timestamp;
use domain::event::NamespaceRule;
use service_kit::error::Chain;

use super::bucket::Bucket;
use super::file::{Fingerprint, KeyFile, KeyFileError, KeyRecord};
use super::secret::{self, KeyHash};

/// One key, ready to be checked.
#[derive(Debug)]
pub(crate) struct Key {
    record: KeyRecord,
    rule: NamespaceRule,
    bucket: Option<Arc<Bucket>>,
}

impl Key {
    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    pub(crate) fn rule(&self) -> &NamespaceRule {
        &self.rule
    }

    /// Takes the right to send so many events, or says when to come again.
    pub(crate) fn take(&self, events: usize, now: Duration) -> Result<(), Duration> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.take(events, now))
    }

    pub(crate) fn give_back(&self, events: usize) {
        if let Some(bucket) = &self.bucket {
            bucket.give_back(events);
        }
    }
}

/// Why a key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// No key is configured at all.
    NoKeys,
    /// It is none of ours; whether the id exists is not told.
    Unknown,
    /// The secret is right, but the key's time is over.
    Expired,
    /// The secret is right, but the key was revoked.
    Revoked,
}

/// How the keys are, for readiness and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRingState {
    /// Keys in the ring.
    pub keys: usize,
    /// Those of them neither revoked nor expired.
    pub usable: usize,
    /// Why the file could not be taken in, when the last try failed; the ring then holds what it held before.
    pub fault: Option<String>,
}

/// The keys of a file, as last read. Clones share them. Looking up takes no lock.
#[derive(Clone, Debug)]
pub struct KeyRing(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    ring: ArcSwap<Ring>,
    /// What was last tried, and how that failed. The lock also keeps reloads one after another.
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    fingerprint: Option<Fingerprint>,
    fault: Option<String>,
}

#[derive(Debug, Default)]
struct Ring {
    keys: HashMap<String, Arc<Key>>,
}

impl KeyRing {
    /// Reads the file. Where it is missing or wrong the ring is empty and refuses everyone, until a later
    /// [`refresh`](Self::refresh) finds a good one.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let ring = Self(Arc::new(Shared {
            path: path.into(),
            ring: ArcSwap::default(),
            last: Mutex::default(),
        }));
        ring.reload();
        ring
    }

    /// The file the keys come from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the file again if it has changed since the last try. Blocks for the time of a file's reading.
    ///
    /// A missing file means no keys. A file that cannot be read or understood changes nothing: the ring stays as it was, and
    /// [`state`](Self::state) tells the fault.
    pub fn refresh(&self) {
        let fingerprint = Fingerprint::of(&self.0.path).unwrap_or_default();
        let unchanged = {
            let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.fingerprint == fingerprint && last.fault.is_none()
        };
        if !unchanged {
            self.reload();
        }
    }

    /// How the keys are at this moment.
    pub fn state(&self, now: Timestamp) -> KeyRingState {
        let ring = self.0.ring.load();
        KeyRingState {
            keys: ring.keys.len(),
            usable: ring.keys.values().filter(|key| key.record.is_usable(now)).count(),
            fault: self.0.last.lock().unwrap_or_else(PoisonError::into_inner).fault.clone(),
        }
    }

    /// The key that a sender presents.
    pub(crate) fn find(&self, presented: &str, now: Timestamp) -> Result<Arc<Key>, KeyRefusal> {
        let ring = self.0.ring.load();
        if ring.keys.is_empty() {
            return Err(KeyRefusal::NoKeys);
        }
        let key = secret::id_of(presented)
            .and_then(|id| ring.keys.get(id))
            .ok_or(KeyRefusal::Unknown)?;
        if !key.record.hash.matches(&KeyHash::of(presented)) {
            return Err(KeyRefusal::Unknown);
        }
        if key.record.revoked_at.is_some() {
            return Err(KeyRefusal::Revoked);
        }
        if key.record.has_expired(now) {
            return Err(KeyRefusal::Expired);
        }
        Ok(Arc::clone(key))
    }

    fn reload(&self) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: a change in between shows as a difference next time.
        last.fingerprint = Fingerprint::of(&self.0.path).unwrap_or_default();
        match self.read() {
            Ok(ring) => {
                tracing::info!(keys = ring.keys.len(), file = %self.0.path.display(), "ingest keys read");
                self.0.ring.store(Arc::new(ring));
                last.fault = None;
            }
            Err(error) => {
                let fault = Chain(&error).to_string();
                if last.fault.as_ref() != Some(&fault) {
                    tracing::error!(
                        error = fault,
                        "the key file cannot be used; going on with the keys read before"
                    );
                }
                last.fault = Some(fault);
            }
        }
    }

    fn read(&self) -> Result<Ring, KeyFileError> {
        let file = KeyFile::read(&self.0.path)?.unwrap_or_default();
        let before = self.0.ring.load();
        let keys = file.keys.into_iter().map(|record| {
            let rule = record.rule().map_err(|what| KeyFileError::Key {
                path: self.0.path.clone(),
                id: record.id.clone(),
                what,
            })?;
            let known = before.keys.get(&record.id);
            Ok((
                record.id.clone(),
                Arc::new(Key {
                    bucket: bucket(&record, known),
                    record,
                    rule,
                }),
            ))
        });
        Ok(Ring {
            keys: keys.collect::<Result<_, KeyFileError>>()?,
        })
    }
}

/// The bucket of a key that was there before stays, so that touching the file fills nobody's bucket.
fn bucket(record: &KeyRecord, known: Option<&Arc<Key>>) -> Option<Arc<Bucket>> {
    let rate = record.events_per_second_max?;
    let kept = known
        .and_then(|key| key.bucket.clone())
        .filter(|bucket| bucket.has_rate(rate));
    Some(kept.unwrap_or_else(|| Arc::new(Bucket::new(rate))))
}
