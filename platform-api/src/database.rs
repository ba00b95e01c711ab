//! The relational database: accounts, teams, keys, and in standalone the objects too.
//!
//! SQLite (one file, one process) and PostgreSQL (many processes) are reached through one driver, with one set of numbered migrations and
//! SQL that both understand; what differs is in [`Dialect`]. Every multi-step write is a [`Transaction`] that holds the only write lock
//! there is: such writes are rare, and none of them can then meet a half-done other.

use std::path::Path;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow, install_default_drivers};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyPool, ConnectOptions as _, Executor as _, Row as _, SqlSafeStr as _};

use domain::Timestamp;

/// Longest wait for a connection before the caller is told to come again.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(5);
const POSTGRES_CONNECTIONS_MAX: u32 = 16;
const SQLITE_CONNECTIONS_MAX: u32 = 4;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "identity", include_str!("../migrations/0001_identity.sql")),
    (2, "objects", include_str!("../migrations/0002_objects.sql")),
    (3, "federation", include_str!("../migrations/0003_federation.sql")),
];

/// An open transaction. Dropping it without `commit` undoes it.
pub(crate) type Transaction = sqlx::Transaction<'static, Any>;

/// The database could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address is none of a database we know.
    #[error("the database address must begin with `sqlite:` or `postgres:`")]
    Address,
    #[error("opening the database")]
    Open(#[source] sqlx::Error),
    #[error("bringing the database to this version")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("asking the database")]
    Query(#[from] sqlx::Error),
    /// What is kept cannot be read back: it was changed by something else.
    #[error("reading {what} back from the database")]
    Damaged {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// A pool of connections. Clones are the same.
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
    dialect: Dialect,
}

impl Database {
    /// Opens a SQLite file, making it when it is not there.
    pub async fn open_file(path: &Path) -> Result<Self, DatabaseError> {
        Self::open(&format!("sqlite:{}?mode=rwc", path.display())).await
    }

    /// Opens the database at a `sqlite:` or `postgres:` address and brings it to this version.
    pub async fn open(address: &str) -> Result<Self, DatabaseError> {
        install_default_drivers();
        let dialect = match address.split_once(':') {
            Some(("sqlite", _)) => Dialect::Sqlite,
            Some(("postgres" | "postgresql", _)) => Dialect::Postgres,
            _ => return Err(DatabaseError::Address),
        };
        let options: AnyConnectOptions = address.parse().map_err(DatabaseError::Open)?;
        let pool = AnyPoolOptions::new()
            .acquire_timeout(CONNECTION_WAIT_MAX)
            .max_connections(match dialect {
                Dialect::Sqlite => SQLITE_CONNECTIONS_MAX,
                Dialect::Postgres => POSTGRES_CONNECTIONS_MAX,
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if dialect == Dialect::Sqlite {
                        // A transaction that was answered survives a loss of power, and readers never wait for a writer.
                        connection
                            .execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON")
                            .await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options.disable_statement_logging())
            .await
            .map_err(DatabaseError::Open)?;
        let steps = MIGRATIONS.iter().map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        let mut migrator = Migrator::with_migrations(steps.collect());
        // A newer version may have been here, and may still be: it only ever adds.
        migrator.set_ignore_missing(true);
        migrator.run(&pool).await.map_err(DatabaseError::Migrate)?;
        Ok(Self { pool, dialect })
    }

    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// A transaction that waits for every other one to end before it reads anything.
    pub(crate) async fn write(&self) -> Result<Transaction, DatabaseError> {
        match self.dialect {
            Dialect::Sqlite => Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?),
            Dialect::Postgres => {
                let mut transaction = self.pool.begin().await?;
                // Any number does, as long as nobody else uses it in this database.
                transaction.execute("SELECT pg_advisory_xact_lock(7361)").await?;
                Ok(transaction)
            }
        }
    }

    /// Closes every connection; SQLite then folds its log into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A time of a row.
pub(crate) fn time(row: &AnyRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// A time of a row that may be absent.
pub(crate) fn time_or_none(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}
