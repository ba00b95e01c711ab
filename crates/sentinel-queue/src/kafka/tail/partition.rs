//! One partition as its present owner reads it: what is decoded, what is handed out, what is claimed. No I/O.

use std::collections::VecDeque;
use std::time::Duration;

use domain::{Span, Timestamp};
use tokio::time::Instant;

use super::super::position::{Committed, offset_of};
use super::super::record::{Line, unpack};
use crate::{BatchLimit, Record};

/// A record may arrive this much after an event in it was received elsewhere. Less is not vouched for.
const SETTLED: Duration = Duration::from_millis(250);
/// Share that a new record has in the mean of sizes.
const MEAN_SHARE: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Partition {
    number: u32,
    /// Everything before this is final.
    committed: u64,
    /// Everything before this is handed out.
    position: u64,
    /// Ends of leases beyond `committed`, ascending. Those beyond `position` were handed out by an earlier owner.
    claims: VecDeque<u64>,
    /// Decoded, from `position` on.
    ready: VecDeque<Ready>,
    ready_bytes: usize,
    /// When the first of `ready` came.
    since: Option<Instant>,
    /// The record to come next.
    next_record: i64,
    /// Means over records: events, bytes.
    mean: Option<(f64, f64)>,
    /// When the newest record read was appended.
    appended: Timestamp,
}

#[derive(Debug)]
struct Ready {
    line: Line,
    appended: Timestamp,
}

/// Records for one lease.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) span: Span,
    pub(super) records: Vec<Record>,
    pub(super) complete_through: Timestamp,
    /// When the first of them was appended.
    pub(super) appended: Timestamp,
    /// Whether this lease is new, and must be claimed.
    pub(super) claim: Claim,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody was given this lease yet.
    New,
    /// It was claimed by this process or another, and is given again as it was.
    Known,
}

/// What a partition has to say when asked for a lease.
#[derive(Debug)]
pub(super) enum Step {
    Cut(Cut),
    /// More may join until then.
    Wait(Instant),
    /// Nothing is there.
    Empty,
}

/// Records were lost between what was read and what came next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jump {
    None,
    /// The brokers forgot so many records before anyone read them.
    Lost(u64),
    /// The topic begins anew: it is not the one the group was reading.
    Back,
}

impl Partition {
    pub(super) fn new(number: u32, committed: Committed) -> Self {
        Self {
            number,
            committed: committed.end,
            position: committed.end,
            claims: committed.claims.into(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            since: None,
            next_record: super::super::position::record_of(committed.end),
            mean: None,
            appended: Timestamp::MIN,
        }
    }

    /// The record to come next.
    pub(super) fn next_record(&self) -> i64 {
        self.next_record
    }

    /// Takes in a record that the brokers appended at `appended`.
    pub(super) fn push(&mut self, at: i64, appended: Timestamp, value: &[u8], now: Instant) -> Jump {
        let jump = match at - self.next_record {
            0 => Jump::None,
            1.. => Jump::Lost(at.abs_diff(self.next_record)),
            _ => return Jump::Back,
        };
        let lines = unpack(at, value, self.position);
        self.weigh(value, lines.len());
        self.next_record = at + 1;
        self.appended = appended;
        for line in lines {
            self.ready_bytes += line.bytes;
            self.since.get_or_insert(now);
            self.ready.push_back(Ready { line, appended });
        }
        jump
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean of sizes below 2^53")]
    fn weigh(&mut self, value: &[u8], events: usize) {
        let new = (events.max(1) as f64, value.len() as f64);
        let mean = self.mean.get_or_insert(new);
        mean.0 += (new.0 - mean.0) * MEAN_SHARE;
        mean.1 += (new.1 - mean.1) * MEAN_SHARE;
    }

    /// Whether another record would still be of use for a lease of `limit`.
    pub(super) fn wants(&mut self, limit: BatchLimit) -> bool {
        match self.boundary() {
            Some(end) => offset_of(self.next_record, 0) < end,
            None => !self.is_full(limit),
        }
    }

    fn is_full(&self, limit: BatchLimit) -> bool {
        self.ready.len() >= limit.events.max(1) || (self.ready_bytes >= limit.bytes && !self.ready.is_empty())
    }

    /// The end of the lease that was handed out from here before. One of which nothing is left, because the brokers forgot it or
    /// because all that was in it is final, is passed over.
    fn boundary(&mut self) -> Option<u64> {
        let read = offset_of(self.next_record, 0);
        let first = self.ready.front().map(|ready| offset(&ready.line.record));
        loop {
            let end = self.claims.iter().copied().find(|end| *end > self.position)?;
            if read < end || first.is_some_and(|first| first < end) {
                return Some(end);
            }
            self.position = end;
        }
    }

    /// A lease, if one is to go out now: what was handed out before goes out as it was, whatever the limit.
    pub(super) fn cut(&mut self, limit: BatchLimit, age_max: Duration, now: Instant) -> Step {
        if let Some(end) = self.boundary() {
            if offset_of(self.next_record, 0) < end {
                return Step::Empty;
            }
            let count = self.ready.partition_point(|ready| offset(&ready.line.record) < end);
            return Step::Cut(self.take(count, end, Claim::Known));
        }
        let Some(since) = self.since else { return Step::Empty };
        if !self.is_full(limit) && now < since + age_max {
            return Step::Wait(since + age_max);
        }
        let mut bytes = 0;
        let fits = |ready: &&Ready| {
            bytes += ready.line.bytes;
            bytes <= limit.bytes
        };
        let count = self.ready.iter().take(limit.events.max(1)).take_while(fits).count().max(1);
        let end = self
            .ready
            .get(count)
            .map_or_else(|| offset_of(self.next_record, 0), |next| offset(&next.line.record));
        Step::Cut(self.take(count, end, Claim::New))
    }

    fn take(&mut self, count: usize, end: u64, claim: Claim) -> Cut {
        let span = Span {
            partition: self.number,
            first: self.position,
            end,
        };
        let taken: Vec<Ready> = self.ready.drain(..count).collect();
        self.ready_bytes -= taken.iter().map(|ready| ready.line.bytes).sum::<usize>();
        if self.ready.is_empty() {
            self.since = None;
        }
        self.position = end;
        if claim == Claim::New {
            self.claims.push_back(end);
        }
        let newest = taken.last().map_or(Timestamp::MIN, |ready| ready.appended);
        Cut {
            span,
            appended: taken.first().map_or(newest, |ready| ready.appended),
            records: taken.into_iter().map(|ready| ready.line.record).collect(),
            complete_through: newest.minus(SETTLED),
            claim,
        }
    }

    /// What the group should hold once everything before `end` is final.
    pub(super) fn would_commit(&self, end: u64) -> (u64, String) {
        let end = end.max(self.committed);
        let claims = self.claims.iter().copied().filter(|claim| *claim > end);
        (end, Committed::metadata(end, claims))
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// The group holds it.
    pub(super) fn commit(&mut self, end: u64) {
        self.committed = self.committed.max(end);
        while self.claims.front().is_some_and(|claim| *claim <= self.committed) {
            self.claims.pop_front();
        }
        if self.position < self.committed {
            self.position = self.committed;
            while self.ready.front().is_some_and(|ready| offset(&ready.line.record) < end) {
                self.ready_bytes -= self.ready.pop_front().map_or(0, |ready| ready.line.bytes);
            }
            if self.ready.is_empty() {
                self.since = None;
            }
        }
    }

    /// Events that wait, of `records` the brokers hold beyond those read; those decoded are counted, the others reckoned.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a reckoning, of counts below 2^53"
    )]
    pub(super) fn waiting(&self, records: u64) -> u64 {
        let mean = self.mean.map_or(1.0, |(events, _)| events);
        self.ready.len() as u64 + (records as f64 * mean).round() as u64
    }

    /// Bytes that `records` records take, before compression.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a reckoning, of counts below 2^53"
    )]
    pub(super) fn bytes(&self, records: u64) -> u64 {
        (records as f64 * self.mean.map_or(0.0, |(_, bytes)| bytes)).round() as u64
    }

    /// When the oldest that waits was appended, as far as that is known.
    pub(super) fn oldest(&self) -> Timestamp {
        self.ready.front().map_or(self.appended, |ready| ready.appended)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

fn offset(record: &Record) -> u64 {
    match record {
        Record::Event { offset, .. } | Record::Undecodable { offset, .. } => *offset,
    }
}

#[cfg(test)]
mod tests;
