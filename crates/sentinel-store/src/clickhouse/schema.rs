//! Migrations: numbered, applied once, recorded in the database, forwards only.
//!
//! A file is SQL with names in braces: `{events}` is the table that is written here, `{on_cluster}` and the engines follow from the
//! placement, so that one text serves one server and a replicated cluster. Statements may be applied again (`IF NOT EXISTS`): what
//! was interrupted is simply applied once more. A file that was released never changes; a change is a file of its own.

use std::time::Duration;

use super::config::{Config, Placement};
use super::link::{EVERYWHERE, Fault, Link, Names, column, name, quoted};

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order, from 1.
    pub version: u32,
    /// What it is about.
    pub name: &'static str,
    template: &'static str,
}

/// Every step, in order.
pub static MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "events",
        template: include_str!("migrations/0001_events.sql"),
    },
    Migration {
        version: 2,
        name: "rollups",
        template: include_str!("migrations/0002_rollups.sql"),
    },
];

/// The version that this program needs.
pub(super) fn wanted() -> u32 {
    MIGRATIONS.last().map_or(0, |last| last.version)
}

/// A fault of a migration.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The server was not reached, or refused.
    #[error("reading which migrations are applied")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A statement failed. What came before it is applied, and the same may be tried again.
    #[error("applying migration {version} ({name}), statement {statement}")]
    Failed {
        /// Of the migration.
        version: u32,
        /// Of the migration.
        name: &'static str,
        /// Which of its statements, from 1.
        statement: usize,
        /// What the server said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database was written by a later version of this program.
    #[error("the database has migration {applied}, this program knows {known}; use a newer version of it")]
    Newer {
        /// Of the database.
        applied: u32,
        /// Of this program.
        known: u32,
    },
}

/// A migration that is not applied, with its statements as they would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub migration: Migration,
    /// Its statements, rendered.
    pub statements: Vec<String>,
}

/// What would have to be applied to the database. Changes nothing.
pub async fn plan(config: &Config) -> Result<Vec<Planned>, MigrationError> {
    pending(&Link::new(config.clone())).await
}

/// Applies what is not applied, and sets how long rows are kept. Returns what was applied.
pub async fn apply(config: &Config) -> Result<Vec<Planned>, MigrationError> {
    let link = Link::new(config.clone());
    let planned = pending(&link).await?;
    for planned in &planned {
        let migration = planned.migration;
        let failed = |statement, fault: Fault| MigrationError::Failed {
            version: migration.version,
            name: migration.name,
            statement,
            source: fault.into(),
        };
        for (at, statement) in planned.statements.iter().enumerate() {
            link.run(0, statement).await.map_err(|fault| failed(at + 1, fault))?;
        }
        let (version, name) = (migration.version, quoted(migration.name));
        let table = link.names.local("migrations");
        let record = format!(
            "INSERT INTO {table} (version, name) SETTINGS async_insert = 0, insert_deduplicate = 1, \
             insert_deduplication_token = 'migration:{version}' VALUES ({version}, {name})"
        );
        link.run(0, &record)
            .await
            .map_err(|fault| failed(planned.statements.len() + 1, fault))?;
    }
    for (at, statement) in keeping(config).iter().enumerate() {
        link.run(0, statement).await.map_err(|fault| MigrationError::Failed {
            version: wanted(),
            name: "retention",
            statement: at + 1,
            source: fault.into(),
        })?;
    }
    Ok(planned)
}

async fn pending(link: &Link) -> Result<Vec<Planned>, MigrationError> {
    let applied = applied(link)
        .await
        .map_err(|fault| MigrationError::Unreadable(fault.into()))?;
    let known = wanted();
    if applied > known {
        return Err(MigrationError::Newer { applied, known });
    }
    Ok(MIGRATIONS
        .iter()
        .filter(|migration| migration.version > applied)
        .map(|&migration| Planned {
            migration,
            statements: render(migration, &link.config),
        })
        .collect())
}

/// The latest migration of the database; 0 for none.
pub(super) async fn applied(link: &Link) -> Result<u32, Fault> {
    let exists = format!(
        "SELECT count() AS count FROM system.tables WHERE database = {} AND name = 'migrations'",
        quoted(&link.config.database)
    );
    if number(&link.ask(&exists).await?, "count")? == 0 {
        return Ok(0);
    }
    let latest = format!(
        "SELECT toUInt64(max(version)) AS version FROM {}",
        link.names.local("migrations")
    );
    Ok(u32::try_from(number(&link.ask(&latest).await?, "version")?).unwrap_or(u32::MAX))
}

/// The only number of an answer.
pub(super) fn number(blocks: &[clickhouse::native::Block], name: &str) -> Result<u64, Fault> {
    let mut numbers = Vec::new();
    for block in blocks {
        numbers.extend(column::<u64>(block, name)?);
    }
    Ok(numbers.first().copied().unwrap_or_default())
}

/// What the view that fills a rollup selects, without what it selects from: for filling it by hand.
pub(super) fn selection_of(rollup: &str) -> Option<&'static str> {
    let view = format!("EXISTS {{{rollup}_fill}}");
    let statement = MIGRATIONS
        .iter()
        .flat_map(|migration| migration.template.split(";\n"))
        .find(|statement| statement.contains(&view))?;
    let (_, selection) = statement.split_once(" AS\n")?;
    selection.split_once("\nFROM ").map(|(selection, _)| selection)
}

const WINDOW: &str = "non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000, \
                      replicated_deduplication_window_seconds = 604800";

/// The statements of a migration, as they run with this configuration.
pub fn render(migration: Migration, config: &Config) -> Vec<String> {
    let names = Names {
        database: config.database.clone(),
        placement: config.placement.clone(),
    };
    let mut statements = Vec::new();
    if migration.version == 1 {
        statements.push(format!(
            "CREATE DATABASE IF NOT EXISTS {}{}",
            name(&config.database),
            on_cluster(&config.placement)
        ));
        statements.push(fill(RECORD, &names));
    }
    for text in migration.template.split(";\n") {
        let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
        let code = code.join("\n");
        if code.trim().is_empty() {
            continue;
        }
        statements.push(fill(code.trim(), &names));
        statements.extend(spread(&code, &names));
    }
    statements
}

const RECORD: &str = "CREATE TABLE IF NOT EXISTS {migrations}{on_cluster}
(
    version     UInt32,
    name        String,
    applied_at  DateTime('UTC') DEFAULT now()
)
ENGINE = {MergeTree:everywhere}
ORDER BY version
SETTINGS {dedup}";

fn on_cluster(placement: &Placement) -> String {
    match placement {
        Placement::Single => String::new(),
        Placement::Cluster { name: cluster } => format!(" ON CLUSTER {}", name(cluster)),
    }
}

/// Fills in the names in braces.
fn fill(template: &str, names: &Names) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((word, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        filled.push_str(&match word {
            "on_cluster" => on_cluster(&names.placement),
            "dedup" => WINDOW.to_owned(),
            _ if word.contains("MergeTree") => engine(word, &names.placement),
            table => names.local(table),
        });
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// An engine; `:everywhere` asks for one copy of the table on every server, not one per shard.
fn engine(word: &str, placement: &Placement) -> String {
    let (engine, everywhere) = word.split_once(':').map_or((word, false), |(engine, _)| (engine, true));
    match placement {
        Placement::Single => engine.to_owned(),
        Placement::Cluster { .. } => {
            let shard = if everywhere { "everywhere" } else { "{shard}" };
            let replica = if everywhere { "{shard}-{replica}" } else { "{replica}" };
            format!("Replicated{engine}('/clickhouse/tables/{shard}/{{database}}/{{table}}', '{replica}')")
        }
    }
}

/// In a cluster, the table over all shards of one that a statement makes.
fn spread(code: &str, names: &Names) -> Option<String> {
    let Placement::Cluster { name: cluster } = &names.placement else {
        return None;
    };
    let table = code.trim().strip_prefix("CREATE TABLE IF NOT EXISTS {")?.split('}').next()?;
    (!EVERYWHERE.contains(&table)).then(|| {
        let (read, local) = (names.read(table), names.local(table));
        let (cluster, database) = (quoted(cluster), quoted(&names.database));
        let on_cluster = on_cluster(&names.placement);
        format!(
            "CREATE TABLE IF NOT EXISTS {read}{on_cluster} AS {local}\nENGINE = Distributed({cluster}, {database}, '{table}_local')"
        )
    })
}

/// Statements that make the database keep rows as long as configured: not a migration, since the configuration may change any time.
/// A bound that is no longer configured stays until somebody removes it by hand: nothing is kept longer by mistake.
fn keeping(config: &Config) -> Vec<String> {
    let names = Names {
        database: config.database.clone(),
        placement: config.placement.clone(),
    };
    let kept = [
        ("events", "toDateTime(timestamp)", config.retention),
        ("event_ids", "seen_at", Some(config.id_window)),
        ("calls_hourly", "bucket", config.hourly_retention),
        ("servers_hourly", "bucket", config.hourly_retention),
    ];
    let statement = |(table, time, kept): (&str, &str, Option<Duration>)| {
        let (table, on_cluster, seconds) = (names.local(table), on_cluster(&config.placement), kept?.as_secs().max(1));
        Some(format!(
            "ALTER TABLE {table}{on_cluster} MODIFY TTL {time} + INTERVAL {seconds} SECOND SETTINGS materialize_ttl_after_modify = 0"
        ))
    };
    kept.into_iter().filter_map(statement).collect()
}
