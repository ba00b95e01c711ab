//! What appenders, writer and tail of one log share.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::Timestamp;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::encode::Body;
use super::recover::Recovered;
use super::segment::Segment;
use super::{Clock, LogConfig, committed};
use crate::AppendError;

/// Bodies that may wait for the writer, in KiB; appenders beyond wait in turn. Several groups, so that the writer never starves.
const INBOX_KIB: u32 = 64 << 10;
/// Most bytes of one write and sync.
const GROUP_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    bytes_max: u64,
    pub(super) text_bytes_max: usize,
    /// Bytes appended (or about to be) and not yet committed.
    waiting: AtomicU64,
    inbox: Mutex<Inbox>,
    inbox_changed: Condvar,
    /// Room in the inbox, in KiB.
    room: Semaphore,
    segments: Mutex<VecDeque<Segment>>,
    committed: Mutex<u64>,
    /// Held as long as anything of the log is in use.
    _lock: File,
}

#[derive(Debug, Default)]
struct Inbox {
    queue: VecDeque<Pending>,
    /// Earliest receipt of each append that began and is not yet written, by ticket.
    arriving: BTreeMap<u64, Timestamp>,
    tickets: u64,
    /// The writer is to be woken once so many appends wait. Waking it for each would cost more than writing it.
    wake_at: usize,
    closed: bool,
}

/// How to let appends come together before a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gathering {
    /// A pause in which none came ends it.
    pub(super) pause: Duration,
    /// No longer than this.
    pub(super) time_max: Duration,
}

/// An append that waits for the writer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) bodies: Vec<Body>,
    /// Bytes it takes in the log.
    pub(super) bytes: u64,
    ticket: u64,
    permits: u32,
    done: oneshot::Sender<Result<(), AppendError>>,
}

/// What the writer finds in the inbox.
#[derive(Debug)]
pub(super) enum Taken {
    /// Appends to write together. Everything received before `through` is among them or was written before.
    Group {
        pending: Vec<Pending>,
        now: Timestamp,
        through: Timestamp,
    },
    /// Nothing came within the time given.
    Nothing,
    /// Nothing will come any more.
    Closed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The shared part, and the channel that tells the end of the log; closed when the writer ends.
    pub(super) fn new(config: &LogConfig, recovered: &mut Recovered) -> io::Result<(Arc<Self>, watch::Sender<u64>)> {
        let shared = Self {
            dir: config.dir.clone(),
            bytes_max: config.bytes_max,
            text_bytes_max: config.record_bytes_max,
            waiting: AtomicU64::new(recovered.waiting_bytes),
            inbox: Mutex::default(),
            inbox_changed: Condvar::new(),
            room: Semaphore::new(INBOX_KIB as usize),
            segments: Mutex::new(std::mem::take(&mut recovered.segments)),
            committed: Mutex::new(recovered.committed),
            _lock: recovered.lock.try_clone()?,
        };
        Ok((Arc::new(shared), watch::Sender::new(recovered.end.offset)))
    }

    // Appending.

    /// Tells that an append begins. Until the guard is gone or its append written, no reader is told that all received at
    /// `received` or later has been read.
    pub(super) fn arrive(&self, received: Timestamp) -> Arrival<'_> {
        let mut inbox = lock(&self.inbox);
        inbox.tickets += 1;
        let ticket = inbox.tickets;
        inbox.arriving.insert(ticket, received);
        Arrival {
            shared: self,
            ticket: Some(ticket),
        }
    }

    /// Queues bodies for the writer, and waits until they are written.
    pub(super) async fn submit(&self, arrival: Arrival<'_>, bodies: Vec<Body>, bytes: u64) -> Result<(), AppendError> {
        self.reserve(bytes)?;
        let reserved = Reserved { shared: self, bytes };
        let permits = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX).min(INBOX_KIB);
        let room = self.room.acquire_many(permits).await.map_err(|_| AppendError::Closed)?;
        let (done, written) = oneshot::channel();
        {
            let mut inbox = lock(&self.inbox);
            if inbox.closed {
                return Err(AppendError::Closed);
            }
            let pending = Pending {
                bodies,
                bytes,
                ticket: arrival.keep(),
                permits,
                done,
            };
            inbox.queue.push_back(pending);
            if inbox.queue.len() >= inbox.wake_at {
                self.inbox_changed.notify_one();
            }
        }
        // From here on the writer gives both back.
        std::mem::forget(reserved);
        room.forget();
        written.await.unwrap_or(Err(AppendError::Closed))
    }

    fn reserve(&self, bytes: u64) -> Result<(), AppendError> {
        let reserved = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            waiting.checked_add(bytes).filter(|after| *after <= self.bytes_max)
        });
        reserved.map(drop).map_err(|waiting| AppendError::Full {
            bytes: waiting,
            bytes_max: self.bytes_max,
        })
    }

    /// Gives room back: bytes were committed, or never written.
    pub(super) fn release(&self, bytes: u64) {
        self.waiting.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(super) fn close(&self) {
        lock(&self.inbox).closed = true;
        self.inbox_changed.notify_one();
    }

    /// The writer is gone: nobody may wait for it.
    pub(super) fn abandon(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        inbox.queue.clear();
        drop(inbox);
        self.room.close();
    }

    // Writing.

    /// Waits for appends, and takes as many as go into one write.
    pub(super) fn take(&self, patience: Option<Duration>, gathering: Option<Gathering>, clock: &Clock) -> Taken {
        let mut inbox = lock(&self.inbox);
        inbox.wake_at = 1;
        while inbox.queue.is_empty() {
            if inbox.closed {
                return Taken::Closed;
            }
            inbox = match patience {
                None => self.inbox_changed.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (inbox, timeout) = self
                        .inbox_changed
                        .wait_timeout(inbox, patience)
                        .unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && inbox.queue.is_empty() && !inbox.closed {
                        return Taken::Nothing;
                    }
                    inbox
                }
            };
        }
        // While the writer gathers or writes, nobody needs to wake it.
        inbox.wake_at = usize::MAX;
        if let Some(gathering) = gathering {
            inbox = self.gather(inbox, gathering);
        }
        let now = clock();
        let (mut pending, mut bytes) = (Vec::new(), 0);
        while let Some(next) = inbox
            .queue
            .pop_front_if(|next| bytes == 0 || bytes + next.bytes <= GROUP_BYTES_MAX)
        {
            bytes += next.bytes;
            inbox.arriving.remove(&next.ticket);
            pending.push(next);
        }
        let through = inbox.arriving.values().copied().min().unwrap_or(now).min(now);
        Taken::Group { pending, now, through }
    }

    fn gather<'a>(&'a self, mut inbox: MutexGuard<'a, Inbox>, gathering: Gathering) -> MutexGuard<'a, Inbox> {
        let until = Instant::now() + gathering.time_max;
        loop {
            let before = inbox.queue.len();
            let paused = self
                .inbox_changed
                .wait_timeout_while(inbox, gathering.pause, |inbox| !inbox.closed);
            inbox = paused.unwrap_or_else(PoisonError::into_inner).0;
            if inbox.closed || inbox.queue.len() == before || Instant::now() >= until {
                return inbox;
            }
        }
    }

    /// Tells an appender how its append ended.
    pub(super) fn settle(&self, pending: Pending, result: Result<(), AppendError>) {
        self.room.add_permits(pending.permits as usize);
        if result.is_err() {
            self.release(pending.bytes);
        }
        // Who appended may have gone.
        drop(pending.done.send(result));
    }

    /// A segment begins.
    pub(super) fn begin_segment(&self, segment: Segment) {
        lock(&self.segments).push_back(segment);
    }

    /// Records of the newest segment are acknowledged.
    pub(super) fn extend_segment(&self, bytes: u64, end: u64) {
        if let Some(segment) = lock(&self.segments).back_mut() {
            segment.bytes = bytes;
            segment.end = end;
        }
    }

    // Reading.

    /// The first segment of this number or a later one, and the one after it.
    pub(super) fn segments_from(&self, number: u64) -> (Option<Segment>, Option<Segment>) {
        let segments = lock(&self.segments);
        let mut from = segments.iter().filter(|segment| segment.header.number >= number);
        (from.next().cloned(), from.next().cloned())
    }

    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        lock(&self.segments).iter().map(|segment| segment.bytes).sum()
    }

    /// Makes everything before `end` final, and deletes segments wholly before it. Blocks on the disk.
    pub(super) fn commit(&self, end: u64) -> io::Result<()> {
        // Held over the write, so that a later commit never ends up under an earlier one.
        let mut committed = lock(&self.committed);
        if end <= *committed {
            return Ok(());
        }
        committed::write(&self.dir, end)?;
        *committed = end;
        let mut done = Vec::new();
        {
            let mut segments = lock(&self.segments);
            // The newest may still be written to.
            while segments.len() > 1
                && let Some(segment) = segments.pop_front_if(|segment| segment.end <= end)
            {
                done.push(segment.path);
            }
        }
        for path in done {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It is before the committed offset, so the next opening tries again.
                Err(error) => tracing::warn!(path = %path.display(), %error, "a finished segment could not be deleted"),
            }
        }
        Ok(())
    }
}

/// An append on its way; see [`Shared::arrive`].
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    shared: &'a Shared,
    ticket: Option<u64>,
}

impl Arrival<'_> {
    /// Hands the ticket on to whoever removes it.
    fn keep(mut self) -> u64 {
        self.ticket.take().unwrap_or_default()
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            lock(&self.shared.inbox).arriving.remove(&ticket);
        }
    }
}

/// Room reserved for an append that is not yet queued.
struct Reserved<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}
