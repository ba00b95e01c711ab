//! Where the server is, what the store is called there, and how long to wait for it.

use std::fmt;
use std::time::Duration;

/// A password. Shown to nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name of the user.
    pub user: String,
    /// Its password.
    pub password: Password,
}

/// How the tables are laid out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Placement {
    /// One server.
    #[default]
    Single,
    /// A cluster: every statement runs on all of it, tables are replicated by the servers' own `{shard}` and `{replica}` macros, and
    /// shards are read through one table over all of them.
    Cluster {
        /// Name of the cluster in the servers' configuration.
        name: String,
    },
}

/// What counts are made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CountsFrom {
    /// From rollups where these have all that a question touches, from events otherwise.
    #[default]
    Rollups,
    /// From events alone: slower, and the same. For comparing the two.
    Events,
}

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The HTTP interface of each shard, `http://` or `https://`. A partition of the queue always goes to the same one; a single
    /// server is one shard.
    pub shards: Vec<String>,
    /// Database that the tables are in.
    pub database: String,
    /// Who writes and asks typed questions; absent: the server's default user.
    pub account: Option<Account>,
    /// Who runs people's SQL: a user that may read the five tables of answers and nothing else. Absent: as `account`, and then
    /// only settings confine what is asked.
    pub sql_account: Option<Account>,
    /// Names the queue whose positions come in. A queue that begins again at offset 0 needs another name.
    pub stream: String,
    /// One server or many.
    pub placement: Placement,
    /// Replicas that must have an insert before it counts as done; 0 leaves it to the server that took it.
    pub insert_quorum: u32,
    /// Longest wait for an insert.
    pub insert_time_max: Duration,
    /// Longest wait for a typed answer.
    pub query_time_max: Duration,
    /// Most memory of one typed question on the server.
    pub query_memory_bytes_max: u64,
    /// What counts are made from.
    pub counts_from: CountsFrom,
    /// Events older than this are removed; absent keeps them.
    pub retention: Option<Duration>,
    /// Hourly rollups older than this are removed; absent keeps them. Daily ones are kept for ever.
    pub hourly_retention: Option<Duration>,
    /// How long an event's id is known after its arrival, so that the event is recognised when it comes again elsewhere in the queue.
    pub id_window: Duration,
}

impl Config {
    /// One server at `url`, with the defaults.
    pub fn single(url: impl Into<String>) -> Self {
        Self {
            shards: vec![url.into()],
            database: "mcp".to_owned(),
            account: None,
            sql_account: None,
            stream: "mcp.events".to_owned(),
            placement: Placement::Single,
            insert_quorum: 0,
            insert_time_max: Duration::from_mins(1),
            query_time_max: Duration::from_secs(30),
            query_memory_bytes_max: 2 << 30,
            counts_from: CountsFrom::Rollups,
            retention: None,
            hourly_retention: None,
            id_window: Duration::from_hours(7 * 24),
        }
    }
}
