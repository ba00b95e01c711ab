//! Every change to the folder goes through here, so that one place knows how a file comes to stay, and tests can make each step fail.
//!
//! A file is written under a name ending in `.tmp`, synced, renamed, and stays for good once the folder is synced as well.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What unfinished files end in.
pub(super) const UNFINISHED: &str = ".tmp";

const BUFFER_BYTES: usize = 1 << 18;

/// Something that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Write,
    Sync,
    Rename,
    SyncFolder,
    Remove,
}

/// A test's say in whether a step works.
pub(super) type Fault = Arc<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;

/// A folder that we write to.
#[derive(Clone)]
pub(super) struct Disk {
    folder: PathBuf,
    fault: Option<Fault>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Disk {
    pub(super) fn new(folder: PathBuf, fault: Option<Fault>) -> Self {
        Self { folder, fault }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Begins a file that does not count until it is finished.
    pub(super) fn begin(&self, name: &str) -> io::Result<Pending> {
        let path = self.path(name);
        let unfinished = self.path(&format!("{name}{UNFINISHED}"));
        self.check(Step::Create, &path)?;
        let file = File::create(&unfinished)?;
        Ok(Pending {
            disk: self.clone(),
            path,
            unfinished,
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            bytes: 0,
            checked: u64::MAX,
            finished: false,
        })
    }

    /// Makes the names in the folder survive.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.check(Step::SyncFolder, &self.folder)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes a file; one that is gone already is as good.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Step::Remove, path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn check(&self, step: Step, path: &Path) -> io::Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault(step, path))
    }
}

/// A file being written. Dropped unfinished, it is removed.
#[derive(Debug)]
pub(super) struct Pending {
    disk: Disk,
    path: PathBuf,
    unfinished: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    checked: u64,
    finished: bool,
}

impl Pending {
    /// Makes the content survive and gives the file its name; the name survives with [`Disk::sync_folder`]. Tells its size.
    pub(super) fn finish(&mut self) -> io::Result<u64> {
        self.flush()?;
        self.disk.check(Step::Sync, &self.path)?;
        self.file.get_ref().sync_all()?;
        self.disk.check(Step::Rename, &self.path)?;
        fs::rename(&self.unfinished, &self.path)?;
        self.finished = true;
        Ok(self.bytes)
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Once per buffer, roughly: that is when bytes go to the disk.
        if self.bytes / BUFFER_BYTES as u64 != self.checked {
            self.checked = self.bytes / BUFFER_BYTES as u64;
            self.disk.check(Step::Write, &self.path)?;
        }
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.finished && self.disk.remove(&self.unfinished).is_err() {
            tracing::warn!(file = %self.unfinished.display(), "unfinished file left behind; the next start removes it");
        }
    }
}
