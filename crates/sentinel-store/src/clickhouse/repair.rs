//! After a crash of the server: which rollups have a block, and filling those that do not.
//!
//! A rollup's rows name the latest offset of each partition that went into them. A block is the last of its partition until it is
//! known to be in, so a rollup has it exactly when one of its rows names an offset of the block, and one insert of a block into a
//! rollup is in as a whole or not at all.

use std::collections::HashSet;

use super::blocks::{Block, Chain};
use super::link::{Fault, column, quoted};
use super::schema::{number, selection_of};
use crate::InsertError;
use crate::memory::now;

/// Rollups that are filled from events, each with the rollup of days that is filled from it.
const FROM_EVENTS: [(&str, Option<&str>); 3] = [
    ("calls_hourly", Some("calls_daily")),
    ("servers_hourly", Some("servers_daily")),
    ("calls_minutely", None),
];

/// The end of a token that no insert had before.
pub(super) fn unlike_any() -> String {
    format!(":again-{}", now().nanos())
}

/// Refuses while an insert of the block may still land.
pub(super) async fn nothing_under_way(chain: &Chain<'_>, block: Block) -> Result<(), Fault> {
    let token = format!("{}:{}:{}", chain.link.config.stream, chain.partition, block.first);
    let sql = format!(
        "SELECT count() AS count FROM system.processes WHERE startsWith(Settings['insert_deduplication_token'], {})",
        quoted(&token)
    );
    if number(&chain.link.ask_shard(chain.partition, &sql).await?, "count")? > 0 {
        return Err(Fault::Answer("an earlier insert of the same block is still under way"));
    }
    Ok(())
}

/// The rollups that have a block, with the days that they have of it.
pub(super) async fn present(chain: &Chain<'_>, block: Block) -> Result<HashSet<(String, i32)>, Fault> {
    let (partition, Block { first, end }) = (chain.partition, block);
    let one = |rollup: &str| {
        let table = chain.link.names.local(rollup);
        format!(
            "SELECT DISTINCT {} AS rollup, toInt32(toDate(bucket)) AS day FROM {table} WHERE \
             arrayExists((p, o) -> p = {partition} AND o >= {first} AND o < {end}, latest.1, latest.2)",
            quoted(rollup)
        )
    };
    let rollups = FROM_EVENTS
        .iter()
        .flat_map(|(hourly, daily)| [Some(*hourly), *daily])
        .flatten();
    let sql = rollups.map(one).collect::<Vec<_>>().join(" UNION ALL ");
    let mut present = HashSet::new();
    for block in chain.link.ask_shard(partition, &sql).await? {
        let (rollups, days) = (column::<String>(&block, "rollup")?, column::<i32>(&block, "day")?);
        present.extend(rollups.into_iter().zip(days));
    }
    Ok(present)
}

/// Fills the rollups that do not have days of a block from its events, and tells all its ids once more.
pub(super) async fn rollups(chain: &Chain<'_>, block: Block, days: &[i32]) -> Result<(), InsertError> {
    ids(chain, block).await?;
    let there = present(chain, block).await?;
    let has = |there: &HashSet<(String, i32)>, rollup: &str, day: i32| there.contains(&(rollup.to_owned(), day));
    let mut filled = false;
    for (hourly, _) in FROM_EVENTS {
        for &day in days.iter().filter(|day| !has(&there, hourly, **day)) {
            fill(chain, hourly, block, day, None).await?;
            filled = true;
        }
    }
    // Filling the hours fills their days.
    let there = if filled { present(chain, block).await? } else { there };
    for (hourly, daily) in FROM_EVENTS {
        let Some(daily) = daily else { continue };
        for &day in days.iter().filter(|day| !has(&there, daily, **day)) {
            fill(chain, daily, block, day, Some(hourly)).await?;
        }
    }
    Ok(())
}

/// Fills a rollup; one of days by what fills the one of its hours.
async fn fill(chain: &Chain<'_>, rollup: &str, block: Block, day: i32, hours: Option<&str>) -> Result<(), Fault> {
    nothing_under_way(chain, block).await?;
    let selection = selection_of(hours.unwrap_or(rollup)).ok_or(Fault::Answer("a rollup has no view"))?;
    let selection = match hours {
        Some(_) => selection.replace("toStartOfHour(", "toStartOfDay("),
        None => selection.to_owned(),
    };
    let grouped: Vec<&str> = KEYS
        .into_iter()
        .filter(|key| selection.contains(&format!("{key},")))
        .collect();
    let sql = format!(
        "INSERT INTO {} {} {selection} FROM {} AS event WHERE {} AND toDate(event.timestamp) = toDate({day}) GROUP BY bucket, {}",
        chain.link.names.local(rollup),
        settings(chain, block),
        chain.link.names.local("events"),
        of_block(chain, block),
        grouped.join(", ")
    );
    tracing::warn!(
        partition = chain.partition,
        first = block.first,
        day,
        rollup,
        "a rollup lost a block in a crash and is filled"
    );
    chain.link.run(chain.partition, &sql).await
}

/// Columns that rollups may group by.
const KEYS: [&str; 8] = [
    "namespace",
    "server",
    "team_id",
    "tool_name",
    "rpc_method",
    "event_type",
    "outcome",
    "decision",
];

/// An id that is told twice with one place is no repeat, so they are simply told again.
async fn ids(chain: &Chain<'_>, block: Block) -> Result<(), Fault> {
    let sql = format!(
        "INSERT INTO {} {} SELECT UUIDToNum(id), now('UTC'), partition, offset FROM {} AS event WHERE {}",
        chain.link.names.local("event_ids"),
        settings(chain, block),
        chain.link.names.local("events"),
        of_block(chain, block)
    );
    chain.link.run(chain.partition, &sql).await
}

fn of_block(chain: &Chain<'_>, block: Block) -> String {
    let (partition, Block { first, end }) = (chain.partition, block);
    format!("event.partition = {partition} AND event.offset >= {first} AND event.offset < {end}")
}

/// A token of its own: what is filled here was not there, whatever the server remembers.
fn settings(chain: &Chain<'_>, block: Block) -> String {
    let (stream, partition, Block { first, end }) = (&chain.link.config.stream, chain.partition, block);
    let token = quoted(&format!("{stream}:{partition}:{first}-{end}{}", unlike_any()));
    format!("SETTINGS async_insert = 0, insert_deduplicate = 1, insert_deduplication_token = {token}")
}
