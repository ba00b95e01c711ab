//! The reading side: leases from the committed offset on, straight from the page cache.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::{Span, Timestamp};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use super::Clock;
use super::encode::{Item, decode};
use super::format::SEGMENT_HEADER_BYTES;
use super::recover::Start;
use super::segment::{RecordFault, RecordReader};
use super::shared::Shared;
use crate::{BatchLimit, EventTail, Lag, Lease, TailError};

/// More events than this are decoded aside, so that other tasks of the thread need not wait milliseconds.
const INLINE_EVENTS_MAX: u64 = 64;
/// Bytes that are given back together: finer steps would cost memory for each lease.
const RELEASE_BYTES: u64 = 64 << 10;

/// Reads the embedded log.
#[derive(Debug)]
pub struct LogTail {
    shared: Arc<Shared>,
    /// The end of the log; closed with the writer.
    arrivals: watch::Receiver<u64>,
    cursor: Cursor,
    /// Everything before this is final.
    committed: u64,
    /// Bytes handed out and not yet committed, with the offset after them.
    handed: VecDeque<(u64, u64)>,
    clock: ClockBox,
}

struct ClockBox(Clock);

impl std::fmt::Debug for ClockBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Clock").finish_non_exhaustive()
    }
}

/// Where reading goes on.
#[derive(Debug)]
struct Cursor {
    place: Option<Place>,
    /// Next offset to hand out.
    offset: u64,
    /// A record whose events are not all handed out.
    current: Option<Current>,
    /// `through` of the last record that is read to its end.
    through: Timestamp,
}

/// The next record in a segment.
#[derive(Debug)]
struct Place {
    number: u64,
    path: PathBuf,
    reader: RecordReader,
    at: u64,
}

#[derive(Debug)]
struct Current {
    text: Vec<u8>,
    at: usize,
    flags: u32,
    end: u64,
    record_bytes: u64,
    appended: Timestamp,
    through: Timestamp,
}

/// What one look at the log brings.
enum Step {
    /// A record is current.
    Record,
    /// A record was passed over: it is committed.
    Passed,
    /// The next record is in another segment whose offsets do not join.
    Gap,
    /// There is nothing more.
    End,
}

impl LogTail {
    pub(super) fn new(
        shared: Arc<Shared>,
        arrivals: watch::Receiver<u64>,
        start: Option<Start>,
        committed: u64,
        clock: Clock,
    ) -> Self {
        let offset = start.as_ref().map_or(committed, |start| start.first);
        let place = start.map(|start| Place {
            number: start.number,
            path: super::segment::path_of(&shared.dir, start.number),
            reader: start.reader,
            at: start.at,
        });
        let cursor = Cursor {
            place,
            offset,
            current: None,
            through: Timestamp::default(),
        };
        Self {
            shared,
            arrivals,
            cursor,
            committed,
            handed: VecDeque::new(),
            clock: ClockBox(clock),
        }
    }

    fn waiting(&self) -> u64 {
        self.arrivals.borrow().saturating_sub(self.cursor.offset.max(self.committed))
    }

    /// Reads now. Large amounts leave the thread's other tasks to another thread where there is one.
    fn read(&mut self, limit: BatchLimit) -> Result<Option<Lease>, TailError> {
        let other_threads = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        let lease = if other_threads && self.waiting() > INLINE_EVENTS_MAX {
            tokio::task::block_in_place(|| self.lease(limit))
        } else {
            self.lease(limit)
        };
        self.release_committed();
        lease
    }

    fn lease(&mut self, limit: BatchLimit) -> Result<Option<Lease>, TailError> {
        let (mut records, mut bytes, mut first) = (Vec::new(), 0, 0);
        while records.len() < limit.events.max(1) {
            if self.cursor.current.is_none() {
                match self.step(records.is_empty()) {
                    Ok(Step::Record) => {}
                    Ok(Step::Passed) => continue,
                    Ok(Step::Gap | Step::End) => break,
                    // What is read so far goes out first; the fault comes again with the next call.
                    Err(_) if !records.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            let Some(current) = &mut self.cursor.current else { continue };
            let (item, length) = Item::first(current.text.get(current.at..).unwrap_or_default(), current.flags);
            let fits = records.is_empty() || bytes + item.len() <= limit.bytes;
            let offset = self.cursor.offset;
            if offset >= self.committed {
                if !fits {
                    break;
                }
                if records.is_empty() {
                    first = offset;
                }
                bytes += item.len();
                records.push(item.read(offset));
            }
            current.at += length;
            self.advance();
        }
        let end = first + records.len() as u64;
        let span = Span {
            partition: 0,
            first,
            end,
        };
        Ok((!records.is_empty()).then_some(Lease {
            span,
            records,
            complete_through: self.cursor.through,
        }))
    }

    /// One event of the current record is done.
    fn advance(&mut self) {
        self.cursor.offset += 1;
        let Some(current) = self.cursor.current.take_if(|current| self.cursor.offset >= current.end) else {
            return;
        };
        self.cursor.through = current.through;
        self.hand(current.end, current.record_bytes);
    }

    /// Goes on to the next record. `may_jump` allows it to have another offset than follows from the one before.
    fn step(&mut self, may_jump: bool) -> Result<Step, TailError> {
        let number = self.cursor.place.as_ref().map_or(0, |place| place.number);
        let (segment, next) = self.shared.segments_from(number);
        let Some(segment) = segment else { return Ok(Step::End) };
        let here = self
            .cursor
            .place
            .as_ref()
            .is_some_and(|place| place.number == segment.header.number);
        if here && self.cursor.offset < segment.end {
            return self.read_record(segment.bytes);
        }
        let Some(next) = (if here { next } else { Some(segment) }) else {
            return Ok(Step::End);
        };
        if next.header.base != self.cursor.offset && !may_jump {
            return Ok(Step::Gap);
        }
        let reader = RecordReader::open(&next.path, next.header.salt).map_err(TailError::Unavailable)?;
        self.cursor.offset = next.header.base.max(self.cursor.offset);
        self.cursor.place = Some(Place {
            number: next.header.number,
            path: next.path,
            reader,
            at: SEGMENT_HEADER_BYTES as u64,
        });
        Ok(Step::Passed)
    }

    fn read_record(&mut self, segment_bytes: u64) -> Result<Step, TailError> {
        let (Some(place), expected) = (&mut self.cursor.place, self.cursor.offset) else {
            return Ok(Step::End);
        };
        let damaged = |path: &PathBuf, at, what: &str| TailError::Damaged {
            path: path.clone(),
            at,
            what: what.to_owned(),
        };
        let fault = |path: &PathBuf, at, fault| match fault {
            RecordFault::Io(error) => TailError::Unavailable(error),
            RecordFault::Bad(what) => damaged(path, at, what),
        };
        let at = place.at;
        let (header, body) = match place.reader.record(at, segment_bytes) {
            Ok(record) => record,
            Err(error) => return Err(fault(&place.path, at, error)),
        };
        if header.first != expected {
            return Err(damaged(
                &place.path,
                at,
                "a record has another offset than follows from the one before",
            ));
        }
        if header.end() <= self.committed {
            place.at += header.record_bytes();
            self.cursor.offset = header.end();
            self.cursor.through = header.through;
            self.hand(header.end(), header.record_bytes());
            return Ok(Step::Passed);
        }
        let text = decode(&header, body).map_err(|what| damaged(&place.path, at, &what))?;
        place.at += header.record_bytes();
        self.cursor.current = Some(Current {
            text,
            at: 0,
            flags: header.flags,
            end: header.end(),
            record_bytes: header.record_bytes(),
            appended: header.appended,
            through: header.through,
        });
        Ok(Step::Record)
    }

    fn hand(&mut self, end: u64, bytes: u64) {
        match self.handed.back_mut() {
            Some(last) if last.1 < RELEASE_BYTES => *last = (end, last.1 + bytes),
            _ => self.handed.push_back((end, bytes)),
        }
    }

    fn release_committed(&mut self) {
        while let Some((_, bytes)) = self.handed.pop_front_if(|(end, _)| *end <= self.committed) {
            self.shared.release(bytes);
        }
    }

    /// When the oldest event not handed out was appended.
    fn oldest(&self) -> Option<Timestamp> {
        if let Some(current) = &self.cursor.current {
            return Some(current.appended);
        }
        let number = self.cursor.place.as_ref().map_or(0, |place| place.number);
        let (segment, next) = self.shared.segments_from(number);
        match (&self.cursor.place, segment) {
            (Some(place), Some(segment)) if place.number == segment.header.number && self.cursor.offset < segment.end => {
                place.reader.peek(place.at).map(|header| header.appended)
            }
            (Some(place), Some(segment)) if place.number == segment.header.number => next.map(|next| next.header.created),
            (_, segment) => segment.map(|segment| segment.header.created),
        }
    }
}

impl EventTail for LogTail {
    async fn next(&mut self, limit: BatchLimit) -> Result<Lease, TailError> {
        loop {
            // Seen before looking, so that an append in between wakes us.
            self.arrivals.borrow_and_update();
            if self.waiting() > 0
                && let Some(lease) = self.read(limit)?
            {
                return Ok(lease);
            }
            if self.arrivals.changed().await.is_err() {
                return if self.waiting() > 0 {
                    self.read(limit)?.ok_or(TailError::Closed)
                } else {
                    Err(TailError::Closed)
                };
            }
        }
    }

    async fn commit(&mut self, partition: u32, end: u64) -> Result<(), TailError> {
        let end = end.min(*self.arrivals.borrow());
        if partition != 0 || end <= self.committed {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let commit = tokio::task::spawn_blocking(move || shared.commit(end)).await;
        commit.map_err(io::Error::other).flatten().map_err(TailError::Unavailable)?;
        self.committed = end;
        self.release_committed();
        Ok(())
    }

    fn lag(&self) -> Lag {
        let events = self.waiting();
        let oldest = if events > 0 { self.oldest() } else { None };
        Lag {
            events,
            age: oldest.map_or(Duration::ZERO, |oldest| (self.clock.0)().since(oldest)),
            bytes: self.shared.disk_bytes(),
        }
    }
}
