//! From the bytes of a body to events: unpack, split, check each. Pure but for the memory and the rate it takes; it may run for a
//! tenth of a second, so large bodies are decoded off the async workers.
//!
//! ```text
//! bytes ─ unpack ─► text ─ split ─► one slice per event ─ parse, admit ─► events, and the faults beside them
//! ```

mod admit;
mod otlp;
mod split;
mod unpack;

use std::time::Duration;

use bytes::Bytes;
use domain::{Event, Timestamp, TraceId};

use crate::Config;
use crate::answer::{BodyFault, Rejections};
use crate::body::{Coding, Form, Layout};
use crate::budget::Held;
use crate::keys::Sender;

use admit::Admitter;

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
    pub(crate) sender: Sender,
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
        let (admitted, charged) = match self.form.layout {
            Layout::Telemetry(telemetry, wire) => {
                let Config {
                    events_max,
                    event_bytes_max,
                    ..
                } = self.config;
                let drafts = otlp::Drafts::split(&text, telemetry, wire, events_max, event_bytes_max)?;
                let count = drafts.len();
                charge(&mut self.held, &self.sender, count, self.now_monotonic)?;
                let mut admitter = Admitter::new(&self, count);
                drafts.each(|index, draft| admitter.add(index, draft));
                (admitter.finish(), count)
            }
            Layout::Json | Layout::Lines => {
                let items = split::split(&text, self.form.layout, self.config.events_max)?;
                charge(&mut self.held, &self.sender, items.len(), self.now_monotonic)?;
                let mut admitter = Admitter::new(&self, items.len());
                for (index, item) in items.iter().enumerate() {
                    admitter.add(index, admit::draft(item, self.config.event_bytes_max));
                }
                (admitter.finish(), items.len())
            }
        };
        Ok(Decoded {
            charged,
            bytes: text.len(),
            events: admitted.events,
            duplicates: admitted.duplicates,
            rejections: admitted.rejections,
            _held: self.held,
        })
    }
}

/// Holds memory for events, and takes them off the sender's rate.
fn charge(held: &mut Held, sender: &Sender, events: usize, now: Duration) -> Result<(), BodyFault> {
    held.grow(event_memory(events))?;
    sender.take(events, now).map_err(BodyFault::OverRate)
}

#[cfg(test)]
mod tests;
