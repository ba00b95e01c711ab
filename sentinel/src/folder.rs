//! The data folder: owned by one process, holding everything that must survive it.
//!
//! ```text
//! lock           held while a process runs; names its pid
//! platform.db    accounts, teams, keys, and the servers, grants and sessions of the platform API
//! owner.key      the key of whoever owns this folder: an administrator, as long as nobody else reads it
//! run.json       {"url", "pid"} of the running process, for tests and other terminals; gone after a clean end
//! keys.json      hashed ingest keys
//! ingest.key     the first ingest key, for whoever may read this folder
//! gateway.key    the key with which the gateway sends
//! queue/         the embedded log
//! store/         Parquet files and their manifest
//! keys/          ingest keys of namespaces, for the servers that run there
//! servers/       what each server wrote
//! secrets/       values for `secretEnvVars`: NAMESPACE/SECRET/KEY, put there by people
//! dead-letters.log  records that could not be stored
//! spool/         events of the gateway while ingest is away
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::Namespace;
use sentinel_ingest::{KeyRing, KeyStore, NewKeyRequest};
use service_kit::Clock;

/// The data folder, held by this process until dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    _lock: File,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Not to be made, read or written.
    #[error("preparing {}", path.display())]
    Unusable {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by process {pid}; stop that one, or give another folder with --data-dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process.
        pid: String,
    },
    /// A key could not be made.
    #[error("making the first keys in {}", path.display())]
    Keys {
        /// The file of keys.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<sentinel_ingest::keys::KeyStoreError>,
    },
}

impl Folder {
    /// Makes the folder if need be, and takes it.
    pub(crate) fn take(root: &Path) -> Result<Self, FolderError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Unusable { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(unusable(root))?;
        let path = root.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(unusable(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _read = lock.read_to_string(&mut pid).map_err(unusable(&path))?;
                return Err(FolderError::InUse {
                    path: root.to_owned(),
                    pid: pid.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(&path)(source)),
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()));
        written.map_err(unusable(&path))?;
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The text of a file that is one line; none when there is no such file.
    pub(crate) fn line(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.path(name);
        read_line(&path).map_err(|source| FolderError::Unusable { path, source })
    }

    /// Writes a file that only the owner may read.
    pub(crate) fn put_line(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let path = self.path(name);
        write_private(&path, &format!("{text}\n")).map_err(|source| FolderError::Unusable { path, source })
    }

    /// Tells others in which way to reach this process.
    pub(crate) fn note_running(&self, url: &str) -> Result<(), FolderError> {
        let path = self.path("run.json");
        let note = serde_json::json!({ "url": url, "pid": std::process::id() });
        write_private(&path, &note.to_string()).map_err(|source| FolderError::Unusable { path, source })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only a hint for others; a file that stays behind names a process that is gone.
        let _gone = fs::remove_file(self.path("run.json"));
    }
}

/// Writes a whole file that only its owner may read, or leaves the old one.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)
}

fn read_line(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The key of a file; made when it is first asked for.
fn key_file(path: &Path, keys: &KeyStore, namespace: &str, note: &str) -> Result<String, FolderError> {
    let unusable = |source| FolderError::Unusable {
        path: path.to_owned(),
        source,
    };
    if let Some(key) = read_line(path).map_err(unusable)? {
        return Ok(key);
    }
    let request = NewKeyRequest {
        namespace: namespace.to_owned(),
        server: None,
        expires_at: None,
        events_per_second_max: None,
        note: note.to_owned(),
    };
    let made = keys.create(request).map_err(|source| FolderError::Keys {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    write_private(path, &format!("{}\n", made.key)).map_err(unusable)?;
    Ok(made.key)
}

/// Ingest keys of namespaces, made when they are first asked for.
#[derive(Debug, Clone)]
pub(crate) struct NamespaceKeys {
    folder: PathBuf,
    store: KeyStore,
    ring: KeyRing,
    ingest: String,
}

impl NamespaceKeys {
    /// Kept in `folder`; events go to the address `ingest`.
    pub(crate) fn new(folder: &Folder, store: KeyStore, ring: KeyRing, ingest: String) -> Self {
        Self {
            folder: folder.path("keys"),
            store,
            ring,
            ingest,
        }
    }

    /// Where servers of a namespace send events, and the file of the key to do so with.
    pub(crate) async fn of(&self, namespace: &str) -> Result<(String, PathBuf), FolderError> {
        let path = self.folder.join(format!("{namespace}.key"));
        let (this, namespace, file) = (self.clone(), namespace.to_owned(), path.clone());
        let made = tokio::task::spawn_blocking(move || {
            let unusable = |source| FolderError::Unusable {
                path: this.folder.clone(),
                source,
            };
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&this.folder)
                .map_err(unusable)?;
            let note = format!("servers of the namespace; in keys/{namespace}.key");
            key_file(&file, &this.store, &namespace, &note)?;
            this.ring.refresh();
            Ok(())
        });
        let made = made.await.map_err(|error| FolderError::Unusable {
            path: self.folder.clone(),
            source: io::Error::other(error),
        })?;
        made.map(|()| (self.ingest.clone(), path))
    }
}

/// The two keys that a standalone begins with: one for senders, one for its own gateway.
pub(crate) fn first_keys(folder: &Folder, namespace: &Namespace, clock: &Clock) -> Result<(KeyStore, String), FolderError> {
    let keys = KeyStore::new(folder.path("keys.json"), clock.clone());
    let first = "made on the first start; in ingest.key";
    key_file(&folder.path("ingest.key"), &keys, namespace.as_str(), first)?;
    // The gateway speaks for servers of several namespaces, so its key is bound to none.
    let gateway = key_file(
        &folder.path("gateway.key"),
        &keys,
        "*",
        "the gateway of this process; in gateway.key",
    )?;
    Ok((keys, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::take(folder.path()).unwrap();
        let fault = Folder::take(folder.path()).unwrap_err().to_string();
        assert!(
            fault.contains(&format!("in use by process {}", std::process::id())),
            "{fault}"
        );
        drop(held);
        Folder::take(folder.path()).unwrap();
    }

    #[test]
    fn keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::take(folder.path()).unwrap();
        let namespace = Namespace::parse("acme").unwrap();
        let (keys, gateway) = first_keys(&held, &namespace, &Clock::system()).unwrap();
        let (_, again) = first_keys(&held, &namespace, &Clock::system()).unwrap();
        assert_eq!((gateway, keys.list().unwrap().len()), (again, 2));
    }
}
