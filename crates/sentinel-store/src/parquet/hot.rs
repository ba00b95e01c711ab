//! Events that are visible and not yet in a file.
//!
//! A generation is an immutable value: an insert makes the next one, sharing all that is old, and readers keep the one they began
//! with. Small inserts stay plain events in the tail, which becomes rows only when a query asks or when it is long enough.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use domain::{Event, Span, Timestamp};

use super::convert::{Row, to_batch};
use super::rollup;
use super::schema::Table;

/// Events of the tail at which it becomes rows.
const TAIL_EVENTS_MAX: usize = 4_096;
/// Inserts in the tail at which it becomes rows: each later insert copies the list of them.
const TAIL_CHUNKS_MAX: usize = 1_024;
/// What a plain event takes in memory, roughly.
const EVENT_BYTES: usize = 1_400;
/// What an event takes besides its row: its id is remembered.
const ID_BYTES: usize = 40;

/// Rows that no longer change, with what they add up to once somebody asked.
#[derive(Debug)]
pub(super) struct Sealed {
    events: RecordBatch,
    hourly: OnceLock<RecordBatch>,
    daily: OnceLock<RecordBatch>,
}

impl Sealed {
    fn new(rows: &[Row<'_>]) -> Result<Self, ArrowError> {
        Ok(Self {
            events: to_batch(rows)?,
            hourly: OnceLock::new(),
            daily: OnceLock::new(),
        })
    }

    /// The rows of a table.
    pub(super) fn rows(&self, table: Table) -> Result<&RecordBatch, ArrowError> {
        let cell = match table {
            Table::Events => return Ok(&self.events),
            Table::Hourly => &self.hourly,
            Table::Daily => &self.daily,
        };
        if let Some(rolled) = cell.get() {
            return Ok(rolled);
        }
        let rolled = rollup::roll(&self.events, 0..self.events.num_rows(), table)?;
        Ok(cell.get_or_init(|| rolled))
    }
}

/// One insert's events of one partition.
#[derive(Debug)]
struct Chunk {
    partition: u32,
    events: Vec<(u64, Event)>,
}

#[derive(Debug, Default)]
struct Tail {
    chunks: Vec<Arc<Chunk>>,
    events: usize,
    sealed: OnceLock<Arc<Sealed>>,
}

impl Tail {
    fn seal(&self) -> Result<Arc<Sealed>, ArrowError> {
        if let Some(sealed) = self.sealed.get() {
            return Ok(Arc::clone(sealed));
        }
        let rows: Vec<_> = self
            .chunks
            .iter()
            .flat_map(|chunk| rows(chunk.partition, &chunk.events))
            .collect();
        let sealed = Arc::new(Sealed::new(&rows)?);
        Ok(Arc::clone(self.sealed.get_or_init(|| sealed)))
    }
}

fn rows(partition: u32, events: &[(u64, Event)]) -> impl Iterator<Item = Row<'_>> {
    events.iter().map(move |(offset, event)| Row {
        partition,
        offset: *offset,
        event,
    })
}

/// Events that go to files together.
#[derive(Debug, Clone, Default)]
pub(super) struct Generation {
    sealed: Vec<Arc<Sealed>>,
    sealed_bytes: usize,
    tail: Arc<Tail>,
    /// Events.
    pub(super) events: u64,
    /// Least and greatest time of an event.
    pub(super) times: Option<(Timestamp, Timestamp)>,
    /// One past the last offset of each partition that was inserted.
    pub(super) ends: BTreeMap<u32, u64>,
    /// Every event received before this is in this generation or an earlier one; known once no more inserts come.
    pub(super) complete_through: Timestamp,
    /// When the first insert was.
    pub(super) since: Option<Timestamp>,
}

impl Generation {
    /// Whether there is nothing to put into files, not even a position.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Memory taken, roughly.
    pub(super) fn bytes(&self) -> usize {
        let ids = usize::try_from(self.events).unwrap_or(usize::MAX).saturating_mul(ID_BYTES);
        self.sealed_bytes
            .saturating_add(self.tail.events * EVENT_BYTES)
            .saturating_add(ids)
    }

    /// The generation after an insert of these events of a span.
    pub(super) fn with(&self, span: Span, events: Vec<(u64, Event)>, now: Timestamp) -> Result<Self, ArrowError> {
        let mut next = self.clone();
        next.ends.insert(span.partition, span.end);
        next.since.get_or_insert(now);
        if events.is_empty() {
            return Ok(next);
        }
        next.events += events.len() as u64;
        for (_, event) in &events {
            let (min, max) = next.times.unwrap_or((event.timestamp, event.timestamp));
            next.times = Some((min.min(event.timestamp), max.max(event.timestamp)));
        }
        if events.len() >= TAIL_EVENTS_MAX {
            for part in events.chunks(2 * TAIL_EVENTS_MAX) {
                let rows: Vec<_> = rows(span.partition, part).collect();
                next.push(Arc::new(Sealed::new(&rows)?));
            }
            return Ok(next);
        }
        let mut chunks = self.tail.chunks.clone();
        let count = self.tail.events + events.len();
        chunks.push(Arc::new(Chunk {
            partition: span.partition,
            events,
        }));
        let tail = Tail {
            chunks,
            events: count,
            sealed: OnceLock::new(),
        };
        if tail.events >= TAIL_EVENTS_MAX || tail.chunks.len() >= TAIL_CHUNKS_MAX {
            next.push(tail.seal()?);
            next.tail = Arc::default();
        } else {
            next.tail = Arc::new(tail);
        }
        Ok(next)
    }

    /// Every row, in pieces.
    pub(super) fn pieces(&self) -> Result<Vec<Arc<Sealed>>, ArrowError> {
        let mut pieces = self.sealed.clone();
        if self.tail.events > 0 {
            pieces.push(self.tail.seal()?);
        }
        Ok(pieces)
    }

    fn push(&mut self, sealed: Arc<Sealed>) {
        self.sealed_bytes += sealed.events.get_array_memory_size();
        self.sealed.push(sealed);
    }
}
