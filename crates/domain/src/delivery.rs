//! Where events stand in a queue, and the batches in which they travel from it to the store.

use serde::{Deserialize, Serialize};

use crate::{Event, Timestamp};

/// The place of one event in a queue. Offsets grow by one per event within a partition; partitions are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Partition of the queue; the embedded log has only partition 0.
    pub partition: u32,
    /// Count of events before this one in the partition.
    pub offset: u64,
}

/// A run of neighbouring offsets in one partition: from `first` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Partition of the queue.
    pub partition: u32,
    /// First offset.
    pub first: u64,
    /// One past the last offset.
    pub end: u64,
}

impl Span {
    /// How many offsets it covers.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    /// Whether it covers none.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.first
    }
}

/// Events with the place each has in the queue: the unit a store takes in.
///
/// `events` is in offset order. Offsets inside `span` without an event were set aside as undecodable; the span covers them
/// all the same, so that a store which has the span never asks for them again.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// The offsets this batch settles.
    pub span: Span,
    /// The events, each with its offset in `span`.
    pub events: Vec<(u64, Event)>,
    /// Every event received before this is in this batch or an earlier one, as far as the queue can tell.
    pub complete_through: Timestamp,
}
