//! From the bytes of a body to events: unpack, split, check each. Pure but for the memory and the rate it takes; it may run for a
//! tenth of a second, so large bodies are decoded off the async workers.
//!
//! ```text
//! bytes ─ unpack ─► text ─ split ─► one slice per event ─ parse, admit ─► events, and the faults beside them
//! ```

mod admit;
mod split;
mod unpack;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::{Event, Timestamp, TraceId};

use crate::Config;
use crate::answer::{BodyFault, Rejections};
use crate::body::{Coding, Form};
use crate::budget::Held;
use crate::keys::Key;

/// Memory an event takes besides its texts, rounded up.
const EVENT_BYTES: usize = 2 << 10;

/// Bodies up to this size are decoded where they are: handing them to another thread costs more than it saves.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// What `events` events take besides their texts.
pub(crate) const fn event_memory(events: usize) -> usize {
    events.saturating_mul(EVENT_BYTES)
}

/// One body to decode, with all that is needed for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) body: Bytes,
    pub(crate) form: Form,
    pub(crate) key: Arc<Key>,
    /// When the request came in.
    pub(crate) now: Timestamp,
    /// The same on the clock that rates are counted by.
    pub(crate) now_monotonic: Duration,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) config: Config,
    pub(crate) held: Held,
}

/// What a body held.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) events: Vec<Event>,
    /// Events whose id another one in the body had already.
    pub(crate) duplicates: usize,
    pub(crate) rejections: Rejections,
    /// Events charged to the key's rate.
    pub(crate) charged: usize,
    /// Bytes once unpacked.
    pub(crate) bytes: usize,
    /// The memory of all this, given back with it.
    pub(crate) _held: Held,
}

impl Job {
    /// Whether this is quick enough for an async worker.
    pub(crate) fn is_small(&self) -> bool {
        self.form.coding == Coding::Identity && self.body.len() <= INLINE_BYTES_MAX
    }

    pub(crate) fn run(mut self) -> Result<Decoded, BodyFault> {
        let text = unpack::unpack(
            &self.body,
            self.form.coding,
            self.config.decompressed_bytes_max,
            &mut self.held,
        )?;
        let items = split::split(&text, self.form.layout, self.config.events_max)?;
        self.held.grow(event_memory(items.len()))?;
        self.key.take(items.len(), self.now_monotonic).map_err(BodyFault::OverRate)?;
        let admitted = admit::admit(&items, &self);
        Ok(Decoded {
            charged: items.len(),
            bytes: text.len(),
            events: admitted.events,
            duplicates: admitted.duplicates,
            rejections: admitted.rejections,
            _held: self.held,
        })
    }
}

#[cfg(test)]
mod tests;
