//! The operator as a process.

use std::process::ExitCode;

use clap::Parser as _;
use operator::metrics::OperatorMetrics;
use operator::{Args, Config};
use service_kit::http::bind;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(command) = args.command {
        return operator::print::print(command);
    }
    service_kit::run("mcp-operator", args.process, async move |tasks| {
        let config = Config::try_from(args.operator)?;
        let (admin, tls) = (bind(config.admin_address)?, bind(config.tls.address)?);
        let client = operator::client::connect(&OperatorMetrics::shared(tasks.metrics())).await?;
        operator::serve(config, &client, admin, tls, &tasks)
    })
}
