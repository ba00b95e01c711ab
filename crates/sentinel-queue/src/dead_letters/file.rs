//! Dead letters in a journal.
//!
//! Version 1: a first line `mcp-dead-letters 1`, then one change a line: eight hex digits of the CRC32 of the rest, a space, and JSON:
//! `{"put":{…a dead letter…}}`, `{"discard":[…ids…]}` or `{"last_id":n}`. Each change is synced before it counts, so only the last line
//! may be torn, and is cut. When most of the journal is about letters that are gone, it is written anew and replaced as a whole.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::operations::DeadLetter;
use serde::{Deserialize, Serialize};

use super::{BoxFuture, DeadLetterError, DeadLetters, Kept, NewDeadLetter};

const FIRST_LINE: &str = "mcp-dead-letters 1\n";
/// Journals up to this size are never written anew.
const REWRITE_BYTES_MIN: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Put(DeadLetter),
    Discard(Vec<u64>),
    LastId(u64),
}

/// Dead letters in one file. One process at a time.
#[derive(Debug, Clone)]
pub struct FileDeadLetters(Arc<Mutex<Journal>>);

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    /// Length of the sound part. What a failed write left behind it is cut before the next.
    bytes: u64,
    clean: bool,
    kept: Kept,
    bytes_max: u64,
}

impl FileDeadLetters {
    /// Opens or begins a journal whose letters take at most `bytes_max` bytes.
    pub fn open(path: impl Into<PathBuf>, bytes_max: u64) -> Result<Self, DeadLetterError> {
        let path = path.into();
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(fault("creating the folder of", &path))?;
        }
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let file = open.map_err(fault("opening", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DeadLetterError::InUse { path }),
            Err(fs::TryLockError::Error(error)) => return Err(fault("locking", &path)(error)),
        }
        let text = fs::read(&path).map_err(fault("reading", &path))?;
        let (kept, bytes) = read(&path, &text)?;
        let clean = bytes == text.len() as u64;
        let mut journal = Journal {
            path,
            file,
            bytes,
            clean,
            kept,
            bytes_max,
        };
        if bytes == 0 {
            journal.write(FIRST_LINE.as_bytes())?;
            sync_dir(&journal.path).map_err(fault("syncing the folder of", &journal.path))?;
        }
        Ok(Self(Arc::new(Mutex::new(journal))))
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a change off the async threads: it syncs.
    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Journal) -> Result<T, DeadLetterError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, DeadLetterError>> {
        let journal = self.clone();
        Box::pin(async move {
            let task = tokio::task::spawn_blocking(move || change(&mut journal.lock())).await;
            task.map_err(|error| fault("writing", &self.lock().path)(io::Error::other(error)))
                .flatten()
        })
    }
}

/// The letters a journal tells of, and the length of its sound part.
fn read(path: &Path, text: &[u8]) -> Result<(Kept, u64), DeadLetterError> {
    let mut kept = Kept::default();
    if text.is_empty() || (text.len() < FIRST_LINE.len() && FIRST_LINE.as_bytes().starts_with(text)) {
        return Ok((kept, 0));
    }
    let damaged = |at: usize| DeadLetterError::Damaged {
        path: path.to_owned(),
        at: at as u64,
    };
    let mut at = FIRST_LINE.len();
    if !text.starts_with(FIRST_LINE.as_bytes()) {
        return Err(damaged(0));
    }
    for line in text[at..].split_inclusive(|byte| *byte == b'\n') {
        let last = at + line.len() == text.len();
        match parse(line) {
            Some(Change::Put(letter)) => kept.keep(vec![letter]),
            Some(Change::Discard(ids)) => drop(kept.forget(&ids)),
            Some(Change::LastId(id)) => kept.last_id = kept.last_id.max(id),
            None if last => break,
            None => return Err(damaged(at)),
        }
        at += line.len();
    }
    Ok((kept, at as u64))
}

fn parse(line: &[u8]) -> Option<Change> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (crc, json) = line.split_once(' ')?;
    let sound = u32::from_str_radix(crc, 16).ok()? == checksum(json.as_bytes());
    sound.then(|| serde_json::from_str(json).ok()).flatten()
}

fn push(lines: &mut String, change: &Change) -> io::Result<()> {
    let json = serde_json::to_string(change)?;
    writeln!(lines, "{:08x} {json}", checksum(json.as_bytes())).map_err(io::Error::other)
}

/// CRC32 as in zip and gzip. A table-free loop: these lines are few, and the crate for it is optional.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

fn fault(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeadLetterError {
    let path = path.to_owned();
    move |source| DeadLetterError::Io { step, path, source }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

impl Journal {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeadLetterError> {
        self.try_write(bytes).map_err(fault("writing", &self.path))
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        if !self.clean {
            self.file.set_len(self.bytes)?;
        }
        self.clean = false;
        self.file.write_all_at(bytes, self.bytes)?;
        self.file.sync_data()?;
        self.bytes += bytes.len() as u64;
        self.clean = true;
        Ok(())
    }

    fn put(&mut self, letters: Vec<NewDeadLetter>) -> Result<(), DeadLetterError> {
        let letters = self.kept.number(letters, self.bytes_max)?;
        if letters.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for letter in &letters {
            push(&mut lines, &Change::Put(letter.clone())).map_err(fault("writing", &self.path))?;
        }
        self.write(lines.as_bytes())?;
        self.kept.keep(letters);
        Ok(())
    }

    fn discard(&mut self, ids: &[u64]) -> Result<u64, DeadLetterError> {
        let known: Vec<u64> = ids.iter().copied().filter(|id| self.kept.letters.contains_key(id)).collect();
        if known.is_empty() {
            return Ok(0);
        }
        let mut line = String::new();
        push(&mut line, &Change::Discard(known.clone())).map_err(fault("writing", &self.path))?;
        self.write(line.as_bytes())?;
        let forgotten = self.kept.forget(&known);
        if self.bytes > REWRITE_BYTES_MIN.max(self.kept.bytes.saturating_mul(2)) {
            // The journal is right as it is; a shorter one is a kindness that may wait.
            if let Err(error) = self.rewrite() {
                tracing::warn!(%error, path = %self.path.display(), "the journal of dead letters could not be shortened");
            }
        }
        Ok(forgotten)
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut lines = FIRST_LINE.to_owned();
        push(&mut lines, &Change::LastId(self.kept.last_id))?;
        for letter in self.kept.letters.values() {
            push(&mut lines, &Change::Put(letter.clone()))?;
        }
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&new)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        file.try_lock()?;
        fs::rename(&new, &self.path)?;
        (self.file, self.bytes, self.clean) = (file, lines.len() as u64, true);
        sync_dir(&self.path)
    }
}

impl DeadLetters for FileDeadLetters {
    fn put(&self, letters: Vec<NewDeadLetter>) -> BoxFuture<'_, Result<(), DeadLetterError>> {
        self.change(move |journal| journal.put(letters))
    }

    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.lock().kept.list(after, limit))))
    }

    fn show(&self, id: u64) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        Box::pin(std::future::ready(Ok(self.lock().kept.letters.get(&id).cloned())))
    }

    fn discard(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<u64, DeadLetterError>> {
        self.change(move |journal| journal.discard(&ids))
    }

    fn count(&self) -> u64 {
        self.lock().kept.letters.len() as u64
    }
}
