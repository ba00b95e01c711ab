//! The reference queue, in memory: what the contract means, without a disk. For tests and trials.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Event, Span, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::wire::{push_line, read_line};
use crate::{AppendError, BatchLimit, EventAppender, EventTail, Lag, Lease, TailError};

/// A queue of one partition that holds at most `bytes_max` bytes of events as JSON.
pub fn queue(bytes_max: u64) -> (MemoryAppender, MemoryTail) {
    partitioned(bytes_max, 1)
}

/// As [`queue`], with several partitions (at least one).
pub fn partitioned(bytes_max: u64, partitions: u32) -> (MemoryAppender, MemoryTail) {
    let state = State {
        partitions: (0..partitions.max(1)).map(|_| Partition::default()).collect(),
        bytes: 0,
    };
    let appender = MemoryAppender {
        state: Arc::new(Mutex::new(state)),
        bytes_max,
        appended: Arc::new(watch::Sender::new(0)),
    };
    let tail = appender.tail();
    (appender, tail)
}

/// Appends to a queue in memory. Clones append to the same one; the tail ends when all are dropped.
#[derive(Debug, Clone)]
pub struct MemoryAppender {
    state: Arc<Mutex<State>>,
    bytes_max: u64,
    /// Counts appends. Closed with the last appender.
    appended: Arc<watch::Sender<u64>>,
}

/// Hands out what was appended to a queue in memory.
#[derive(Debug)]
pub struct MemoryTail {
    state: Arc<Mutex<State>>,
    appended: watch::Receiver<u64>,
    /// Next offset to hand out, by partition.
    next: Vec<u64>,
    /// Partition to look at first, so that a busy one does not starve the others.
    turn: usize,
}

#[derive(Debug)]
struct State {
    partitions: Vec<Partition>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Partition {
    /// Offset of the first line held: everything before it is committed.
    first: u64,
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    received_at: Timestamp,
    appended: Instant,
}

impl Partition {
    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    fn from(&self, offset: u64) -> impl Iterator<Item = &Line> {
        let skip = usize::try_from(offset.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.lines.range(skip.min(self.lines.len())..)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryAppender {
    /// Another tail, which begins at the committed positions: what a reader sees after a restart.
    pub fn tail(&self) -> MemoryTail {
        let next = lock(&self.state).partitions.iter().map(|partition| partition.first).collect();
        MemoryTail {
            state: Arc::clone(&self.state),
            appended: self.appended.subscribe(),
            next,
            turn: 0,
        }
    }

    /// Appends a line as it is, event or not, to the first partition.
    #[cfg(any(test, feature = "test-support"))]
    pub fn append_line(&self, line: &[u8], received_at: Timestamp) -> Result<(), AppendError> {
        let line = Line {
            bytes: line.to_vec(),
            received_at,
            appended: Instant::now(),
        };
        self.push(vec![(0, line)])
    }

    fn encode(&self, events: &[Event]) -> Result<Vec<(usize, Line)>, AppendError> {
        let partitions = self.next_count();
        let appended = Instant::now();
        let encode = |event: &Event| {
            let mut bytes = Vec::new();
            push_line(event, &mut bytes).map_err(AppendError::Unavailable)?;
            bytes.pop();
            let line = Line {
                bytes,
                received_at: event.received_at,
                appended,
            };
            Ok((partition_of(event, partitions), line))
        };
        events.iter().map(encode).collect()
    }

    fn next_count(&self) -> usize {
        lock(&self.state).partitions.len()
    }

    fn push(&self, lines: Vec<(usize, Line)>) -> Result<(), AppendError> {
        let added: u64 = lines.iter().map(|(_, line)| line.bytes.len() as u64).sum();
        let mut state = lock(&self.state);
        if state.bytes + added > self.bytes_max {
            return Err(AppendError::Full {
                bytes: state.bytes,
                bytes_max: self.bytes_max,
            });
        }
        state.bytes += added;
        for (partition, line) in lines {
            state.partitions[partition].lines.push_back(line);
        }
        drop(state);
        self.appended.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// The partition of an event: one for all events of a namespace and server.
fn partition_of(event: &Event, partitions: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (event.namespace(), event.server()).hash(&mut hasher);
    let at = hasher.finish() % (partitions as u64);
    usize::try_from(at).unwrap_or(0)
}

impl EventAppender for MemoryAppender {
    async fn append(&self, events: &[Event]) -> Result<(), AppendError> {
        self.push(self.encode(events)?)
    }
}

impl EventTail for MemoryTail {
    async fn next(&mut self, limit: BatchLimit) -> Result<Lease, TailError> {
        loop {
            // Seen before looking, so that an append in between wakes us.
            self.appended.borrow_and_update();
            if let Some(lease) = self.lease(limit) {
                return Ok(lease);
            }
            if self.appended.changed().await.is_err() {
                return self.lease(limit).ok_or(TailError::Closed);
            }
        }
    }

    async fn commit(&mut self, partition: u32, end: u64) -> Result<(), TailError> {
        let at = partition as usize;
        let mut state = lock(&self.state);
        let mut freed = 0;
        if let Some(partition) = state.partitions.get_mut(at) {
            while partition.first < end
                && let Some(line) = partition.lines.pop_front()
            {
                partition.first += 1;
                freed += line.bytes.len() as u64;
            }
            self.next[at] = self.next[at].max(partition.first);
        }
        state.bytes -= freed;
        Ok(())
    }

    fn lag(&self) -> Lag {
        let state = lock(&self.state);
        let waiting = state.partitions.iter().zip(&self.next);
        let oldest = waiting
            .clone()
            .filter_map(|(partition, next)| partition.from(*next).next())
            .map(|line| line.appended)
            .min();
        Lag {
            events: waiting.map(|(partition, next)| partition.end().saturating_sub(*next)).sum(),
            age: oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed()),
            bytes: state.bytes,
        }
    }
}

impl MemoryTail {
    fn lease(&mut self, limit: BatchLimit) -> Option<Lease> {
        let state = lock(&self.state);
        let count = state.partitions.len();
        let at = (0..count)
            .map(|step| (self.turn + step) % count)
            .find(|at| state.partitions[*at].end() > self.next[*at])?;
        let partition = &state.partitions[at];
        let first = self.next[at].max(partition.first);
        let (mut records, mut bytes, mut complete_through) = (Vec::new(), 0, Timestamp::MIN);
        for (offset, line) in (first..).zip(partition.from(first)) {
            let over = records.len() >= limit.events || bytes + line.bytes.len() > limit.bytes;
            if over && !records.is_empty() {
                break;
            }
            bytes += line.bytes.len();
            complete_through = complete_through.max(line.received_at);
            records.push(read_line(offset, &line.bytes));
        }
        let end = first + records.len() as u64;
        let span = Span {
            partition: u32::try_from(at).unwrap_or(u32::MAX),
            first,
            end,
        };
        self.next[at] = end;
        self.turn = (at + 1) % count;
        Some(Lease {
            span,
            records,
            complete_through,
        })
    }
}

#[cfg(test)]
mod tests;
