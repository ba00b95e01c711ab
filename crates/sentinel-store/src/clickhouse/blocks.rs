//! The chain of blocks: what makes an insert happen once, whoever does it and however often.
//!
//! The engine drops an insert whose token it has seen, in the table and in every rollup. That is worth as much as the token's promise
//! to stand for the same rows, and a process that was killed does not know which rows it sent. So before a block is inserted, its
//! bounds are written down: per partition of the queue a chain, each block beginning where the one before it ends. Writing it down is
//! an insert too, with a token that names the *beginning* alone: of two writers that want different ends, the first wins, and both
//! read back what was written and insert that. A process that was paused for an hour, a rebalance with two owners, a retry with
//! other bounds: all insert the same rows under the same token, and the engine keeps one.
//!
//! What follows for a writer that starts: the last block of the chain may be in wholly, partly or not at all. Its rows are handed
//! out again by the queue, which forgets only what [`durable_end`](crate::EventWriter::durable_end) covers; once they are all there
//! the block is inserted again, and what was in stays in.

use super::link::{Fault, Link, column, quoted};
use domain::Timestamp;

/// Tokens tried until a block is written down: each crash at the worst moment uses up one.
const ATTEMPTS_MAX: u32 = 8;

/// A run of offsets that is inserted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) first: u64,
    pub(super) end: u64,
}

/// The blocks of one partition, on the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) link: &'a Link,
    pub(super) partition: u32,
}

impl Chain<'_> {
    /// The latest block.
    pub(super) async fn last(&self) -> Result<Option<Block>, Fault> {
        self.sync().await?;
        self.one("TRUE ORDER BY first DESC, written_at").await
    }

    /// Writes down that a block follows, and tells which does: another's, when that was first.
    pub(super) async fn propose(&self, block: Block, complete_through: Timestamp) -> Result<Block, Fault> {
        let Block { first, end } = block;
        let (stream, partition) = (&self.link.config.stream, self.partition);
        let table = self.link.names.local("blocks");
        let (nanos, version) = (complete_through.nanos().max(0), super::schema::wanted());
        let quorum = self.link.config.insert_quorum;
        for attempt in 0..ATTEMPTS_MAX {
            let token = quoted(&format!("{stream}:{partition}:{first}:{attempt}"));
            let stream = quoted(stream);
            let sql = format!(
                "INSERT INTO {table} (stream, partition, first, end, complete_through, schema_version) SETTINGS async_insert = 0, \
                 insert_deduplicate = 1, insert_deduplication_token = {token}, insert_quorum = {quorum} \
                 VALUES ({stream}, {partition}, {first}, {end}, fromUnixTimestamp64Nano({nanos}, 'UTC'), {version})"
            );
            self.link.run(partition, &sql).await?;
            self.sync().await?;
            if let Some(written) = self.one(&format!("first = {first} ORDER BY written_at")).await? {
                return Ok(written);
            }
            // The token is known and the row is not there: it is on its way, or was lost in a crash.
            super::repair::nothing_under_way(self, block).await?;
        }
        Err(Fault::Answer("a block that was written down is not there"))
    }

    /// A replica may be behind; what decides must not be.
    async fn sync(&self) -> Result<(), Fault> {
        if self.link.config.placement == super::Placement::Single {
            return Ok(());
        }
        let sql = format!("SYSTEM SYNC REPLICA {}", self.link.names.local("blocks"));
        self.link.run(self.partition, &sql).await
    }

    async fn one(&self, condition: &str) -> Result<Option<Block>, Fault> {
        let (table, stream) = (self.link.names.local("blocks"), quoted(&self.link.config.stream));
        let partition = self.partition;
        let sql = format!(
            "SELECT first, end FROM {table} WHERE stream = {stream} AND partition = {partition} AND {condition} LIMIT 1"
        );
        for block in self.link.ask_shard(partition, &sql).await? {
            let (firsts, ends) = (column::<u64>(&block, "first")?, column::<u64>(&block, "end")?);
            if let Some((first, end)) = firsts.into_iter().zip(ends).next() {
                return Ok(Some(Block { first, end }));
            }
        }
        Ok(None)
    }
}

/// The latest block of every partition.
pub(super) async fn every_last(link: &Link) -> Result<Vec<(u32, Block)>, Fault> {
    let (table, stream) = (link.names.local("blocks"), quoted(&link.config.stream));
    let sql = format!(
        "SELECT partition, max(first) AS begins, argMax(end, first) AS ends FROM {table} WHERE stream = {stream} GROUP BY partition"
    );
    let mut lasts = Vec::new();
    for block in link.ask(&sql).await? {
        let (firsts, ends) = (column::<u64>(&block, "begins")?, column::<u64>(&block, "ends")?);
        let blocks = firsts.into_iter().zip(ends).map(|(first, end)| Block { first, end });
        lasts.extend(column::<u32>(&block, "partition")?.into_iter().zip(blocks));
    }
    Ok(lasts)
}
