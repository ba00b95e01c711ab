//! Settings of the store on ClickHouse as people write them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::config::{Account, Config, Password, Placement};

/// How to reach ClickHouse.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "ClickHouse")]
pub struct StoreArgs {
    /// HTTP interface of each shard, with commas between; a single server is one.
    #[arg(
        long = "clickhouse-url",
        env = "CLICKHOUSE_URL",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "http://clickhouse:8123",
        value_name = "URLS"
    )]
    pub urls: Vec<String>,

    /// Database that the tables are in.
    #[arg(
        long = "clickhouse-db",
        env = "CLICKHOUSE_DB",
        hide_env_values = true,
        default_value = "mcp",
        value_name = "NAME"
    )]
    pub database: String,

    /// User who writes and answers typed questions [default: the server's].
    #[arg(
        long = "clickhouse-user",
        env = "CLICKHOUSE_USER",
        hide_env_values = true,
        requires = "password_file",
        value_name = "NAME"
    )]
    pub user: Option<String>,

    /// File with the user's password; line ends are left out.
    #[arg(
        long = "clickhouse-password-file",
        env = "CLICKHOUSE_PASSWORD_FILE",
        hide_env_values = true,
        requires = "user",
        value_name = "FILE"
    )]
    pub password_file: Option<PathBuf>,

    /// Cluster of the servers' configuration that the tables are spread over [default: one server alone].
    #[arg(
        long = "clickhouse-cluster",
        env = "CLICKHOUSE_CLUSTER",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub cluster: Option<String>,

    /// Replicas that must have an insert before it counts as done; 0 leaves it to the server that took it.
    #[arg(
        long = "clickhouse-insert-quorum",
        env = "CLICKHOUSE_INSERT_QUORUM",
        hide_env_values = true,
        default_value_t = 0,
        value_name = "COUNT"
    )]
    pub insert_quorum: u32,

    /// Days that events are kept; 0 keeps them for ever. `migrate --apply` tells the database.
    #[arg(
        long = "clickhouse-retention-days",
        env = "CLICKHOUSE_RETENTION_DAYS",
        hide_env_values = true,
        default_value_t = 90,
        value_name = "DAYS"
    )]
    pub retention_days: u16,

    /// Days that hourly rollups are kept; 0 keeps them for ever, as daily ones always are. `migrate --apply` tells the database.
    #[arg(
        long = "clickhouse-hourly-retention-days",
        env = "CLICKHOUSE_HOURLY_RETENTION_DAYS",
        hide_env_values = true,
        default_value_t = 400,
        value_name = "DAYS"
    )]
    pub hourly_retention_days: u16,
}

/// Who runs people's SQL.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "ClickHouse")]
pub struct SqlAccountArgs {
    /// User who runs people's SQL, with the right to read the tables of answers and no other [default: as --clickhouse-user].
    #[arg(
        long = "clickhouse-sql-user",
        env = "CLICKHOUSE_SQL_USER",
        hide_env_values = true,
        requires = "sql_password_file",
        value_name = "NAME"
    )]
    pub sql_user: Option<String>,

    /// File with that user's password; line ends are left out.
    #[arg(
        long = "clickhouse-sql-password-file",
        env = "CLICKHOUSE_SQL_PASSWORD_FILE",
        hide_env_values = true,
        requires = "sql_user",
        value_name = "FILE"
    )]
    pub sql_password_file: Option<PathBuf>,
}

/// A password cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the password in {}", path.display())]
pub struct PasswordError {
    path: PathBuf,
    source: io::Error,
}

impl StoreArgs {
    /// Checked settings, for the positions of `stream`. Reads the password.
    pub fn config(self, stream: &str) -> Result<Config, PasswordError> {
        let days = |days: u16| (days > 0).then(|| Duration::from_hours(24 * u64::from(days)));
        Ok(Config {
            shards: self.urls,
            database: self.database,
            account: account(self.user, self.password_file)?,
            stream: stream.to_owned(),
            placement: self.cluster.map_or(Placement::Single, |name| Placement::Cluster { name }),
            insert_quorum: self.insert_quorum,
            retention: days(self.retention_days),
            hourly_retention: days(self.hourly_retention_days),
            ..Config::single("")
        })
    }
}

impl SqlAccountArgs {
    /// The account, with its password read; absent when none is named.
    pub fn account(self) -> Result<Option<Account>, PasswordError> {
        account(self.sql_user, self.sql_password_file)
    }
}

fn account(user: Option<String>, password_file: Option<PathBuf>) -> Result<Option<Account>, PasswordError> {
    let read = |(user, path): (String, PathBuf)| match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Account {
            user,
            password: Password::new(text.trim_end_matches(['\r', '\n'])),
        }),
        Err(source) => Err(PasswordError { path, source }),
    };
    user.zip(password_file).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        sql: SqlAccountArgs,
    }

    #[test]
    fn settings_follow_the_options() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let args = [
            "test",
            "--clickhouse-url=http://one:8123,http://two:8123",
            "--clickhouse-user=ann",
            "--clickhouse-retention-days=0",
            "--clickhouse-password-file",
            file.to_str().unwrap(),
        ];
        let command = Command::try_parse_from(args).unwrap();
        let config = command.store.config("mcp.events").unwrap();
        assert_eq!(config.shards, ["http://one:8123", "http://two:8123"]);
        assert_eq!(config.account.as_ref().unwrap().password, Password::new("secret"));
        assert_eq!(config.retention, None);
        assert_eq!(config.hourly_retention, Some(Duration::from_hours(24 * 400)));
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(command.sql.account().unwrap(), None);
        let alone = Command::try_parse_from(["test", "--clickhouse-user=ann"]).unwrap_err();
        assert!(alone.to_string().contains("--clickhouse-password-file"), "{alone}");
    }

    #[test]
    fn a_password_that_is_not_there_names_its_file() {
        let args = ["test", "--clickhouse-user=ann", "--clickhouse-password-file=/nowhere/at-all"];
        let error = Command::try_parse_from(args).unwrap().store.config("s").unwrap_err();
        assert_eq!(error.to_string(), "reading the password in /nowhere/at-all");
    }
}
