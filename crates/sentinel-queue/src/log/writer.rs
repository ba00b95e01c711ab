//! The writer thread: one write and one sync for everything that waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::disk::{Disk, DiskFile as _};
use super::format::{RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::recover::End;
use super::segment::{Segment, path_of};
use super::shared::{Gathering, Pending, Shared, Taken};
use super::{Clock, Durability, LogConfig};
use crate::AppendError;

/// Longest wait for a group to gather, whatever a sync takes.
const GATHERING_MAX: Duration = Duration::from_millis(2);
/// Longest pause between two appends of a group that is gathering.
const PAUSE_MAX: Duration = Duration::from_micros(200);
/// A group's buffer larger than this is not kept for the next group.
const BUFFER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Writer<D: Disk> {
    config: LogConfig,
    disk: D,
    shared: Arc<Shared>,
    /// Tells the end of what may be read.
    arrivals: watch::Sender<u64>,
    active: Option<Active<D::File>>,
    /// Number of the newest segment.
    number: u64,
    /// Where the newest segment ends.
    previous_end: u64,
    /// Offset of the next event.
    next: u64,
    /// Everything before this is synced.
    settled: u64,
    /// `through` of the newest record.
    through: Timestamp,
    /// When the oldest byte not yet synced was written.
    unsynced_since: Option<Timestamp>,
    gathering: Option<Gathering>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Active<F> {
    file: F,
    salt: u64,
    bytes: u64,
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(config: LogConfig, disk: D, shared: Arc<Shared>, arrivals: watch::Sender<u64>, end: End) -> Self {
        Self {
            next: end.next.max(config.offset_min),
            config,
            disk,
            shared,
            arrivals,
            active: None,
            number: end.number,
            previous_end: end.offset,
            settled: 0,
            through: end.through,
            unsynced_since: None,
            gathering: None,
            buffer: Vec::new(),
        }
    }

    pub(super) fn run(mut self, clock: &Clock) {
        loop {
            match self.shared.take(self.patience(), self.gathering, clock) {
                Taken::Group { pending, now, through } => {
                    let (appends, before) = (pending.len(), Instant::now());
                    self.write(pending, now, through);
                    self.gathering = gathering(self.config.durability, appends, before.elapsed());
                }
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            self.sync_when_due(clock());
        }
        self.sync_now();
    }

    /// How long to wait for appends before a sync is due.
    fn patience(&self) -> Option<Duration> {
        match self.config.durability {
            Durability::Interval(every) if self.unsynced_since.is_some() => Some(every),
            _ => None,
        }
    }

    fn write(&mut self, group: Vec<Pending>, now: Timestamp, through: Timestamp) {
        let result = self.try_write(&group, now, through);
        if self.buffer.capacity() > BUFFER_BYTES_MAX {
            self.buffer = Vec::new();
        }
        match result {
            Ok(end) => {
                self.next = end;
                self.previous_end = end;
                self.through = through;
                let bytes = self.active.as_ref().map_or(0, |active| active.bytes);
                self.shared.extend_segment(bytes, end);
                self.arrivals.send_replace(end);
                for pending in group {
                    self.shared.settle(pending, Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(%error, dir = %self.config.dir.display(), "appending to the log failed; its senders are told to try again");
                self.leave_segment();
                for pending in group {
                    self.shared.settle(pending, Err(AppendError::Unavailable(copy(&error))));
                }
            }
        }
    }

    /// Writes a group and gives the offset after it.
    fn try_write(&mut self, group: &[Pending], now: Timestamp, through: Timestamp) -> io::Result<u64> {
        let bytes: u64 = group.iter().map(|pending| pending.bytes).sum();
        let mut active = match self.active.take() {
            Some(active) if !self.is_over(active.bytes, bytes) => active,
            Some(active) => {
                self.active = Some(active);
                self.sync_now();
                self.active = None;
                self.begin_segment(now)?
            }
            None => self.begin_segment(now)?,
        };
        let end = self.fill(group, active.salt, now, through);
        let mut write = || {
            active.file.write_all(&self.buffer)?;
            if self.config.durability == Durability::Fsync {
                active.file.sync()
            } else {
                Ok(())
            }
        };
        let written = write();
        if written.is_ok() {
            active.bytes += self.buffer.len() as u64;
        }
        // Kept also after a failure, to be cut and left.
        self.active = Some(active);
        written?;
        match self.config.durability {
            Durability::Fsync => self.settled = end,
            Durability::Interval(_) | Durability::Memory => self.unsynced_since = self.unsynced_since.or(Some(now)),
        }
        Ok(end)
    }

    fn is_over(&self, held: u64, added: u64) -> bool {
        held > SEGMENT_HEADER_BYTES as u64 && held + added > self.config.segment_bytes
    }

    fn begin_segment(&mut self, now: Timestamp) -> io::Result<Active<D::File>> {
        let header = SegmentHeader {
            salt: fresh_salt(),
            number: self.number + 1,
            base: self.next,
            previous_end: self.previous_end,
            created: now,
        };
        let path = path_of(&self.config.dir, header.number);
        let file = self.disk.create(&path, &header.encode())?;
        self.number = header.number;
        self.settled = self.next;
        let bytes = SEGMENT_HEADER_BYTES as u64;
        self.shared.begin_segment(Segment {
            path,
            header,
            bytes,
            end: self.next,
        });
        Ok(Active {
            file,
            salt: header.salt,
            bytes,
        })
    }

    /// Puts the group's records into the buffer, and gives the offset after them.
    fn fill(&mut self, group: &[Pending], salt: u64, now: Timestamp, through: Timestamp) -> u64 {
        self.buffer.clear();
        let mut first = self.next;
        let mut left = group.iter().map(|pending| pending.bodies.len()).sum::<usize>();
        for body in group.iter().flat_map(|pending| &pending.bodies) {
            left -= 1;
            let header = RecordHeader {
                body_bytes: u32::try_from(body.bytes.len()).unwrap_or(u32::MAX),
                text_bytes: body.text_bytes,
                body_crc: body.crc,
                count: body.count,
                first,
                settled: self.settled,
                appended: now,
                // Only the last record completes the group.
                through: if left == 0 { through } else { self.through },
                flags: body.flags,
            };
            self.buffer.extend_from_slice(&header.encode(salt));
            self.buffer.extend_from_slice(&body.bytes);
            first = header.end();
        }
        first
    }

    /// After a failed write or sync nothing more goes into the segment. What was not acknowledged is cut off if that works;
    /// else the next segment's header says where this one ends.
    fn leave_segment(&mut self) {
        self.unsynced_since = None;
        if let Some(mut active) = self.active.take()
            && let Err(error) = active.file.cut(active.bytes)
        {
            tracing::warn!(%error, segment = self.number, "an unfinished write could not be cut off; it is skipped when read");
        }
    }

    fn sync_when_due(&mut self, now: Timestamp) {
        if let Durability::Interval(every) = self.config.durability
            && let Some(since) = self.unsynced_since
            // A clock that was set back makes it due as well.
            && (now < since || now.since(since) >= every)
        {
            self.sync_now();
        }
    }

    fn sync_now(&mut self) {
        if self.unsynced_since.take().is_none() {
            return;
        }
        let Some(active) = &mut self.active else { return };
        match active.file.sync() {
            Ok(()) => self.settled = self.next,
            Err(error) => {
                tracing::error!(%error, segment = self.number, "syncing the log failed; acknowledged events since the last sync do not survive a power cut");
                self.active = None;
            }
        }
    }
}

/// How the next group should gather, after one of `appends` that took `time`.
///
/// A sync costs the processor as much as taking in ten single events, and senders that wait for their answers come back in the time
/// after one. So where several shared a sync, the next one waits as long as more keep coming; a sender alone waits for nobody.
fn gathering(durability: Durability, appends: usize, time: Duration) -> Option<Gathering> {
    (durability == Durability::Fsync && appends > 1).then(|| Gathering {
        pause: (time / 2).min(PAUSE_MAX),
        time_max: (time * 4).min(GATHERING_MAX),
    })
}

impl<D: Disk> Drop for Writer<D> {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// The same error once more, for each of several waiters.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// A number nobody can foresee: the standard library seeds its hashers from the system.
fn fresh_salt() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
