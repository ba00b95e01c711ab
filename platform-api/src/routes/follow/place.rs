//! Where a follower is, and how it gets on.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use domain::Position;
use domain::analytics::StoredEvent;
use sentinel_store::query::{Filter, Order, Scope, Watermark};
use sentinel_store::{EventQuery, QueryError, Reader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::sieve;

/// Events read at once.
const READ_MAX: u32 = 500;
/// Shortest time between two reads: under load a follower reads some events at a time instead of each alone.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// Most partitions of a queue.
const PARTITIONS_MAX: usize = 1_024;
/// Offsets beyond this are in no store, so that every store can count with signed numbers.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// The last offset passed in each partition; a partition not named is passed from its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(BTreeMap<u32, u64>);

impl Place {
    /// Reads `partition:offset`, several with commas between them.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut place = BTreeMap::new();
        for part in text.split(',') {
            let (partition, offset) = part.split_once(':')?;
            let offset = offset.parse().ok().filter(|offset| *offset <= OFFSET_MAX)?;
            if place.len() == PARTITIONS_MAX || place.insert(partition.parse().ok()?, offset).is_some() {
                return None;
            }
        }
        Some(Self(place))
    }

    fn pass(&mut self, at: Position) {
        self.0.insert(at.partition, at.offset);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        Ok(())
    }
}

/// The place after everything that is visible now.
///
/// Nobody counts for us how many events a partition has, so we look: from the newest event on in growing strides, then by halves.
pub(super) async fn end(reader: &dyn Reader) -> Result<Place, QueryError> {
    let mut place = Place::default();
    let newest = read(reader, Order::Newest(None), 1).await?;
    let newest = newest.first().map(position);
    let mut next = first_after(reader, None).await?;
    while let Some(first) = next.filter(|_| place.0.len() < PARTITIONS_MAX) {
        let known = newest.filter(|newest| newest.partition == first.partition).unwrap_or(first);
        let last = last_of_partition(reader, known).await?;
        place.pass(last);
        next = first_after(
            reader,
            Some(Position {
                offset: OFFSET_MAX,
                ..last
            }),
        )
        .await?;
    }
    Ok(place)
}

async fn last_of_partition(reader: &dyn Reader, known: Position) -> Result<Position, QueryError> {
    let (mut last, mut stride) = (known, 1_024);
    let mut beyond = OFFSET_MAX;
    while last.offset < beyond {
        let probe = last.offset.saturating_add(stride).min(beyond) - 1;
        // The first event after the probe, if there is one in this partition, is later than `last`.
        let found = first_after(
            reader,
            Some(Position {
                offset: probe.max(last.offset),
                ..last
            }),
        )
        .await?;
        match found.filter(|found| found.partition == last.partition) {
            Some(found) => {
                last = found;
                stride = stride.saturating_mul(2);
            }
            None if probe <= last.offset => break,
            None => {
                beyond = probe;
                stride = ((beyond - last.offset) / 2).max(1);
            }
        }
    }
    Ok(last)
}

async fn first_after(reader: &dyn Reader, at: Option<Position>) -> Result<Option<Position>, QueryError> {
    Ok(read(reader, Order::Arrival(at), 1).await?.first().map(position))
}

async fn read(reader: &dyn Reader, order: Order, limit: u32) -> Result<Vec<StoredEvent>, QueryError> {
    let query = EventQuery {
        filter: Filter::all(Scope::All),
        order,
        limit,
    };
    Ok(reader.events(query).await?.events)
}

fn position(stored: &StoredEvent) -> Position {
    Position {
        partition: stored.partition,
        offset: stored.offset,
    }
}

/// Reads every event after a place once, and gives those that pass the filter.
#[derive(Debug)]
pub(super) struct Follower {
    reader: Arc<dyn Reader>,
    place: Place,
    filter: Filter,
    horizon: watch::Receiver<Watermark>,
    found: VecDeque<(String, StoredEvent)>,
    rests_until: Instant,
}

impl Follower {
    pub(super) fn new(reader: Arc<dyn Reader>, place: Place, filter: Filter) -> Self {
        let mut horizon = reader.horizon();
        // The first read happens at once, whatever the horizon is.
        horizon.mark_changed();
        Self {
            reader,
            place,
            filter,
            horizon,
            found: VecDeque::new(),
            rests_until: Instant::now(),
        }
    }

    /// The next event with its id; `None` when the store is closed. Dropping the future loses nothing: the place moves on only
    /// together with what was found.
    pub(super) async fn next(&mut self) -> Result<Option<(String, StoredEvent)>, QueryError> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok(Some(found));
            }
            if self.horizon.changed().await.is_err() {
                return Ok(None);
            }
            // `changed` has marked this version as seen, so an insert from here on wakes us again.
            sleep_until(self.rests_until).await;
            self.rests_until = Instant::now() + READ_PAUSE;
            if self.read_on().await? == Read::Rest {
                self.horizon.mark_changed();
                self.rests_until = Instant::now();
            }
        }
    }

    /// Reads on in every partition, once.
    async fn read_on(&mut self) -> Result<Read, QueryError> {
        let mut rest = Read::Everything;
        let mut starts: Vec<Option<Position>> = self
            .place
            .0
            .iter()
            .map(|(partition, offset)| {
                Some(Position {
                    partition: *partition,
                    offset: *offset,
                })
            })
            .collect();
        // A partition before the first one known would never come up after it.
        if self.place.0.keys().next().is_none_or(|first| *first > 0) {
            starts.insert(0, None);
        }
        for start in starts {
            let events = read(&*self.reader, Order::Arrival(start), READ_MAX).await?;
            let full = events.len() >= READ_MAX as usize;
            if self.take(start, events) == Read::Everything && full {
                rest = Read::Rest;
            }
        }
        Ok(rest)
    }

    /// Passes the events of the partition that was asked about and of those never seen; others have their own turn. Tells
    /// whether it passed every event.
    fn take(&mut self, start: Option<Position>, events: Vec<StoredEvent>) -> Read {
        let mut own: Vec<u32> = start.iter().map(|start| start.partition).collect();
        for stored in events {
            let at = position(&stored);
            if !own.contains(&at.partition) {
                if self.place.0.contains_key(&at.partition) {
                    return Read::Rest;
                }
                own.push(at.partition);
            }
            self.place.pass(at);
            if sieve::passes(&self.filter, &stored.event) {
                self.found.push_back((self.place.to_string(), stored));
            }
        }
        Read::Everything
    }
}

/// Whether something was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Everything,
    Rest,
}

#[cfg(test)]
mod tests;
