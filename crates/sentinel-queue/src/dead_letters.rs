//! Records that could not be stored: kept, shown, replayed, discarded.
//!
//! Whoever reads a queue puts here what it cannot store, before it commits past it. Few and small, so all of them are held in
//! memory; [`FileDeadLetters`] writes each change to a journal as well.

mod file;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::operations::DeadLetter;
use domain::{Event, Timestamp};

pub use file::FileDeadLetters;

use crate::{AppendError, EventAppender, Remedy};

/// A future behind a pointer: dead letters are rare, and their users many.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A record to be kept. Its id is given by the place that keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// When it was set aside.
    pub set_aside_at: Timestamp,
    /// Partition it came from.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Why: one sentence.
    pub reason: String,
    /// The record as it was.
    pub record: Vec<u8>,
}

/// Where records that cannot be stored are kept.
pub trait DeadLetters: Debug + Send + Sync + 'static {
    /// Keeps records. `Ok`: they survive the loss of this process. A record of the same partition and offset as one that is
    /// kept is that one, and is not kept twice. All or none are kept.
    fn put(&self, letters: Vec<NewDeadLetter>) -> BoxFuture<'_, Result<(), DeadLetterError>>;

    /// At most `limit` of those with an id above `after`, in order of ids.
    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>>;

    /// One of them; `None` when there is none of this id.
    fn show(&self, id: u64) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>>;

    /// Forgets those of these ids, and tells how many there were.
    fn discard(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<u64, DeadLetterError>>;

    /// How many are kept.
    fn count(&self) -> u64;
}

impl<D: DeadLetters + ?Sized> DeadLetters for Arc<D> {
    fn put(&self, letters: Vec<NewDeadLetter>) -> BoxFuture<'_, Result<(), DeadLetterError>> {
        (**self).put(letters)
    }
    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        (**self).list(after, limit)
    }
    fn show(&self, id: u64) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        (**self).show(id)
    }
    fn discard(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<u64, DeadLetterError>> {
        (**self).discard(ids)
    }
    fn count(&self) -> u64 {
        (**self).count()
    }
}

/// Dead letters could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// No room. Nothing is dropped for it: whoever sets aside waits until someone replays or discards.
    #[error("the dead letters take {bytes} of at most {bytes_max} bytes; replay or discard some")]
    Full {
        /// Bytes kept.
        bytes: u64,
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// The disk refuses for now.
    #[error("{step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What was written is not what is there.
    #[error("{} is damaged at byte {at}; restore it from a backup, or move it away to go on without what it holds", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
    },
    /// Another process has it.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

impl DeadLetterError {
    /// What to do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Full { .. } | Self::Io { .. } => Remedy::Retry,
            Self::Damaged { .. } | Self::InUse { .. } => Remedy::Stop,
        }
    }
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Appended to the queue again, and forgotten here.
    pub appended: Vec<u64>,
    /// Still no events: kept, each with the reason.
    pub unreadable: Vec<(u64, String)>,
    /// Ids of which there is none.
    pub unknown: Vec<u64>,
}

/// A replay ended early; what is not yet appended is still kept.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The dead letters fail.
    #[error("reading or forgetting dead letters")]
    DeadLetters(#[from] DeadLetterError),
    /// The queue refuses.
    #[error("appending dead letter {id} to the queue")]
    Append {
        /// Which.
        id: u64,
        /// Why.
        #[source]
        source: AppendError,
    },
}

/// Appends dead letters to the queue again, as after a repair. When it ends between appending and forgetting, the event comes a
/// second time with the next replay, and the store knows its id.
pub async fn replay<A, D>(ids: &[u64], letters: &D, appender: &A) -> Result<Replayed, ReplayError>
where
    A: EventAppender,
    D: DeadLetters + ?Sized,
{
    let mut replayed = Replayed::default();
    for &id in ids {
        let Some(letter) = letters.show(id).await? else {
            replayed.unknown.push(id);
            continue;
        };
        match serde_json::from_str::<Event>(&letter.record) {
            Ok(event) => {
                appender
                    .append(&[event])
                    .await
                    .map_err(|source| ReplayError::Append { id, source })?;
                letters.discard(vec![id]).await?;
                replayed.appended.push(id);
            }
            Err(error) => replayed.unreadable.push((id, error.to_string())),
        }
    }
    Ok(replayed)
}

/// Letters by id, within a bound.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) letters: BTreeMap<u64, DeadLetter>,
    places: BTreeMap<(u32, u64), u64>,
    last_id: u64,
    bytes: u64,
}

/// What keeping one letter costs beyond its texts.
const LETTER_BYTES: u64 = 128;

fn bytes_of(letter: &DeadLetter) -> u64 {
    LETTER_BYTES + letter.reason.len() as u64 + letter.record.len() as u64
}

impl Kept {
    /// The new letters with their ids; not yet kept.
    pub(crate) fn number(&self, letters: Vec<NewDeadLetter>, bytes_max: u64) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let (mut numbered, mut id, mut bytes) = (Vec::<DeadLetter>::new(), self.last_id, self.bytes);
        for new in letters {
            let known = numbered
                .iter()
                .any(|letter| (letter.partition, letter.offset) == (new.partition, new.offset));
            if known || self.places.contains_key(&(new.partition, new.offset)) {
                continue;
            }
            id += 1;
            let letter = DeadLetter {
                id,
                set_aside_at: new.set_aside_at,
                partition: new.partition,
                offset: new.offset,
                reason: new.reason,
                record: String::from_utf8_lossy(&new.record).into_owned(),
            };
            bytes += bytes_of(&letter);
            numbered.push(letter);
        }
        if bytes > bytes_max && !numbered.is_empty() {
            return Err(DeadLetterError::Full {
                bytes: self.bytes,
                bytes_max,
            });
        }
        Ok(numbered)
    }

    pub(crate) fn keep(&mut self, letters: Vec<DeadLetter>) {
        for letter in letters {
            self.last_id = self.last_id.max(letter.id);
            self.bytes += bytes_of(&letter);
            self.places.insert((letter.partition, letter.offset), letter.id);
            self.letters.insert(letter.id, letter);
        }
    }

    /// Forgets the letter of a place in the queue.
    #[cfg(feature = "kafka")]
    pub(crate) fn forget_place(&mut self, partition: u32, offset: u64) {
        if let Some(id) = self.places.get(&(partition, offset)).copied() {
            self.forget(&[id]);
        }
    }

    pub(crate) fn forget(&mut self, ids: &[u64]) -> u64 {
        let mut forgotten = 0;
        for id in ids {
            if let Some(letter) = self.letters.remove(id) {
                self.bytes -= bytes_of(&letter);
                self.places.remove(&(letter.partition, letter.offset));
                forgotten += 1;
            }
        }
        forgotten
    }

    pub(crate) fn list(&self, after: u64, limit: usize) -> Vec<DeadLetter> {
        self.letters
            .range(after.saturating_add(1)..)
            .take(limit)
            .map(|(_, letter)| letter.clone())
            .collect()
    }
}

/// Dead letters in memory, for tests and trials.
#[derive(Debug)]
pub struct MemoryDeadLetters {
    kept: Mutex<Kept>,
    bytes_max: u64,
}

impl MemoryDeadLetters {
    /// A place that keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            kept: Mutex::default(),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeadLetters for MemoryDeadLetters {
    fn put(&self, letters: Vec<NewDeadLetter>) -> BoxFuture<'_, Result<(), DeadLetterError>> {
        let mut kept = self.lock();
        let result = kept.number(letters, self.bytes_max).map(|letters| kept.keep(letters));
        Box::pin(std::future::ready(result))
    }

    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.lock().list(after, limit))))
    }

    fn show(&self, id: u64) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.lock().letters.get(&id).cloned())))
    }

    fn discard(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<u64, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.lock().forget(&ids))))
    }

    fn count(&self) -> u64 {
        self.lock().letters.len() as u64
    }
}

#[cfg(test)]
mod tests;
