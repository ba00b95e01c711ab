//! Events that are visible and not yet in a file.
//!
//! A generation is an immutable value: an insert makes the next one, sharing all that is old, and readers keep the one they began
//! with. Small inserts stay plain events in the tail, which becomes rows only when a query asks or when it is long enough.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use domain::{Event, EventBatch, Timestamp};

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
    /// In the order of [`Table::ALL`], without the events.
    rollups: [OnceLock<RecordBatch>; Table::ALL.len() - 1],
}

impl Sealed {
    fn new(rows: &[Row<'_>]) -> Result<Self, ArrowError> {
        Ok(Self {
            events: to_batch(rows)?,
            rollups: std::array::from_fn(|_| OnceLock::new()),
        })
    }

    /// The rows of a table.
    pub(super) fn rows(&self, table: Table) -> Result<&RecordBatch, ArrowError> {
        let Some(cell) = (table as usize).checked_sub(1).and_then(|at| self.rollups.get(at)) else {
            return Ok(&self.events);
        };
        if let Some(rolled) = cell.get() {
            return Ok(rolled);
        }
        let rolled = rollup::roll(&self.events, 0..self.events.num_rows(), table)?;
        Ok(cell.get_or_init(|| rolled))
    }
}

/// Those events of one insert that are new: the batch itself, and which of its events count.
#[derive(Debug)]
pub(super) struct Chunk {
    batch: Arc<EventBatch>,
    /// Places in the batch.
    taken: Vec<u32>,
}

impl Chunk {
    /// The events of a batch from an offset on.
    pub(super) fn from_offset(batch: &Arc<EventBatch>, first: u64) -> Self {
        let offsets = (0..).zip(&batch.events);
        Self {
            taken: offsets
                .filter(|(_, (offset, _))| *offset >= first)
                .map(|(at, _)| at)
                .collect(),
            batch: Arc::clone(batch),
        }
    }

    /// Leaves out the events for which `fresh`, in their order, says no.
    pub(super) fn keep(&mut self, fresh: &[bool]) {
        let mut fresh = fresh.iter();
        self.taken.retain(|_| *fresh.next().unwrap_or(&true));
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> + Clone {
        self.taken.iter().map(|at| &self.batch.events[*at as usize].1)
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.taken.iter().map(|at| {
            let (offset, event) = &self.batch.events[*at as usize];
            Row {
                partition: self.batch.span.partition,
                offset: *offset,
                event,
            }
        })
    }
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
        let rows: Vec<_> = self.chunks.iter().flat_map(|chunk| chunk.rows()).collect();
        let sealed = Arc::new(Sealed::new(&rows)?);
        Ok(Arc::clone(self.sealed.get_or_init(|| sealed)))
    }
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

    /// The generation after an insert that settles the chunk's span.
    pub(super) fn with(&self, chunk: Chunk, now: Timestamp) -> Result<Self, ArrowError> {
        let mut next = self.clone();
        next.ends.insert(chunk.batch.span.partition, chunk.batch.span.end);
        next.since.get_or_insert(now);
        if chunk.len() == 0 {
            return Ok(next);
        }
        next.events += chunk.len() as u64;
        for event in chunk.events() {
            let (min, max) = next.times.unwrap_or((event.timestamp, event.timestamp));
            next.times = Some((min.min(event.timestamp), max.max(event.timestamp)));
        }
        if chunk.len() >= TAIL_EVENTS_MAX {
            let rows: Vec<_> = chunk.rows().collect();
            for part in rows.chunks(2 * TAIL_EVENTS_MAX) {
                next.push(Arc::new(Sealed::new(part)?));
            }
            return Ok(next);
        }
        let mut chunks = self.tail.chunks.clone();
        let count = self.tail.events + chunk.len();
        chunks.push(Arc::new(chunk));
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
