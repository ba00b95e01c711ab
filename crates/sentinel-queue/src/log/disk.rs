//! What the writer asks of the disk. A seam of its own, so that tests can let each write and sync fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Makes segments.
pub(super) trait Disk: Send + 'static {
    type File: DiskFile;

    /// A new file of this name that begins with `header`, durable with its name when this returns.
    fn create(&mut self, path: &Path, header: &[u8]) -> io::Result<Self::File>;
}

/// A segment being written.
pub(super) trait DiskFile: Send + 'static {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    /// Written under another name first: a file with the final name always has a whole header.
    fn create(&mut self, path: &Path, header: &[u8]) -> io::Result<File> {
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&new)?;
        Write::write_all(&mut file, header)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_dir_of(path)?;
        Ok(file)
    }
}

impl DiskFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)?;
        self.sync_all()
    }
}

/// Makes names in the folder of `path` durable.
pub(super) fn sync_dir_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
