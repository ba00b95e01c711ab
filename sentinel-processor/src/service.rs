//! The processor as a process of its own, from Kafka into ClickHouse: its arguments, and what runs beside the loop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use sentinel_queue::kafka::TailArgs;
use sentinel_store::clickhouse::{Account, ClickHouseStore, Config as StoreConfig, Password, Placement};
use service_kit::error::Chain;
use service_kit::{ProcessArgs, Stage, Tasks};
use tokio::time::sleep;

use crate::Args;

/// How often readers elsewhere are told how far this process is.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// Reads events from Kafka and stores them in ClickHouse, each once. Any number of these processes share the work.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sentinel-processor", version)]
pub struct Command {
    #[command(flatten)]
    pub processor: Args,

    /// Address for `/live`, `/ready` and `/metrics`.
    #[arg(
        long = "processor-admin-listen",
        env = "SENTINEL_PROCESSOR_ADMIN_LISTEN",
        hide_env_values = true,
        default_value = "0.0.0.0:9102",
        value_name = "ADDRESS",
        help_heading = "Processor"
    )]
    pub admin_listen: SocketAddr,

    /// Most bytes of dead letters that are kept; beyond them the processor waits until some are replayed or discarded.
    #[arg(
        long = "processor-dead-letters-bytes-max",
        env = "SENTINEL_PROCESSOR_DEAD_LETTERS_BYTES_MAX",
        hide_env_values = true,
        default_value_t = 64 << 20,
        value_name = "BYTES",
        help_heading = "Processor"
    )]
    pub dead_letters_bytes_max: u64,

    #[command(flatten)]
    pub kafka: TailArgs,

    #[command(flatten)]
    pub store: StoreArgs,

    #[command(flatten)]
    pub process: ProcessArgs,
}

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

    /// User who writes [default: the server's].
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
}

impl StoreArgs {
    /// Checked settings, for the positions of `stream`. Reads the password.
    pub fn config(self, stream: &str) -> anyhow::Result<StoreConfig> {
        let account = self.user.zip(self.password_file).map(|(user, file)| {
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let password = Password::new(text.trim_end_matches(['\r', '\n']));
            anyhow::Ok(Account { user, password })
        });
        Ok(StoreConfig {
            shards: self.urls,
            database: self.database,
            account: account.transpose()?,
            stream: stream.to_owned(),
            placement: self.cluster.map_or(Placement::Single, |name| Placement::Cluster { name }),
            ..StoreConfig::single("")
        })
    }
}

/// Tells readers in other processes, now and then, how far the store of this one is.
pub fn tell_readers(store: ClickHouseStore, tasks: &Tasks) {
    let shutdown = tasks.shutdown(Stage::Pipeline);
    let writer = uuid::Uuid::new_v4().to_string();
    tasks.spawn(Stage::Pipeline, "horizon", async move {
        while shutdown.or(sleep(TELL_PAUSE)).await.is_some() {
            if let Err(error) = store.tell(&writer).await {
                tracing::warn!(error = %Chain(&error), "readers could not be told how far this process is; it is repeated");
            }
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn help_is_as_agreed() {
        insta::assert_snapshot!(Command::command().term_width(100).render_long_help());
    }

    #[test]
    fn settings_of_the_store_follow_the_options() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let args = [
            "sentinel-processor",
            "--clickhouse-url=http://one:8123,http://two:8123",
            "--clickhouse-user=ann",
            "--clickhouse-password-file",
            file.to_str().unwrap(),
        ];
        let config = Command::try_parse_from(args).unwrap().store.config("mcp.events").unwrap();
        assert_eq!(config.shards, ["http://one:8123", "http://two:8123"]);
        assert_eq!(config.account.as_ref().unwrap().password, Password::new("secret"));
        assert!(!format!("{config:?}").contains("secret"));
        let alone = Command::try_parse_from(["sentinel-processor", "--clickhouse-user=ann"]).unwrap_err();
        assert!(alone.to_string().contains("--clickhouse-password-file"), "{alone}");
    }
}
