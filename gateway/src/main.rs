//! The governed MCP reverse proxy as a process of its own, next to one MCP server.

use clap::Parser as _;
use gateway::{Args, Config};
use service_kit::http::bind;

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    service_kit::run("mcp-gateway", args.process, async move |tasks| {
        let config = Config::try_from(args.gateway)?;
        let (listener, admin) = (bind(config.address)?, bind(config.admin_address)?);
        gateway::serve(config, listener, admin, &tasks).await?;
        Ok(())
    })
}
