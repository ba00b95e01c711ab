//! Sentinel processor: reads events from Kafka and stores them in ClickHouse, each once.

use clap::Parser as _;
use sentinel_processor::service::{Command, open_queue, open_store};
use sentinel_processor::{Config, serve};
use sentinel_queue::kafka::TailConfig;
use service_kit::http::bind;

fn main() -> std::process::ExitCode {
    let args = Command::parse();
    service_kit::run("sentinel-processor", args.process, async move |tasks| {
        let config = Config::try_from(args.processor)?;
        let kafka = TailConfig::try_from(args.kafka)?;
        let store = args.store.config(kafka.connection().topic())?;
        service_kit::health::serve_admin(bind(args.admin_listen)?, &tasks)?;
        let store = open_store(store, &tasks).await?;
        let (tail, letters) = open_queue(kafka, args.dead_letters_bytes_max, &tasks).await?;
        serve(config, tail, store, letters, &tasks);
        Ok(())
    })
}
