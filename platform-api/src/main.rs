//! Platform API: answers questions about calls from ClickHouse, and looks after the queue on Kafka.

use clap::Parser as _;
use platform_api::service::{Bound, Command};

fn main() -> std::process::ExitCode {
    let args = Command::parse();
    service_kit::run("platform-api", args.process.clone(), async move |tasks| {
        let api = Bound::new(args, &tasks)?;
        let store = api.open_store(&tasks).await?;
        let queue = api.open_queue(&tasks).await?;
        api.serve(store, queue, &tasks).await
    })
}
