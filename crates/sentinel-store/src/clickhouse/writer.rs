//! Inserting: cut into blocks of the [chain](super::blocks), without repeats of ids, one insert per UTC day.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use domain::{Event, EventBatch, EventId, Position, Timestamp};
use futures::future::try_join_all;
use tokio::time::timeout;

use super::blocks::{Block, Chain, every_last};
use super::link::{COMMIT_IN_ORDER, Fault, Link, column, quoted};
use super::{repair, rows};
use crate::{InsertError, Inserted};

/// Most events of one block: the server must take it in as one piece.
const BLOCK_EVENTS_MAX: usize = 500_000;
/// Most ids asked for at once.
const LOOKUP_IDS_MAX: usize = 100_000;

/// What this process knows of a partition.
#[derive(Debug, Default)]
struct Place {
    /// Every event before it is in, and no block that begins before it is open.
    head: u64,
    /// Nothing of the queue before it is needed again; beyond `head` when what lies between had no events to insert.
    settled: u64,
    /// A block written down by whoever, that may be in partly.
    open: Option<Block>,
    /// Events of the open block whose others are still to come.
    held: Vec<(u64, Event)>,
}

type Partition = Arc<tokio::sync::Mutex<Place>>;

#[derive(Debug)]
pub(super) struct Writer {
    partitions: Mutex<HashMap<u32, Partition>>,
    ends: Mutex<HashMap<u32, u64>>,
}

/// A day's rows of a block.
type Days<'a> = BTreeMap<i32, Vec<(u64, &'a Event)>>;

impl Writer {
    /// Learns how far each partition is.
    pub(super) async fn open(link: &Link) -> Result<Self, Fault> {
        let (mut partitions, mut ends) = (HashMap::new(), HashMap::new());
        for (partition, last) in every_last(link).await? {
            // The last block may not be in; all before it is, or it could not have been written down.
            ends.insert(partition, last.first);
            let place = Place {
                head: last.first,
                settled: last.first,
                open: Some(last),
                held: Vec::new(),
            };
            partitions.insert(partition, Arc::new(tokio::sync::Mutex::new(place)));
        }
        Ok(Self {
            partitions: Mutex::new(partitions),
            ends: Mutex::new(ends),
        })
    }

    pub(super) fn durable_end(&self, partition: u32) -> u64 {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(&partition).copied().unwrap_or_default()
    }

    fn partition(&self, partition: u32) -> Partition {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(partitions.entry(partition).or_default())
    }

    /// Whether events of a block are held back until the rest of it comes.
    pub(super) async fn holds(&self) -> bool {
        let partitions: Vec<Partition> = {
            let known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().cloned().collect()
        };
        for partition in partitions {
            if !partition.lock().await.held.is_empty() {
                return true;
            }
        }
        false
    }

    pub(super) async fn insert(&self, link: &Link, batch: &EventBatch) -> Result<Inserted, InsertError> {
        let partition = batch.span.partition;
        let place = self.partition(partition);
        let mut place = place.lock().await;
        let chain = Chain { link, partition };
        if batch.span.first > place.settled {
            catch_up(&chain, &mut place).await?;
        }
        let mut inserted = Inserted::default();
        let known = batch.events.partition_point(|(offset, _)| *offset < place.settled);
        inserted.duplicates += known as u64;
        let mut events = &batch.events[known..];
        while place.settled < batch.span.end {
            let end = match events.get(BLOCK_EVENTS_MAX) {
                Some((offset, _)) => *offset,
                None => batch.span.end,
            };
            let Some(done) = advance(&chain, &mut place, &mut events, end, batch.complete_through).await? else {
                break;
            };
            inserted.stored += done.stored;
            inserted.duplicates += done.duplicates;
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.insert(partition, place.settled);
        }
        Ok(inserted)
    }
}

/// Someone else may have written meanwhile: what the chain says now.
async fn catch_up(chain: &Chain<'_>, place: &mut Place) -> Result<(), Fault> {
    if let Some(last) = chain.last().await?
        && last.first >= place.head
        && place.open.is_none_or(|open| open.first < last.first)
        && last.end > place.head
    {
        place.head = last.first;
        place.settled = last.first;
        place.open = Some(last);
        place.held.clear();
    }
    Ok(())
}

/// Inserts the next block, which ends at `end` unless another is written down. `None`: its other events are still to come.
async fn advance(
    chain: &Chain<'_>,
    place: &mut Place,
    events: &mut &[(u64, Event)],
    end: u64,
    complete_through: Timestamp,
) -> Result<Option<Inserted>, InsertError> {
    let recovering = place.open.is_some() || !place.held.is_empty();
    let wanted = Block { first: place.head, end };
    let mut block = place.open.unwrap_or(wanted);
    let mut count = events.partition_point(|(offset, _)| *offset < block.end.min(end));
    let mut repeats = HashSet::new();
    if !recovering {
        repeats = repeated(chain.link, chain.partition, &events[..count]).await?;
        if repeats.len() == count {
            // Nothing to insert: nothing to write down. The next block covers these offsets.
            *events = &events[count..];
            place.settled = end;
            return Ok(Some(Inserted {
                stored: 0,
                duplicates: count as u64,
            }));
        }
        block = chain.propose(wanted, complete_through).await?;
        place.open = Some(block);
        count = events.partition_point(|(offset, _)| *offset < block.end.min(end));
    }
    let (taken, rest) = events.split_at(count);
    if block.end > end {
        // The block goes on beyond this batch: its token stands for all of its rows. The queue keeps what is held here.
        place.held.extend_from_slice(taken);
        *events = rest;
        place.settled = place.settled.max(end);
        return Ok(None);
    }
    // What is held stays where it is until the block is in: whoever waits here may give up.
    let whole: Vec<(u64, &Event)> = place
        .held
        .iter()
        .filter(|(offset, _)| *offset >= block.first)
        .chain(taken)
        .map(|(offset, event)| (*offset, event))
        .collect();
    let own = block == wanted && !recovering;
    let done = store(chain, block, &whole, own.then_some(repeats)).await?;
    *events = rest;
    place.held.clear();
    place.open = None;
    place.head = block.end;
    place.settled = block.end;
    Ok(Some(done))
}

/// Inserts a block's rows: the same ones under the same tokens, however often. `repeats` are known for a block that is certainly new.
async fn store(
    chain: &Chain<'_>,
    block: Block,
    events: &[(u64, &Event)],
    repeats: Option<HashSet<u64>>,
) -> Result<Inserted, InsertError> {
    let new = repeats.is_some();
    let there = if new { HashMap::new() } else { landed(chain, block).await? };
    let repeats = match repeats {
        Some(repeats) => repeats,
        None => {
            repeated_of(
                chain.link,
                chain.partition,
                events.iter().map(|(offset, event)| (*offset, event.id)),
            )
            .await?
        }
    };
    let mut days: Days<'_> = BTreeMap::new();
    let mut inserted = Inserted::default();
    for &(offset, event) in events {
        let day = event.timestamp.day();
        // A day that is in was decided when it came in; asking again could decide otherwise.
        let keep = there
            .get(&day)
            .map_or(!repeats.contains(&offset), |there| there.contains(&offset));
        if keep {
            days.entry(day).or_default().push((offset, event));
            inserted.stored += 1;
        } else {
            inserted.duplicates += 1;
        }
    }
    for (day, rows) in &days {
        insert_day(chain, block, *day, rows, "").await?;
    }
    if !new {
        complete(chain, block, &days).await?;
    }
    Ok(inserted)
}

/// After a crash: makes sure that every day of a block is in, in the table and in every rollup.
///
/// A single server notes a token before it keeps the rows. Killed in between, it drops every further attempt though the rows are
/// not there; then they are inserted under another token.
async fn complete(chain: &Chain<'_>, block: Block, days: &Days<'_>) -> Result<(), InsertError> {
    if chain.link.config.placement != super::Placement::Single {
        return Ok(());
    }
    let there = landed(chain, block).await?;
    for (&day, rows) in days.iter().filter(|(day, _)| !there.contains_key(*day)) {
        repair::nothing_under_way(chain, block).await?;
        if repair::present(chain, block)
            .await?
            .iter()
            .any(|(_, present)| *present == day)
        {
            let (partition, Block { first, end }) = (chain.partition, block);
            let what = format!("partition {partition}, offsets {first} to {end} are in a rollup and not among the events");
            return Err(InsertError::Damaged(what));
        }
        let (partition, first) = (chain.partition, block.first);
        tracing::warn!(partition, first, day, "rows lost in a crash are inserted again");
        insert_day(chain, block, day, rows, &repair::unlike_any()).await?;
    }
    let days: Vec<i32> = days.keys().copied().collect();
    repair::rollups(chain, block, &days).await
}

async fn insert_day(chain: &Chain<'_>, block: Block, day: i32, rows: &[(u64, &Event)], suffix: &str) -> Result<(), Fault> {
    let (link, partition) = (chain.link, chain.partition);
    let bytes = rows::encode(partition, rows);
    let Block { first, end } = block;
    let token = format!("{}:{partition}:{first}-{end}:{day}{suffix}", link.config.stream);
    let sql = format!(
        "INSERT INTO {} ({}) FORMAT Native",
        link.names.local("events"),
        rows::columns()
    );
    let mut insert = link.shard(partition).insert_formatted_with(sql);
    // All of them said, since what they are by default differs between versions. One insert is one block is one part.
    let settings = [
        ("async_insert", "0"),
        ("insert_deduplicate", "1"),
        ("insert_deduplication_token", &token),
        ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ("materialized_views_ignore_errors", "0"),
        ("parallel_view_processing", "0"),
        ("max_insert_threads", "1"),
        ("max_insert_block_size", "1048576"),
        ("min_insert_block_size_rows", "1048576"),
        ("min_insert_block_size_bytes", "1073741824"),
        ("input_format_parallel_parsing", "0"),
        ("insert_quorum", &link.config.insert_quorum.to_string()),
        ("optimize_on_insert", "1"),
    ];
    for (name, value) in settings {
        insert = insert.with_setting(name, value);
    }
    if link.commits_in_order {
        insert = insert.with_setting(COMMIT_IN_ORDER, "1");
    }
    let wait = link.config.insert_time_max;
    let sent = async {
        for piece in bytes.chunks(PIECE_BYTES) {
            insert.send(bytes::Bytes::copy_from_slice(piece)).await?;
        }
        insert.end().await
    };
    timeout(wait, sent).await.map_err(|_| Fault::Late(wait))?.map_err(Fault::from)
}

/// Bytes compressed and sent at once.
const PIECE_BYTES: usize = 1 << 20;

/// Which offsets of a block are in, by day.
async fn landed(chain: &Chain<'_>, block: Block) -> Result<HashMap<i32, HashSet<u64>>, Fault> {
    let (table, partition) = (chain.link.names.read("events"), chain.partition);
    let Block { first, end } = block;
    let sql = format!(
        "SELECT toInt32(toDate(timestamp)) AS day, offset FROM {table} \
         WHERE partition = {partition} AND offset >= {first} AND offset < {end}"
    );
    let mut landed: HashMap<i32, HashSet<u64>> = HashMap::new();
    for block in chain.link.ask_shard(partition, &sql).await? {
        let (days, offsets) = (column::<i32>(&block, "day")?, column::<u64>(&block, "offset")?);
        for (day, offset) in days.into_iter().zip(offsets) {
            landed.entry(day).or_default().insert(offset);
        }
    }
    Ok(landed)
}

async fn repeated(link: &Link, partition: u32, events: &[(u64, Event)]) -> Result<HashSet<u64>, Fault> {
    repeated_of(link, partition, events.iter().map(|(offset, event)| (*offset, event.id))).await
}

/// Offsets of events whose id is stored at another place, or came before among these.
async fn repeated_of(link: &Link, partition: u32, events: impl Iterator<Item = (u64, EventId)>) -> Result<HashSet<u64>, Fault> {
    let mut repeats = HashSet::new();
    let mut ids: HashMap<EventId, u64> = HashMap::new();
    for (offset, id) in events {
        match ids.entry(id) {
            Entry::Occupied(_) => {
                repeats.insert(offset);
            }
            Entry::Vacant(new) => {
                new.insert(offset);
            }
        }
    }
    let all: Vec<EventId> = ids.keys().copied().collect();
    let asked = all.chunks(LOOKUP_IDS_MAX).map(|ids| places(link, partition, ids));
    for (id, place) in try_join_all(asked).await?.into_iter().flatten() {
        if let Some(&offset) = ids.get(&id)
            && place != (Position { partition, offset })
        {
            repeats.insert(offset);
        }
    }
    Ok(repeats)
}

/// Where ids are stored.
async fn places(link: &Link, partition: u32, ids: &[EventId]) -> Result<Vec<(EventId, Position)>, Fault> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut digits = String::with_capacity(ids.len() * 32);
    for id in ids {
        digits.push_str(&hex(id.as_bytes()));
    }
    // One text instead of a list of a hundred thousand: the server reads it at once, and still finds the ids by its key.
    let sql = format!(
        "SELECT reinterpretAsUInt128(id) AS id_bytes, partition, offset FROM {} WHERE id IN \
         (SELECT toFixedString(substring(unhex({}), number * 16 + 1, 16), 16) FROM numbers({})) \
         SETTINGS max_query_size = 16777216",
        link.names.read("event_ids"),
        quoted(&digits),
        ids.len()
    );
    let mut places = Vec::new();
    for block in link.ask_shard(partition, &sql).await? {
        let (partitions, offsets) = (column::<u32>(&block, "partition")?, column::<u64>(&block, "offset")?);
        let positions = partitions
            .into_iter()
            .zip(offsets)
            .map(|(partition, offset)| Position { partition, offset });
        let ids = column::<u128>(&block, "id_bytes")?
            .into_iter()
            .map(|id| EventId::from_bytes(id.to_le_bytes()));
        places.extend(ids.zip(positions));
    }
    Ok(places)
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}
