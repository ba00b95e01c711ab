//! The connection: statements out, blocks of columns in, faults told apart.

use std::time::Duration;

use clickhouse::native::Block;
use clickhouse::native::decode::Decode;
use clickhouse::{Client, Compression};
use tokio::time::timeout;

use super::config::{Account, Config, Placement};
use crate::{InsertError, QueryError};

/// What went wrong on the way to the server, there, or on the way back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The server did not answer in time: what was asked may have happened or not.
    #[error("waiting {0:?} for ClickHouse")]
    Late(Duration),
    /// The server refused, or could not be reached.
    #[error("asking ClickHouse")]
    Refused(#[source] clickhouse::error::Error),
    /// The answer is not what was asked for.
    #[error("reading ClickHouse's answer: {0}")]
    Answer(&'static str),
}

impl From<clickhouse::error::Error> for Fault {
    fn from(error: clickhouse::error::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for InsertError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.into())
    }
}

/// The server's words for a question that asks for too much: time, rows, bytes, memory, quota.
const OVER_LIMIT: [u32; 9] = [158, 159, 160, 161, 191, 201, 241, 307, 396];

impl Fault {
    /// The server's number and words for what it refused.
    pub(super) fn said(&self) -> Option<(u32, &str)> {
        let Self::Refused(clickhouse::error::Error::BadResponse(text)) = self else {
            return None;
        };
        let code = text.split("Code: ").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?;
        let words = text.split_once("DB::Exception: ").map_or(text.as_str(), |(_, words)| words);
        Some((code.parse().ok()?, words))
    }

    /// Whether the question was too much.
    pub(super) fn is_over_limit(&self) -> bool {
        matches!(self, Self::Late(_)) || self.said().is_some_and(|(code, _)| OVER_LIMIT.contains(&code))
    }
}

impl From<Fault> for QueryError {
    fn from(fault: Fault) -> Self {
        if fault.is_over_limit() {
            return Self::OverLimit(
                "the question needs more time or memory than queries may use; narrow the time range or the filters".to_owned(),
            );
        }
        Self::Failed(fault.into())
    }
}

/// A column of a block, by name.
pub(super) fn column<'a, T: Decode<'a>>(block: &'a Block, name: &str) -> Result<Vec<T>, Fault> {
    let column = block
        .column_by_name(name)
        .ok_or(Fault::Answer("a column that was asked for is not there"))?;
    Ok(column.iter::<T>()?.collect::<Result<_, _>>()?)
}

/// Tables of the store, under the names that the placement gives them.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) database: String,
    pub(super) placement: Placement,
}

/// Tables that are the same on every server of a cluster; the others are spread over its shards.
pub(super) const EVERYWHERE: [&str; 3] = ["blocks", "watermarks", "migrations"];

impl Names {
    /// What is read: over all shards.
    pub(super) fn read(&self, table: &str) -> String {
        format!("{}.{}", name(&self.database), name(table))
    }

    /// What is written: on the shard at hand.
    pub(super) fn local(&self, table: &str) -> String {
        match self.placement {
            Placement::Cluster { .. } if !EVERYWHERE.contains(&table) => self.read(&format!("{table}_local")),
            Placement::Single | Placement::Cluster { .. } => self.read(table),
        }
    }
}

/// A name in SQL.
pub(super) fn name(text: &str) -> String {
    format!("`{}`", text.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text in SQL.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Setting of newer servers: a table's rows are kept before its views run, so that a crash never leaves a rollup ahead of its events.
pub(super) const COMMIT_IN_ORDER: &str = "wait_for_part_commit_in_dependent_materialized_views";

/// Everything one needs to ask.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Whether the server can be told to keep a table's rows before it looks at what depends on them.
    pub(super) commits_in_order: bool,
    /// Tables of the system, and table functions by the names their tables have: nothing of them is for people's SQL.
    pub(super) hidden: Vec<String>,
    pub(super) config: Config,
    pub(super) names: Names,
    shards: Vec<Client>,
}

fn client(url: &str, account: Option<&Account>) -> Client {
    let client = Client::default().with_url(url).with_compression(Compression::Lz4);
    match account {
        Some(Account { user, password }) => client.with_user(user).with_password(password.reveal()),
        None => client,
    }
}

impl Link {
    pub(super) fn new(config: Config) -> Self {
        let names = Names {
            database: config.database.clone(),
            placement: config.placement.clone(),
        };
        let shards = config.shards.iter().map(|url| client(url, config.account.as_ref())).collect();
        Self {
            commits_in_order: false,
            hidden: Vec::new(),
            config,
            names,
            shards,
        }
    }

    /// Learns what the server can do.
    pub(super) async fn learn(&mut self) -> Result<(), Fault> {
        let sql = format!("SELECT count() AS count FROM system.settings WHERE name = '{COMMIT_IN_ORDER}'");
        for block in self.ask(&sql).await? {
            self.commits_in_order = column::<u64>(&block, "count")?.first().is_some_and(|count| *count > 0);
        }
        // What neither reads tables nor tells of the server may be asked: `one` is what a SELECT without FROM reads. The alias must not
        // be `name`, which the conditions would then mean.
        let hidden = "SELECT concat(database, '.', name) AS hidden FROM system.tables WHERE lower(database) IN ('system', 'information_schema') \
                      AND name NOT IN ('one', 'numbers', 'numbers_mt', 'zeros', 'zeros_mt') \
                      UNION ALL SELECT concat('_table_function.', name) AS hidden FROM system.table_functions \
                      WHERE name NOT IN ('numbers', 'numbers_mt', 'zeros', 'zeros_mt', 'values', 'null', 'generate_series', 'generateSeries')";
        self.hidden.clear();
        for block in self.ask(hidden).await? {
            self.hidden.extend(column::<String>(&block, "hidden")?);
        }
        Ok(())
    }

    /// The server that a partition of the queue goes to.
    pub(super) fn shard(&self, partition: u32) -> Client {
        let at = usize::try_from(partition).unwrap_or_default() % self.shards.len().max(1);
        self.shards.get(at).cloned().unwrap_or_default()
    }

    /// Who runs people's SQL.
    pub(super) fn sql_client(&self) -> Client {
        let account = self.config.sql_account.as_ref().or(self.config.account.as_ref());
        self.config
            .shards
            .first()
            .map_or_else(Client::default, |url| client(url, account))
    }

    /// Runs a statement that answers nothing, on the server of a partition.
    pub(super) async fn run(&self, partition: u32, sql: &str) -> Result<(), Fault> {
        let wait = self.config.insert_time_max;
        let statement = self.shard(partition).query_raw(sql).execute();
        timeout(wait, statement)
            .await
            .map_err(|_| Fault::Late(wait))?
            .map_err(Fault::from)
    }

    /// Asks a question within the limits of typed ones.
    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Block>, Fault> {
        self.ask_shard(0, sql).await
    }

    /// Asks the server of a partition.
    pub(super) async fn ask_shard(&self, partition: u32, sql: &str) -> Result<Vec<Block>, Fault> {
        let wait = self.config.query_time_max;
        let query = self
            .shard(partition)
            .query_raw(sql)
            .with_setting("max_execution_time", wait.as_secs_f64().ceil().to_string())
            .with_setting("max_memory_usage", self.config.query_memory_bytes_max.to_string());
        timeout(wait, blocks(query)).await.map_err(|_| Fault::Late(wait))?
    }
}

pub(super) async fn blocks(query: clickhouse::query::Query) -> Result<Vec<Block>, Fault> {
    let mut cursor = query.fetch_native()?;
    let mut blocks = Vec::new();
    while let Some(block) = cursor.next().await? {
        blocks.push(block);
    }
    Ok(blocks)
}
