//! Making and ending keys.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use domain::Timestamp;
use domain::operations::{KeyView, NewKey};
use service_kit::Clock;

use super::file::{self, KEYS_MAX, KeyFile, KeyFileError, KeyRecord};
use super::secret::{self, KeyHash};

/// Longest note, in bytes.
const NOTE_BYTES_MAX: usize = 256;

/// The writing side of a key file. Every call blocks for the time of reading and replacing a small file, and waits for other
/// writers; call it where that is fine. Several processes may write at once: each change is made on what the one before left.
#[derive(Clone, Debug)]
pub struct KeyStore {
    path: PathBuf,
    clock: Clock,
}

/// The key to make.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NewKeyRequest {
    /// The namespace it may write; `*`, written out, for all.
    pub namespace: String,
    /// The one server it may write.
    pub server: Option<String>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Events per second it may send.
    pub events_per_second_max: Option<NonZeroU32>,
    /// What it is for.
    pub note: String,
}

/// A change of keys that was not made.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error("locking the key file {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    #[error("there is no key {0}")]
    NotFound(String),
    #[error("key {0} was revoked or has expired; make a new one instead")]
    Ended(String),
    #[error("{0}")]
    Request(&'static str),
    #[error("the key file holds {KEYS_MAX} keys, and no more fit")]
    Full,
    #[error("getting random bytes from the system")]
    Random(#[from] getrandom::Error),
}

impl KeyStore {
    /// The keys of a file, which the first change makes if it is missing.
    pub fn new(path: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            path: path.into(),
            clock,
        }
    }

    /// Makes a key. `Ok`: it is in the file for good, and the answer is the only place where its secret is ever seen.
    pub fn create(&self, request: NewKeyRequest) -> Result<NewKey, KeyStoreError> {
        file::rule(&request.namespace, request.server.as_deref()).map_err(KeyStoreError::Request)?;
        if request.note.len() > NOTE_BYTES_MAX || request.note.chars().any(char::is_control) {
            return Err(KeyStoreError::Request("a note is one line of at most 256 bytes"));
        }
        let now = self.now();
        if request.expires_at.is_some_and(|end| end <= now) {
            return Err(KeyStoreError::Request("the key would have expired before it is made"));
        }
        self.change(|keys| {
            let (id, key) = unused(keys)?;
            let record = KeyRecord {
                id,
                hash: KeyHash::of(&key),
                namespace: request.namespace,
                server: request.server,
                created_at: now,
                expires_at: request.expires_at,
                revoked_at: None,
                events_per_second_max: request.events_per_second_max,
                note: request.note,
            };
            add(keys, record, key)
        })
    }

    /// Every key of the file, in the order of making; none when there is no file.
    pub fn list(&self) -> Result<Vec<KeyView>, KeyStoreError> {
        let file = KeyFile::read(&self.path)?.unwrap_or_default();
        Ok(file.keys.iter().map(KeyRecord::view).collect())
    }

    /// Ends a key now. Revoking it again changes nothing.
    pub fn revoke(&self, id: &str) -> Result<KeyView, KeyStoreError> {
        let now = self.now();
        self.change(|keys| {
            let record = find(keys, id)?;
            record.revoked_at.get_or_insert(now);
            Ok(record.view())
        })
    }

    /// Makes a key with the same rights, and ends the old one after `overlap`, in which both work.
    pub fn rotate(&self, id: &str, overlap: Duration) -> Result<NewKey, KeyStoreError> {
        let now = self.now();
        self.change(|keys| {
            let (new_id, key) = unused(keys)?;
            let old = find(keys, id)?;
            if !old.is_usable(now) {
                return Err(KeyStoreError::Ended(id.to_owned()));
            }
            let end = now.plus(overlap);
            let record = KeyRecord {
                id: new_id,
                hash: KeyHash::of(&key),
                created_at: now,
                ..old.clone()
            };
            old.expires_at = Some(old.expires_at.map_or(end, |earlier| earlier.min(end)));
            add(keys, record, key)
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.unix_ns())
    }

    /// Reads, changes and replaces the file with nobody between. A change that fails leaves the file as it is.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, KeyStoreError>) -> Result<T, KeyStoreError> {
        let _lock = self.lock().map_err(|error| KeyStoreError::Lock(self.path.clone(), error))?;
        let mut keys = KeyFile::read(&self.path)?.unwrap_or_default().keys;
        let outcome = change(&mut keys)?;
        KeyFile::new(keys).write(&self.path)?;
        Ok(outcome)
    }

    /// The lock lies beside the file, for the file itself is replaced. It ends with the process that holds it.
    fn lock(&self) -> io::Result<File> {
        std::fs::create_dir_all(file::folder(&self.path))?;
        let mut options = OpenOptions::new();
        let lock = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(file::beside(&self.path, ".lock"))?;
        lock.lock()?;
        Ok(lock)
    }
}

fn find<'a>(keys: &'a mut [KeyRecord], id: &str) -> Result<&'a mut KeyRecord, KeyStoreError> {
    keys.iter_mut()
        .find(|key| key.id == id)
        .ok_or_else(|| KeyStoreError::NotFound(id.to_owned()))
}

/// A fresh key whose id nobody has.
fn unused(keys: &[KeyRecord]) -> Result<(String, String), KeyStoreError> {
    loop {
        let (id, key) = secret::fresh()?;
        if keys.iter().all(|known| known.id != id) {
            return Ok((id, key));
        }
    }
}

fn add(keys: &mut Vec<KeyRecord>, record: KeyRecord, key: String) -> Result<NewKey, KeyStoreError> {
    if keys.len() >= KEYS_MAX {
        return Err(KeyStoreError::Full);
    }
    let view = record.view();
    keys.push(record);
    Ok(NewKey { view, key })
}
