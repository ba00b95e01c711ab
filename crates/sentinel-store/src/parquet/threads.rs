//! The threads of a store: one puts hot rows into files, one keeps the files few and young.
//!
//! Threads of their own, because what they do blocks for seconds and must delay neither inserts nor answers.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::shared::{Shared, held};
use super::{Compaction, compact, retain};

/// Longest time between two looks at what there is to do.
const TICK: Duration = Duration::from_millis(250);
/// Looks that the keeper leaves out between two of its own.
const KEEP_EVERY: u32 = 8;
/// Looks left out after a failure, at first and at most.
const PAUSE_FIRST: u32 = 2;
const PAUSE_MAX: u32 = 80;

/// Running threads. Dropping stops them at the next safe point and waits.
#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let mut threads = Self {
            shared: Arc::clone(shared),
            handles: Vec::new(),
        };
        for (name, run) in [("store-flush", run_flush as fn(&Shared)), ("store-keep", run_keep)] {
            let shared = Arc::clone(shared);
            threads.handles.push(
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || run(&shared))?,
            );
        }
        Ok(threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        {
            // The lock makes sure that nobody misses the wake-up between looking and waiting.
            let _held = held(&self.shared.work);
            self.shared.wake.notify_all();
        }
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a thread of the event database panicked");
            }
        }
    }
}

fn run_flush(shared: &Shared) {
    let mut pause = Pause::default();
    while !shared.stopping() {
        let (waiting, wanted) = {
            let mut work = held(&shared.work);
            if work.waiting.is_empty() && !work.wanted && !shared.stopping() {
                work = shared.wake.wait_timeout(work, TICK).unwrap_or_else(PoisonError::into_inner).0;
            }
            (std::mem::take(&mut work.waiting), std::mem::take(&mut work.wanted))
        };
        let paused = pause.is_on();
        if waiting.is_empty() && (paused || !(wanted || due(shared))) {
            if paused && wanted {
                // What an insert wants is tried again after the pause; it waits with a bound of its own.
                shared.room.notify_waiters();
            }
            continue;
        }
        let outcome = shared.flush().map_err(Arc::new);
        match &outcome {
            Ok(()) => pause = Pause::default(),
            Err(error) => {
                pause.lengthen();
                shared.room.notify_waiters();
                warn("putting hot rows into files", error);
            }
        }
        for waiter in waiting {
            // Who no longer waits needs no answer.
            waiter.send(outcome.clone()).unwrap_or_default();
        }
    }
}

fn due(shared: &Shared) -> bool {
    let view = shared.view.load();
    let aged = shared
        .oldest_insert()
        .is_some_and(|since| shared.now().since(since) >= shared.config.flush_age);
    aged || view.active.bytes() >= shared.config.flush_bytes || view.frozen.is_some()
}

fn run_keep(shared: &Shared) {
    let mut pause = Pause::default();
    let mut looks = 0_u32;
    while !shared.stopping() {
        {
            let work = held(&shared.work);
            if !shared.stopping() {
                drop(shared.wake.wait_timeout(work, TICK).unwrap_or_else(PoisonError::into_inner));
            }
        }
        looks = looks.wrapping_add(1);
        if shared.stopping() || !looks.is_multiple_of(KEEP_EVERY) || pause.is_on() {
            continue;
        }
        let outcome = retain::run(shared).and_then(|()| match shared.config.compaction {
            Compaction::On => compact::run(shared),
            Compaction::Off => Ok(()),
        });
        match outcome {
            Ok(()) => pause = Pause::default(),
            Err(error) => {
                pause.lengthen();
                warn("merging files", &error);
            }
        }
    }
}

fn warn(doing: &str, error: &(dyn std::error::Error + 'static)) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::warn!(error = %text, "{doing} failed; trying again");
}

/// Looks to leave out after failures.
#[derive(Debug, Default)]
struct Pause {
    left: u32,
    length: u32,
}

impl Pause {
    /// Whether this look is to be left out.
    fn is_on(&mut self) -> bool {
        let on = self.left > 0;
        self.left = self.left.saturating_sub(1);
        on
    }

    fn lengthen(&mut self) {
        self.length = (self.length * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        self.left = self.length;
    }
}
