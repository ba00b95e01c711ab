//! Batches on disk, while ingest is away.
//!
//! Each file is one batch exactly as it is sent: compressed newline-delimited JSON. Its name says when it was written and how many
//! events it has: `<unix milliseconds, 13 digits>-<number within this process, 8 digits>-<events>.ndjson.zst`. A file is written under
//! another name, flushed to disk, then renamed, so that a name of this form always stands for a whole batch. Files of an earlier
//! process are sent like our own.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use service_kit::Clock;
use tokio::fs;
use tokio::io::AsyncWriteExt as _;

use super::SpoolConfig;

const SUFFIX: &str = ".ndjson.zst";
const UNFINISHED: &str = "unfinished";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spooled {
    pub(super) path: PathBuf,
    pub(super) events: u64,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    clock: Clock,
    /// Oldest first.
    files: VecDeque<Spooled>,
    bytes: u64,
    written: u64,
}

impl Spool {
    pub(super) async fn open(config: &SpoolConfig, clock: &Clock) -> io::Result<Self> {
        fs::create_dir_all(&config.folder).await?;
        let mut found = Vec::new();
        let mut entries = fs::read_dir(&config.folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(UNFINISHED) {
                // Nobody was told that these events are safe.
                fs::remove_file(&path).await?;
            } else if let Some(events) = events_of(&name) {
                let bytes = entry.metadata().await?.len();
                found.push(Spooled { path, events, bytes });
            }
        }
        found.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(Self {
            folder: config.folder.clone(),
            bytes_max: config.bytes_max,
            clock: clock.clone(),
            bytes: found.iter().map(|file| file.bytes).sum(),
            files: found.into(),
            written: 0,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn events(&self) -> u64 {
        self.files.iter().map(|file| file.events).sum()
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.bytes_max
    }

    pub(super) fn oldest(&self) -> Option<Spooled> {
        self.files.front().cloned()
    }

    /// `Ok`: the batch survives the loss of this process.
    pub(super) async fn store(&mut self, body: &Bytes, events: u64) -> io::Result<()> {
        let bytes = body.len() as u64;
        if self.bytes + bytes > self.bytes_max {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool is full"));
        }
        let millis = self.clock.unix_ns() / 1_000_000;
        let path = self.folder.join(format!("{millis:013}-{:08}-{events}{SUFFIX}", self.written));
        self.written += 1;
        let unfinished = path.with_extension(UNFINISHED);
        write(&unfinished, body).await?;
        fs::rename(&unfinished, &path).await?;
        fs::File::open(&self.folder).await?.sync_all().await?;
        self.bytes += bytes;
        self.files.push_back(Spooled { path, events, bytes });
        Ok(())
    }

    /// Forgets a batch that is settled. If its file cannot be removed, it is sent again by the next process, which does no harm.
    pub(super) async fn remove(&mut self, file: &Spooled) {
        if let Err(error) = fs::remove_file(&file.path).await {
            tracing::warn!(path = %file.path.display(), %error, "removing a delivered batch failed");
        }
        self.files.retain(|kept| kept != file);
        self.bytes = self.bytes.saturating_sub(file.bytes);
    }
}

async fn write(path: &Path, body: &Bytes) -> io::Result<()> {
    let mut file = fs::File::create(path).await?;
    file.write_all(body).await?;
    file.sync_all().await
}

/// How many events a file of that name has; `None` for files that are not ours.
fn events_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use service_kit::Clock;

    use super::{Spool, SpoolConfig};

    #[tokio::test]
    async fn batches_survive_a_restart_in_order_and_unfinished_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = SpoolConfig {
            folder: folder.path().to_owned(),
            bytes_max: 10,
        };
        let clock = Clock::system();
        let mut spool = Spool::open(&config, &clock).await.unwrap();
        spool.store(&Bytes::from_static(b"first"), 3).await.unwrap();
        spool.store(&Bytes::from_static(b"next"), 2).await.unwrap();
        let full = spool.store(&Bytes::from_static(b"more"), 1).await.unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        std::fs::write(folder.path().join("0-0-9.ndjson.unfinished"), b"torn").unwrap();

        let mut spool = Spool::open(&config, &clock).await.unwrap();
        assert_eq!(spool.events(), 5);
        let oldest = spool.oldest().unwrap();
        assert_eq!((oldest.events, std::fs::read(&oldest.path).unwrap()), (3, b"first".to_vec()));
        spool.remove(&oldest).await;
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "the delivered and the unfinished one are gone"
        );
        assert_eq!(spool.oldest().unwrap().events, 2);
    }
}
