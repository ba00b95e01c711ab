//! The tasks of one stage: who runs, how to stop them, and when none is left.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct StageTasks {
    stop: CancellationToken,
    list: Arc<List>,
}

#[derive(Debug)]
struct List {
    tasks: Mutex<Tasks>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Tasks {
    next_id: u64,
    running: BTreeMap<u64, (Cow<'static, str>, Option<AbortHandle>)>,
}

impl StageTasks {
    pub(super) fn new() -> Self {
        let list = List {
            tasks: Mutex::default(),
            count: watch::Sender::new(0),
        };
        Self {
            stop: CancellationToken::new(),
            list: Arc::new(list),
        }
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Lists a task as running until the entry is dropped.
    pub(super) fn enter(&self, name: Cow<'static, str>) -> Entry {
        let mut tasks = self.list.lock();
        let id = tasks.next_id;
        tasks.next_id += 1;
        tasks.running.insert(id, (name, None));
        self.list.count.send_replace(tasks.running.len());
        drop(tasks);
        Entry {
            id,
            list: Arc::clone(&self.list),
        }
    }

    /// A task that has already ended is not listed any more, and needs no abort.
    pub(super) fn set_abort(&self, id: u64, handle: AbortHandle) {
        if let Some((_, abort)) = self.list.lock().running.get_mut(&id) {
            *abort = Some(handle);
        }
    }

    pub(super) fn len(&self) -> usize {
        *self.list.count.borrow()
    }

    /// Waits until no task is left.
    pub(super) async fn drained(&self) {
        let mut count = self.list.count.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(count.wait_for(|count| *count == 0).await);
    }

    /// Aborts whoever is left, and names them.
    pub(super) fn abort_all(&self) -> Vec<Cow<'static, str>> {
        let tasks = self.list.lock();
        for (_, abort) in tasks.running.values() {
            if let Some(abort) = abort {
                abort.abort();
            }
        }
        tasks.running.values().map(|(name, _)| name.clone()).collect()
    }
}

impl List {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the list; leaving is dropping, so an aborted or panicking task leaves too.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    list: Arc<List>,
}

impl Entry {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut tasks = self.list.lock();
        tasks.running.remove(&self.id);
        self.list.count.send_replace(tasks.running.len());
    }
}
