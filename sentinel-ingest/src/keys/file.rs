//! The key file: reading it as a whole, and replacing it as a whole.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::event::NamespaceRule;
use domain::operations::KeyView;
use domain::{Namespace, ServerName, Timestamp};
use serde::{Deserialize, Serialize};

use super::secret::{self, KeyHash};

/// What a key's namespace is called when it is all of them.
pub(crate) const ANY_NAMESPACE: &str = "*";

const VERSION: u32 = 1;
/// Room for ten thousand keys with long notes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most keys of a file.
pub(crate) const KEYS_MAX: usize = 10_000;

/// One key as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord {
    pub(crate) id: String,
    pub(crate) hash: KeyHash,
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    pub(crate) created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) events_per_second_max: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

impl KeyRecord {
    /// What the key may write; a sentence when that makes no sense.
    pub(crate) fn rule(&self) -> Result<NamespaceRule, &'static str> {
        rule(&self.namespace, self.server.as_deref())
    }

    pub(crate) fn view(&self) -> KeyView {
        KeyView {
            id: self.id.clone(),
            namespace: self.namespace.clone(),
            server: self.server.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            events_per_second_max: self.events_per_second_max.map(NonZeroU32::get),
            note: self.note.clone(),
        }
    }

    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }
}

pub(crate) fn rule(namespace: &str, server: Option<&str>) -> Result<NamespaceRule, &'static str> {
    if namespace == ANY_NAMESPACE {
        return match server {
            None => Ok(NamespaceRule::Any),
            Some(_) => Err("a key for one server needs the namespace of that server, not `*`"),
        };
    }
    let namespace = Namespace::parse(namespace)
        .map_err(|_| "a namespace is `*`, or 1 to 63 lower-case letters, digits and inner hyphens")?;
    let server = server.map(ServerName::parse).transpose();
    let server = server.map_err(|_| "a server is 1 to 63 lower-case letters, digits and inner hyphens")?;
    Ok(NamespaceRule::Only(
        namespace,
        server.map(|server| server.as_str().to_owned()),
    ))
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFile {
    version: u32,
    pub(crate) keys: Vec<KeyRecord>,
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("reading the key file {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("the key file {} has {bytes} bytes, more than the {FILE_BYTES_MAX} we read", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("understanding the key file {}", .0.display())]
    Malformed(PathBuf, #[source] serde_json::Error),
    #[error("the key file {} has version {version}, this program knows {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("the key file {} holds more than {KEYS_MAX} keys", .0.display())]
    TooMany(PathBuf),
    #[error("key {id} in {}: {what}", path.display())]
    Key { path: PathBuf, id: String, what: &'static str },
    #[error("writing the key file {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// What tells one state of the file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Fingerprint {
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from_metadata(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl KeyFile {
    pub(crate) fn new(keys: Vec<KeyRecord>) -> Self {
        Self { version: VERSION, keys }
    }

    /// Reads and checks the file; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let failed = |error| KeyFileError::Read(path.to_owned(), error);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let bytes = file.metadata().map_err(failed)?.size();
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let path = path.to_owned();
            return Err(KeyFileError::TooLarge { path, bytes });
        }
        let file: Self = serde_json::from_slice(&text).map_err(|error| KeyFileError::Malformed(path.to_owned(), error))?;
        file.check(path)?;
        Ok(Some(file))
    }

    fn check(&self, path: &Path) -> Result<(), KeyFileError> {
        let path = || path.to_owned();
        if self.version != VERSION {
            let version = self.version;
            return Err(KeyFileError::Version { path: path(), version });
        }
        if self.keys.len() > KEYS_MAX {
            return Err(KeyFileError::TooMany(path()));
        }
        let mut ids = HashSet::with_capacity(self.keys.len());
        for (index, key) in self.keys.iter().enumerate() {
            let fault = |what| KeyFileError::Key {
                path: path(),
                id: key.id.clone(),
                what,
            };
            if !secret::is_id(&key.id) {
                // Not repeated: it may be a whole key that someone put in the wrong place.
                let id = format!("number {}", index + 1);
                return Err(KeyFileError::Key {
                    path: path(),
                    id,
                    what: "an id is 12 letters and digits",
                });
            }
            if !ids.insert(&*key.id) {
                return Err(fault("the id is there twice"));
            }
            key.rule().map_err(fault)?;
        }
        Ok(())
    }

    /// Replaces the file. `Ok`: the new content survives a power loss. `Err`: the old content or the new one is there, whole.
    pub(crate) fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        self.replace(path)
            .map_err(|error| KeyFileError::Write(path.to_owned(), error))
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        // Where the path is a link, the file behind it is replaced and the link stays.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let temporary = beside(&target, ".new");
        // Left by a writer that died; the caller holds the lock, so it is nobody's any more.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)?;
        File::open(folder(&target))?.sync_all()
    }
}

/// The path with something appended to its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
