//! The command line of `mcp-demo-server`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::client::{Amount, Caller, Traffic, drive};

/// An example MCP server, and a client that keeps such a server busy.
#[derive(Debug, clap::Parser)]
#[command(name = "mcp-demo-server", version)]
pub enum Command {
    /// Serve the payments desk at /mcp until stopped. Prints {"url": …} once it listens.
    Serve {
        /// Address to listen on; port 0 takes a free one.
        #[arg(long, env = "MCP_DEMO_SERVER_LISTEN", default_value = "127.0.0.1:8088")]
        listen: SocketAddr,
    },
    /// Send the calls of made-up agents to a server. Prints one JSON line for each.
    Drive {
        /// Where the server is, such as <http://127.0.0.1:8088/mcp>.
        #[arg(long)]
        url: String,
        /// Calls in all, those that open sessions not counted.
        #[arg(long, default_value_t = 100)]
        calls: u64,
        /// Run for this many seconds instead.
        #[arg(long, conflicts_with = "calls")]
        seconds: Option<u64>,
        /// Calls per second, of all agents together.
        #[arg(long, default_value_t = 10.0)]
        rate: f64,
        /// How many agents call at the same time.
        #[arg(long, default_value_t = 5)]
        agents: usize,
        /// Equal seeds choose equal calls.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Runs the command, and tells what went wrong.
pub async fn run(command: Command) -> ExitCode {
    let end = match command {
        Command::Serve { listen } => serve(listen).await,
        Command::Drive {
            url,
            calls,
            seconds,
            rate,
            agents,
            seed,
        } => {
            let amount = seconds.map_or(Amount::Calls(calls), |seconds| Amount::For(Duration::from_secs(seconds)));
            send(
                &url,
                Traffic {
                    seed,
                    amount,
                    rate,
                    callers: Caller::cast(agents),
                },
            )
            .await
        }
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen}"))?;
    print(&serde_json::json!({ "url": format!("http://{}/mcp", listener.local_addr()?) }))?;
    crate::serve(listener, stopped()).await
}

async fn send(url: &str, traffic: Traffic) -> anyhow::Result<()> {
    let (sender, mut records) = mpsc::channel(256);
    let show = async move {
        while let Some(record) = records.recv().await {
            print(&record)?;
        }
        anyhow::Ok(())
    };
    let (driven, shown) = tokio::join!(drive(url, traffic, sender), show);
    driven.and(shown)
}

fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(value).context("writing a line")?;
    writeln!(std::io::stdout().lock(), "{line}").context("writing to standard output")
}

/// Completes at SIGINT or SIGTERM.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Command;

    #[test]
    fn help() {
        let mut command = Command::command().term_width(100);
        for name in ["serve", "drive"] {
            let subcommand = command.find_subcommand_mut(name).expect("a subcommand of this name");
            insta::assert_snapshot!(name, subcommand.clone().term_width(100).render_help());
        }
    }
}
