//! The state behind a store's handles, and the two ways in which it changes: an insert, and a commit of files.
//!
//! Locks, in the order in which they may be taken: `dedup` (one insert at a time), `commit` (one manifest at a time), `publish`
//! (while the view is replaced; never held during I/O). Readers take none.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use domain::{EventBatch, Timestamp};
use tokio::sync::{Notify, oneshot, watch};

use super::dedup::Dedup;
use super::disk::Disk;
use super::files::DataFile;
use super::flush::{self, FlushError};
use super::hot::Chunk;
use super::lookup;
use super::manifest::Edit;
use super::recover::Recovered;
use super::view::View;
use super::{Clock, ParquetConfig};
use crate::query::Watermark;
use crate::{InsertError, Inserted};

/// Everything the handles, the threads and the readers of one store share.
pub(super) struct Shared {
    pub(super) config: ParquetConfig,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) view: ArcSwap<View>,
    pub(super) watermark: watch::Sender<Watermark>,
    /// Told when hot rows went to files, or a try failed.
    pub(super) room: Notify,
    pub(super) work: Mutex<Work>,
    pub(super) wake: Condvar,
    pub(super) stopping: AtomicBool,
    dedup: Mutex<Dedup>,
    commit: Mutex<()>,
    publish: Mutex<()>,
    next_file: AtomicU64,
}

/// What is asked of the flushing thread.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Those who wait for a flush.
    pub(super) waiting: Vec<oneshot::Sender<Result<(), Arc<FlushError>>>>,
    /// Whether an insert wants one.
    pub(super) wanted: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// A panic elsewhere leaves each of our values whole: they are replaced, not built in place.
pub(super) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(config: ParquetConfig, clock: Clock, disk: Disk, found: Recovered) -> Self {
        let manifest = found.manifest;
        let floor = manifest
            .files
            .iter()
            .filter_map(|file| file.made_ids)
            .map(|(_, max)| max)
            .max();
        let watermark = Watermark {
            version: 0,
            complete_through: Timestamp::from_nanos(manifest.complete_through),
        };
        Self {
            dedup: Mutex::new(Dedup::new(manifest.ends.clone(), floor, config.recent_ids_max)),
            next_file: AtomicU64::new(manifest.next_file),
            view: ArcSwap::from_pointee(View {
                manifest: Arc::new(manifest),
                files: Arc::new(found.files),
                frozen: None,
                active: Arc::default(),
                watermark,
            }),
            watermark: watch::Sender::new(watermark),
            room: Notify::new(),
            work: Mutex::default(),
            wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            commit: Mutex::default(),
            publish: Mutex::default(),
            config,
            clock,
            disk,
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Number of a file's name: never given twice, also not after a failure.
    pub(super) fn file_number(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Replaces the view.
    fn publish(&self, change: impl FnOnce(&View) -> View) {
        let _held = held(&self.publish);
        let before = self.view.load_full();
        let after = change(&before);
        let watermark = after.watermark;
        self.view.store(Arc::new(after));
        if watermark != before.watermark {
            self.watermark.send_replace(watermark);
        }
    }

    /// Makes a batch visible.
    pub(super) fn insert(&self, batch: &Arc<EventBatch>) -> Result<Inserted, InsertError> {
        let mut dedup = held(&self.dedup);
        let known = dedup.ends.get(&batch.span.partition).copied().unwrap_or(0);
        let offered = batch.events.len() as u64;
        if batch.span.end <= known {
            self.advance(batch.complete_through);
            return Ok(Inserted {
                stored: 0,
                duplicates: offered,
            });
        }
        let view = self.view.load_full();
        let mut chunk = Chunk::from_offset(batch, known);
        let fresh = dedup
            .fresh(chunk.events(), |ids: &HashSet<_>| lookup::stored(&view, ids))
            .map_err(unavailable)?;
        chunk.keep(&fresh);
        let stored = chunk.len() as u64;
        let ids: Vec<_> = chunk.events().map(|event| event.id).collect();
        // Only inserts change the active generation while `dedup` is held, and freezing takes it too.
        let active = Arc::new(view.active.with(chunk, self.now()).map_err(unavailable)?);
        dedup.accept(ids.into_iter());
        dedup.ends.insert(batch.span.partition, batch.span.end);
        self.publish(|view| View {
            active,
            watermark: Watermark {
                version: view.watermark.version + 1,
                complete_through: view.watermark.complete_through.max(batch.complete_through),
            },
            ..view.clone()
        });
        Ok(Inserted {
            stored,
            duplicates: offered - stored,
        })
    }

    /// Everything received before `through` is inserted.
    pub(super) fn advance(&self, through: Timestamp) {
        if through > self.view.load().watermark.complete_through {
            self.publish(|view| View {
                watermark: Watermark {
                    version: view.watermark.version + 1,
                    complete_through: view.watermark.complete_through.max(through),
                },
                ..view.clone()
            });
        }
    }

    /// Puts everything inserted before the call into files.
    pub(super) fn flush(&self) -> Result<(), FlushError> {
        self.write_frozen()?;
        self.freeze();
        self.write_frozen()
    }

    fn freeze(&self) {
        let mut dedup = held(&self.dedup);
        if self.view.load().active.is_empty() {
            return;
        }
        dedup.freeze();
        self.publish(|view| {
            // Every insert that made this true is in this generation or an earlier one.
            let mut frozen = (*view.active).clone();
            frozen.complete_through = view.watermark.complete_through;
            View {
                frozen: Some(Arc::new(frozen)),
                active: Arc::default(),
                ..view.clone()
            }
        });
    }

    fn write_frozen(&self) -> Result<(), FlushError> {
        let view = self.view.load_full();
        let Some(frozen) = view.frozen.as_deref() else { return Ok(()) };
        let add = flush::write(&self.disk, frozen, &mut || self.file_number())?;
        let edit = Edit {
            add,
            ends: frozen.ends.clone(),
            complete_through: frozen.complete_through.nanos(),
            ..Edit::default()
        };
        self.commit(&edit, |view| View { frozen: None, ..view })?;
        held(&self.dedup).thaw();
        self.room.notify_waiters();
        Ok(())
    }

    /// Commits an edit of the files and shows it, together with another change of the view.
    pub(super) fn commit(&self, edit: &Edit, change: impl FnOnce(View) -> View) -> Result<(), FlushError> {
        let _held = held(&self.commit);
        let mut manifest = self.view.load().manifest.edited(edit);
        manifest.next_file = self.next_file.load(Ordering::Relaxed);
        let outcome = self
            .disk
            .sync_folder()
            .map_err(|source| (source, false))
            .and_then(|()| manifest.commit(&self.disk));
        if let Err((source, placed)) = outcome {
            // A manifest that may be in place names these files; if it is not, the next start removes them.
            if !placed {
                flush::discard(&self.disk, &edit.add);
            }
            return Err(FlushError::Commit(source));
        }
        let added: Vec<_> = edit
            .add
            .iter()
            .map(|entry| Arc::new(DataFile::new(entry.clone(), &self.disk)))
            .collect();
        let mut retired = Vec::new();
        self.publish(|view| {
            let (gone, mut files): (Vec<_>, Vec<_>) = view
                .files
                .iter()
                .cloned()
                .partition(|file| edit.remove.contains(&file.entry.name));
            files.extend(added);
            retired = gone;
            change(View {
                manifest: Arc::new(manifest),
                files: Arc::new(files),
                ..view.clone()
            })
        });
        for file in retired {
            file.retire();
        }
        Ok(())
    }

    /// Asks the flushing thread for a flush, without waiting.
    pub(super) fn want_flush(&self) {
        held(&self.work).wanted = true;
        self.wake.notify_all();
    }

    /// What waits to go to files.
    pub(super) fn oldest_insert(&self) -> Option<Timestamp> {
        self.view.load().hot().filter_map(|generation| generation.since).min()
    }
}

pub(super) fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> InsertError {
    InsertError::Unavailable(Box::new(error))
}
