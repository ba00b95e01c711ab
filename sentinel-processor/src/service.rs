//! The processor as a process of its own, from Kafka into ClickHouse: its arguments, and what runs beside the loop.

use std::net::SocketAddr;
use std::time::Duration;

use domain::Timestamp;
use sentinel_queue::kafka::{ConnectError, KafkaDeadLetters, KafkaTail, TailArgs, TailConfig};
use sentinel_store::clickhouse::{ClickHouseStore, Config as StoreConfig, OpenError, StoreArgs};
use service_kit::error::Chain;
use service_kit::{ProcessArgs, ReadinessFlag, Stage, Tasks, reach};
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

/// The store, once it is there and has all migrations. `/ready` says what is waited for.
///
/// Tells readers in other processes, now and then, how far this one is; whether that works is the condition from then on.
pub async fn open_store(config: StoreConfig, tasks: &Tasks) -> Result<ClickHouseStore, OpenError> {
    let open = async || ClickHouseStore::open(config.clone()).await;
    let (store, flag) = reach("store", tasks, OpenError::passes, open).await?;
    tell_readers(store.clone(), flag, tasks);
    Ok(store)
}

/// The queue and its dead letters, once the brokers are there.
pub async fn open_queue(
    config: TailConfig,
    dead_letters_bytes_max: u64,
    tasks: &Tasks,
) -> Result<(KafkaTail, KafkaDeadLetters), ConnectError> {
    let clock = tasks.clock().clone();
    let open = async || {
        let letters = KafkaDeadLetters::connect(config.connection(), dead_letters_bytes_max).await?;
        let clock = clock.clone();
        let tail = KafkaTail::connect(config.clone(), move || Timestamp::from_nanos(clock.unix_ns())).await?;
        Ok((tail, letters))
    };
    // From here on the processor itself tells whether the queue can be read.
    let (reached, flag) = reach("brokers", tasks, ConnectError::passes, open).await?;
    flag.dismiss();
    Ok(reached)
}

fn tell_readers(store: ClickHouseStore, ready: ReadinessFlag, tasks: &Tasks) {
    let shutdown = tasks.shutdown(Stage::Pipeline);
    let writer = uuid::Uuid::new_v4().to_string();
    tasks.spawn(Stage::Pipeline, "horizon", async move {
        while shutdown.or(sleep(TELL_PAUSE)).await.is_some() {
            match store.tell(&writer).await {
                Ok(()) => ready.set_ready(),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "readers could not be told how far this process is; it is repeated");
                    ready.set_not_ready(Chain(&error).to_string());
                }
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
