//! Sentinel processor: reads events from Kafka and stores them in ClickHouse, each once.

use clap::Parser as _;
use domain::Timestamp;
use sentinel_processor::service::{Command, tell_readers};
use sentinel_processor::{Config, serve};
use sentinel_queue::kafka::{KafkaDeadLetters, KafkaTail, TailConfig};
use sentinel_store::clickhouse::ClickHouseStore;
use service_kit::http::bind;

fn main() -> std::process::ExitCode {
    let args = Command::parse();
    service_kit::run("sentinel-processor", args.process, async move |tasks| {
        let config = Config::try_from(args.processor)?;
        let kafka = TailConfig::try_from(args.kafka)?;
        let store = args.store.config(kafka.connection().topic())?;
        service_kit::health::serve_admin(bind(args.admin_listen)?, &tasks)?;
        let store = ClickHouseStore::open(store).await?;
        let letters = KafkaDeadLetters::connect(kafka.connection(), args.dead_letters_bytes_max).await?;
        let clock = tasks.clock().clone();
        let tail = KafkaTail::connect(kafka, move || Timestamp::from_nanos(clock.unix_ns())).await?;
        tell_readers(store.clone(), &tasks);
        serve(config, tail, store, letters, &tasks);
        Ok(())
    })
}
