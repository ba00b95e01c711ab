//! The manifest: which files are the database, and up to where they hold the queue. One file makes both one fact.
//!
//! Format: a line `mcp-events-manifest 1 <crc32 of the rest, 8 hex digits>`, then JSON. Each version is a file of its own,
//! `manifest-<version, 16 hex digits>`, put in place by a rename; the one before it is kept.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use domain::EventId;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::schema::{SCHEMA_VERSION, Table};

const HEADER: &str = "mcp-events-manifest 1 ";
const PREFIX: &str = "manifest-";

/// The database at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Counts commits.
    pub(super) version: u64,
    /// Version of the tables' schemas.
    pub(super) schema: u32,
    /// Number of the next file; names are never used twice.
    pub(super) next_file: u64,
    /// One past the last offset of each partition whose event is in the files.
    pub(super) ends: BTreeMap<u32, u64>,
    /// Every event received before this (nanoseconds since the epoch) is in the files.
    pub(super) complete_through: i64,
    /// The files.
    pub(super) files: Vec<FileEntry>,
}

/// A file of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// Name in the folder.
    pub(super) name: String,
    /// Table whose rows it holds.
    pub(super) table: Table,
    /// UTC day of all its rows, counted from the epoch.
    pub(super) day: i32,
    /// Rows.
    pub(super) rows: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// Least time of a row, nanoseconds since the epoch.
    pub(super) time_min: i64,
    /// Greatest time of a row.
    pub(super) time_max: i64,
    /// Namespaces of its rows, in order; empty when they were too many to list.
    pub(super) namespaces: Vec<String>,
    /// Least and greatest id of version 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made_ids: Option<(EventId, EventId)>,
    /// Least and greatest id of other versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) other_ids: Option<(EventId, EventId)>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            version: 0,
            schema: SCHEMA_VERSION,
            next_file: 0,
            ends: BTreeMap::new(),
            complete_through: 0,
            files: Vec::new(),
        }
    }
}

/// What a commit changes.
#[derive(Debug, Default)]
pub(super) struct Edit {
    pub(super) add: Vec<FileEntry>,
    pub(super) remove: Vec<String>,
    /// Only grows.
    pub(super) ends: BTreeMap<u32, u64>,
    /// Only grows.
    pub(super) complete_through: i64,
}

impl Manifest {
    /// The manifest after an edit.
    pub(super) fn edited(&self, edit: &Edit) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next.files.retain(|file| !edit.remove.contains(&file.name));
        next.files.extend(edit.add.iter().cloned());
        for (partition, end) in &edit.ends {
            let known = next.ends.entry(*partition).or_default();
            *known = (*known).max(*end);
        }
        next.complete_through = next.complete_through.max(edit.complete_through);
        next
    }

    /// Puts the manifest in place. `Ok`: it survives. `Err`: it is not in place, or (told by `true`) it may be what the next start finds.
    pub(super) fn commit(&self, disk: &Disk) -> Result<(), (io::Error, bool)> {
        self.place(disk).map_err(|error| (error, false))?;
        disk.sync_folder().map_err(|error| (error, true))?;
        if let Some(old) = self.version.checked_sub(2)
            && let Err(error) = disk.remove(&disk.path(&file_name(old)))
        {
            tracing::warn!(%error, version = old, "old manifest left behind; the next start removes it");
        }
        Ok(())
    }

    fn place(&self, disk: &Disk) -> io::Result<()> {
        let body = serde_json::to_vec(self)?;
        let mut file = disk.begin(&file_name(self.version))?;
        writeln!(file, "{HEADER}{:08x}", crc32fast::hash(&body))?;
        file.write_all(&body)?;
        file.finish().map(|_| ())
    }
}

fn file_name(version: u64) -> String {
    format!("{PREFIX}{version:016x}")
}

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system failed.
    #[error("reading {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// A program before the first release wrote it, with rollups that this one does not read.
    #[error(
        "{path} was written by an earlier version of this program (schema {schema}, this one knows {SCHEMA_VERSION}); \
         export the events with that version and send them to an empty folder"
    )]
    Earlier {
        /// Which file.
        path: PathBuf,
        /// The schema it tells.
        schema: u32,
    },
    /// A later program wrote it.
    #[error("{path} was written by a later version of this program (schema {schema}, this one knows {SCHEMA_VERSION})")]
    Later {
        /// Which file.
        path: PathBuf,
        /// The schema it tells.
        schema: u32,
    },
}

/// Versions found in a folder, newest first.
pub(super) fn versions(names: impl Iterator<Item = String>) -> Vec<u64> {
    let mut versions: Vec<u64> = names
        .filter_map(|name| u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
}

/// Reads one version.
pub(super) fn read(disk: &Disk, version: u64) -> Result<Manifest, ManifestError> {
    let path = disk.path(&file_name(version));
    let bytes = std::fs::read(&path).map_err(|source| ManifestError::Read {
        path: path.clone(),
        source,
    })?;
    let manifest = parse(&bytes).ok_or_else(|| ManifestError::Damaged { path: path.clone() })?;
    let schema = manifest.schema;
    match schema.cmp(&SCHEMA_VERSION) {
        Ordering::Less => Err(ManifestError::Earlier { path, schema }),
        Ordering::Equal => Ok(manifest),
        Ordering::Greater => Err(ManifestError::Later { path, schema }),
    }
}

fn parse(bytes: &[u8]) -> Option<Manifest> {
    let rest = bytes.strip_prefix(HEADER.as_bytes())?;
    let (crc, body) = rest.split_at_checked(8)?;
    let body = body.strip_prefix(b"\n")?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    if crc != crc32fast::hash(body) {
        return None;
    }
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_torn_or_changed_manifest_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path().to_owned(), None);
        let manifest = Manifest {
            version: 7,
            ends: BTreeMap::from([(0, 42)]),
            ..Manifest::default()
        };
        manifest.commit(&disk).unwrap();
        assert_eq!(read(&disk, 7).unwrap(), manifest);
        let bytes = std::fs::read(folder.path().join(file_name(7))).unwrap();
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(parse(&changed), Some(manifest.clone()), "changed at {at}");
        }
    }

    #[test]
    fn positions_never_go_back() {
        let manifest = Manifest {
            ends: BTreeMap::from([(0, 9)]),
            complete_through: 5,
            ..Manifest::default()
        };
        let next = manifest.edited(&Edit {
            ends: BTreeMap::from([(0, 4), (1, 2)]),
            complete_through: 3,
            ..Edit::default()
        });
        assert_eq!(
            (next.ends, next.complete_through, next.version),
            (BTreeMap::from([(0, 9), (1, 2)]), 5, 1)
        );
    }
}
