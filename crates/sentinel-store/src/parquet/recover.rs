//! Opening a folder: the newest manifest that can be trusted, the files it names, and away with what was never committed.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, UNFINISHED};
use super::files::{DataFile, Origin, origin_of};
use super::manifest::{self, Manifest, ManifestError};

const LOCK: &str = "lock";

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("opening the event database in {}", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the event database in {} is in use by another process; stop it, or open the folder read-only", .0.display())]
    InUse(PathBuf),
    /// The manifest cannot be read.
    #[error("reading the manifest of the event database; restore the folder from a copy, or move it away to begin empty")]
    Manifest(#[source] ManifestError),
    /// The newest manifest is damaged, and going back to the one before would forget rows.
    #[error(
        "the newest manifest ({}) is damaged, and {} is not in the one before it; restore the manifest from a copy of the \
         folder, or delete both to go back to what was stored before them",
        manifest.display(), file.display()
    )]
    Lost {
        /// The damaged manifest.
        manifest: PathBuf,
        /// A file that only it knew.
        file: PathBuf,
    },
    /// A thread could not be started.
    #[error("starting a thread of the event database")]
    Thread(#[source] io::Error),
}

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) manifest: Manifest,
    pub(super) files: Vec<Arc<DataFile>>,
}

/// Takes the folder for this process, making it when needed. The folder is free again when the file is dropped.
pub(super) fn lock(folder: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Folder {
        folder: folder.to_owned(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Reads the manifest and looks at the files it names.
pub(super) fn read(disk: &Disk) -> Result<Recovered, OpenError> {
    let names = names(disk)?;
    let manifest = newest(disk, &names)?;
    let files: Vec<_> = manifest
        .files
        .iter()
        .map(|entry| Arc::new(DataFile::new(entry.clone(), disk)))
        .collect();
    for file in &files {
        match fs::metadata(&file.path) {
            Ok(found) if found.len() == file.entry.bytes => {}
            Ok(found) => file.mark(&format!("has {} bytes instead of {}", found.len(), file.entry.bytes)),
            Err(error) => file.mark(&format!("cannot be read ({error})")),
        }
    }
    Ok(Recovered { manifest, files })
}

/// Removes what was never committed: unfinished files, rows whose commit did not happen, manifests long replaced.
pub(super) fn clean(disk: &Disk, manifest: &Manifest) -> Result<(), OpenError> {
    let known: HashSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    for name in names(disk)? {
        let old = manifest::versions(std::iter::once(name.clone()))
            .first()
            .is_some_and(|version| version + 1 < manifest.version);
        let stray = origin_of(Path::new(&name)).is_some() && !known.contains(name.as_str());
        if name.ends_with(UNFINISHED) || old || stray {
            tracing::info!(file = %name, "removing a file that is not part of the event database");
            disk.remove(&disk.path(&name)).map_err(|source| OpenError::Folder {
                folder: disk.folder().to_owned(),
                source,
            })?;
        }
    }
    Ok(())
}

fn names(disk: &Disk) -> Result<Vec<String>, OpenError> {
    let failed = |source| OpenError::Folder {
        folder: disk.folder().to_owned(),
        source,
    };
    let entries = fs::read_dir(disk.folder()).map_err(failed)?;
    entries
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn newest(disk: &Disk, names: &[String]) -> Result<Manifest, OpenError> {
    let versions = manifest::versions(names.iter().cloned());
    let Some(version) = versions.first() else {
        // Without any manifest nothing was ever committed, unless somebody removed it.
        return match names.iter().find(|name| name.ends_with(".parquet")) {
            None => Ok(Manifest::default()),
            Some(_) if unfinished_first_commit(names) => Ok(Manifest::default()),
            Some(name) => Err(OpenError::Lost {
                manifest: disk.path("manifest-*"),
                file: disk.path(name),
            }),
        };
    };
    let path = match manifest::read(disk, *version) {
        Ok(manifest) => return Ok(manifest),
        Err(ManifestError::Damaged { path }) => path,
        Err(error) => return Err(OpenError::Manifest(error)),
    };
    let Some(before) = versions.get(1) else {
        return Err(OpenError::Manifest(ManifestError::Damaged { path }));
    };
    let manifest = manifest::read(disk, *before).map_err(OpenError::Manifest)?;
    // The damaged one may have told the queue to forget what went into new files. Going back is safe only when there are none:
    // what it merged from other files can be merged again while those are there.
    let known: HashSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let forgotten = names
        .iter()
        .find(|name| origin_of(Path::new(name)) == Some(Origin::Fresh) && !known.contains(name.as_str()));
    let gone = manifest
        .files
        .iter()
        .map(|file| &file.name)
        .find(|name| !names.contains(name));
    if let Some(file) = forgotten.or(gone) {
        return Err(OpenError::Lost {
            manifest: path,
            file: disk.path(file),
        });
    }
    tracing::warn!(manifest = %path.display(), "the newest manifest is damaged; the one before it describes the same rows");
    Ok(manifest)
}

/// A first commit that broke off leaves numbered files from the very first on, and no manifest.
fn unfinished_first_commit(names: &[String]) -> bool {
    names.iter().any(|name| name.ends_with("-00000000-f.parquet"))
}
