//! Which leases go into one insert, and what of them: pure.

use std::time::Duration;

use domain::{COLUMNS, Event, EventBatch, Timestamp, Value};
use sentinel_queue::dead_letters::NewDeadLetter;
use sentinel_queue::{BatchLimit, Lease, Record};

/// What an event takes beyond its texts.
const EVENT_BYTES: usize = 256;

/// Joins neighbouring leases until they are many, large or old enough.
#[derive(Debug)]
pub(crate) struct Batcher {
    limit: BatchLimit,
    age_max: Duration,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    lease: Lease,
    bytes: usize,
    since: Duration,
}

impl Batcher {
    pub(crate) fn new(limit: BatchLimit, age_max: Duration) -> Self {
        Self {
            limit,
            age_max,
            open: None,
        }
    }

    /// Bounds of the lease to ask for next, so that it fits into what is open.
    pub(crate) fn limit(&self) -> BatchLimit {
        match &self.open {
            None => self.limit,
            Some(open) => BatchLimit {
                events: self.limit.events.saturating_sub(open.lease.records.len()).max(1),
                bytes: self.limit.bytes.saturating_sub(open.bytes).max(1),
            },
        }
    }

    /// Takes a lease at time `now`, and gives back what is not to wait: it, both, or the one before when they do not join.
    pub(crate) fn push(&mut self, lease: Lease, now: Duration) -> Option<Lease> {
        // Without waiting nothing is ever joined, and nothing need be weighed.
        if self.age_max.is_zero() {
            return Some(lease);
        }
        let added = lease.records.iter().map(bytes_of).sum::<usize>();
        let Some(open) = &mut self.open else {
            self.open = Some(Open {
                lease,
                bytes: added,
                since: now,
            });
            return self.due(now);
        };
        let (held, new) = (&mut open.lease, lease);
        let joins = (held.span.partition, held.span.end) == (new.span.partition, new.span.first);
        if !joins {
            let before = self.open.replace(Open {
                lease: new,
                bytes: added,
                since: now,
            });
            return before.map(|open| open.lease);
        }
        held.span.end = new.span.end;
        held.complete_through = held.complete_through.max(new.complete_through);
        held.records.extend(new.records);
        open.bytes += added;
        self.due(now)
    }

    /// What is open, if it must not wait at time `now`.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Lease> {
        let limit = self.limit;
        let age_max = self.age_max;
        let is_due = |open: &Open| {
            open.lease.records.len() >= limit.events || open.bytes >= limit.bytes || now.saturating_sub(open.since) >= age_max
        };
        self.open.take_if(|open| is_due(open)).map(|open| open.lease)
    }

    /// What is open, due or not.
    pub(crate) fn close(&mut self) -> Option<Lease> {
        self.open.take().map(|open| open.lease)
    }

    /// Time from `now` until what is open is due; `None` when nothing is.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        self.open
            .as_ref()
            .map(|open| self.age_max.saturating_sub(now.saturating_sub(open.since)))
    }
}

/// Roughly what a record takes. Exact enough for a bound.
fn bytes_of(record: &Record) -> usize {
    match record {
        Record::Undecodable { bytes, .. } => bytes.len(),
        Record::Event { event, .. } => {
            let text = |value| if let Value::Text(text) = value { text.len() } else { 0 };
            let columns: usize = COLUMNS.iter().map(|column| text((column.read)(&event.payload))).sum();
            let attributes: usize = event
                .payload
                .attributes
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            EVENT_BYTES + columns + attributes
        }
    }
}

/// What of a lease goes into the store, and what aside.
pub(crate) fn split(lease: Lease, now: Timestamp) -> (EventBatch, Vec<NewDeadLetter>) {
    let (mut events, mut letters) = (Vec::with_capacity(lease.records.len()), Vec::new());
    for record in lease.records {
        match record {
            Record::Event { offset, event } => events.push((offset, event)),
            Record::Undecodable { offset, bytes, reason } => letters.push(NewDeadLetter {
                set_aside_at: now,
                partition: lease.span.partition,
                offset,
                reason,
                record: bytes,
            }),
        }
    }
    let batch = EventBatch {
        span: lease.span,
        events,
        complete_through: lease.complete_through,
    };
    (batch, letters)
}

/// An event that the store refuses, as a dead letter.
pub(crate) fn letter(partition: u32, offset: u64, event: &Event, reason: String, now: Timestamp) -> NewDeadLetter {
    NewDeadLetter {
        set_aside_at: now,
        partition,
        offset,
        reason,
        // Every event came from JSON; if it did not write, its id would still tell which it was.
        record: serde_json::to_vec(event).unwrap_or_else(|_| event.id.to_string().into_bytes()),
    }
}

/// Two batches that cover the same offsets, each with half of the events. With fewer than two events, the batch as it was.
pub(crate) fn halve(mut batch: EventBatch) -> Result<(EventBatch, EventBatch), EventBatch> {
    if batch.events.len() < 2 {
        return Err(batch);
    }
    let later = batch.events.split_off(batch.events.len() / 2);
    let middle = later.first().map_or(batch.span.end, |(offset, _)| *offset);
    let mut second = EventBatch {
        span: batch.span,
        events: later,
        complete_through: batch.complete_through,
    };
    second.span.first = middle;
    batch.span.end = middle;
    // The first half alone completes nothing.
    batch.complete_through = Timestamp::MIN;
    Ok((batch, second))
}

#[cfg(test)]
mod tests;
