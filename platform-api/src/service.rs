//! The platform API as a process of its own, over ClickHouse and Kafka: its arguments, and how it starts.
//!
//! ```text
//! ClickHouse ─► questions        Kafka ─► how the queue is, dead letters, facts about changes
//! admin pages of ingest, processors, gateways ─► how each part is
//! database (where there is one) ─► accounts, teams, keys, servers, grants, sessions
//! ```

mod control;
mod dead_letters;
mod exposition;
mod operations;
mod parts;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sentinel_queue::kafka::{AppenderArgs, AppenderConfig, ConnectError, KafkaAppender, KafkaDeadLetters, KafkaView};
use sentinel_store::Reader;
use sentinel_store::clickhouse::{ClickHouseStore, Config as StoreConfig, OpenError, SqlAccountArgs, StoreArgs};
use service_kit::error::Chain;
use service_kit::{ProcessArgs, ReadinessFlag, Stage, Tasks, reach};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::{Api, Args, Config};
use control::ControlSettings;
pub use control::{ControlArgs, ObjectsPlace};
use operations::ClusterOperations;
use parts::{Part, Parts};

/// How often the store is asked how far its writers are: followers of events wait on it.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Dead letters are only read, replayed and discarded here, so their bound is the writers' matter.
const DEAD_LETTER_BYTES_MAX: u64 = u64::MAX;

/// Answers the command line, the console and dashboards, over ClickHouse and Kafka. Any number of these processes share the work.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "platform-api", version)]
pub struct Command {
    #[command(flatten)]
    pub api: Args,

    /// Address of the API.
    #[arg(
        long = "platform-api-listen",
        env = "PLATFORM_API_LISTEN",
        hide_env_values = true,
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS",
        help_heading = "Platform API"
    )]
    pub listen: SocketAddr,

    /// Address of `/live`, `/ready` and `/metrics`.
    #[arg(
        long = "platform-api-admin-listen",
        env = "PLATFORM_API_ADMIN_LISTEN",
        hide_env_values = true,
        default_value = "0.0.0.0:9093",
        value_name = "ADDRESS",
        help_heading = "Platform API"
    )]
    pub admin_listen: SocketAddr,

    /// File with the address of the database of accounts, teams, servers and grants, `postgres://…` or `sqlite:…` [default: none, and
    /// then this API only answers questions, to holders of service keys].
    #[arg(
        long = "platform-api-database-url-file",
        env = "PLATFORM_API_DATABASE_URL_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Platform API"
    )]
    pub database_url_file: Option<PathBuf>,

    #[command(flatten)]
    pub control: ControlArgs,

    /// Admin pages of the parts that the status tells of, as `part=http://host:port` with commas between. Every address that a host
    /// name stands for is asked.
    #[arg(
        long = "platform-api-parts",
        env = "PLATFORM_API_PARTS",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "ingest=http://sentinel-ingest:9091,processor=http://sentinel-processor:9102",
        value_name = "PARTS",
        help_heading = "Platform API"
    )]
    pub parts: Vec<Part>,

    /// Group of the processors, whose lag is shown.
    #[arg(
        long = "kafka-group",
        env = "KAFKA_GROUP",
        hide_env_values = true,
        default_value = "mcp-sentinel-processor",
        value_name = "NAME",
        help_heading = "Kafka"
    )]
    pub group: String,

    #[command(flatten)]
    pub kafka: AppenderArgs,

    #[command(flatten)]
    pub store: StoreArgs,

    #[command(flatten)]
    pub sql: SqlAccountArgs,

    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Everything checked and bound, before anything else is reached.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    store: StoreConfig,
    kafka: AppenderConfig,
    view: KafkaView,
    database_url: Option<String>,
    control: ControlSettings,
    parts: Parts,
    listener: TcpListener,
}

/// Where events come from and go to.
#[derive(Debug)]
pub struct Queue {
    appender: KafkaAppender,
    letters: KafkaDeadLetters,
}

impl Bound {
    /// Checks all settings, binds both addresses, and answers `/live` and `/ready` from then on.
    pub fn new(args: Command, tasks: &Tasks) -> anyhow::Result<Self> {
        let kafka = AppenderConfig::try_from(args.kafka)?;
        let store = StoreConfig {
            sql_account: args.sql.account()?,
            ..args.store.config(kafka.connection().topic())?
        };
        let database_url = args.database_url_file.map(|path| {
            let text = std::fs::read_to_string(&path);
            text.with_context(|| format!("reading the address of the database in {}", path.display()))
        });
        let bound = Self {
            config: Config::try_from(args.api)?,
            view: KafkaView::new(kafka.connection(), &args.group)?,
            store,
            kafka,
            database_url: database_url.transpose()?,
            control: args.control.try_into()?,
            parts: Parts::new(args.parts),
            listener: service_kit::http::bind(args.listen)?,
        };
        service_kit::health::serve_admin(service_kit::http::bind(args.admin_listen)?, tasks)?;
        Ok(bound)
    }

    /// The store, once it is there and has all migrations. `/ready` says what is waited for.
    pub async fn open_store(&self, tasks: &Tasks) -> Result<ClickHouseStore, OpenError> {
        let open = async || ClickHouseStore::open(self.store.clone()).await;
        let (store, flag) = reach("store", tasks, OpenError::passes, open).await?;
        look_around(store.clone(), flag, tasks);
        Ok(store)
    }

    /// The queue, once the brokers are there.
    pub async fn open_queue(&self, tasks: &Tasks) -> Result<Queue, ConnectError> {
        let open = async || {
            let letters = KafkaDeadLetters::connect(self.kafka.connection(), DEAD_LETTER_BYTES_MAX).await?;
            let appender = KafkaAppender::connect(self.kafka.clone()).await?;
            Ok(Queue { appender, letters })
        };
        let (queue, flag) = reach("brokers", tasks, ConnectError::passes, open).await?;
        // Questions are answered without brokers too; how they are is in the status.
        flag.dismiss();
        Ok(queue)
    }

    /// Serves the API until the process is told to stop; with accounts and objects where there is a database.
    pub async fn serve(self, store: ClickHouseStore, queue: Queue, tasks: &Tasks) -> anyhow::Result<()> {
        let reader: Arc<dyn Reader> = Arc::new(store);
        let operations = Arc::new(ClusterOperations {
            tasks: tasks.clone(),
            reader: Arc::clone(&reader),
            view: self.view,
            parts: self.parts,
            letters: queue.letters,
            appender: queue.appender.clone(),
        });
        let config = self.config;
        let api = match self.database_url {
            None => Api::new(config.clone(), reader, operations, tasks),
            Some(url) => {
                let control = self.control.open(url.trim(), queue.appender, tasks).await?;
                Api::with_control(config.clone(), reader, operations, control, tasks)
            }
        };
        crate::serve(&config, self.listener, api, tasks)?;
        Ok(())
    }
}

/// Looks, now and then, how far the processors are; whether that works is the condition.
fn look_around(store: ClickHouseStore, ready: ReadinessFlag, tasks: &Tasks) {
    let shutdown = tasks.shutdown(Stage::Query);
    tasks.spawn(Stage::Query, "horizon", async move {
        while shutdown.or(sleep(LOOK_PAUSE)).await.is_some() {
            match shutdown.or(store.look_around()).await {
                Some(Ok(())) => ready.set_ready(),
                Some(Err(error)) => ready.set_not_ready(Chain(&error).to_string()),
                None => break,
            }
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn help_is_as_agreed() {
        insta::assert_snapshot!(Command::command().term_width(100).render_long_help());
    }
}
