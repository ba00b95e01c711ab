//! Load and benchmarks: our own generator, peers to compare with, a client, and the measurements of `docs/performance.md`.
//!
//! Everything stays on 127.0.0.1, and every run is bounded in count and time. The measured programs, their peers, the
//! upstream and the client are processes of their own, so that the kernel can tell what each of them used.

pub mod bench;
pub mod drive;
pub mod events;
pub mod process;
pub mod proxy;
pub mod report;
pub mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use bench::{gateway, ingest, standalone};

/// Load for MCP Sentinel, and measurements of it.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the minimal MCP server and the sink for events
    Upstream {
        /// Address to listen on
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Serve the bare reverse proxy
    Proxy {
        /// Address to listen on
        #[arg(long)]
        listen: SocketAddr,
        /// Where to pass requests on to
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// Serve ingest with an embedded log, or with nothing behind it
    IngestServer(ingest::ServerArgs),
    /// Print lines of realistic events
    Events {
        /// How many
        #[arg(long, default_value_t = 10)]
        count: usize,
        /// Seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Measure the gateway beside a bare proxy and nginx
    Gateway(gateway::Args),
    /// Measure durable ingest beside the same server without a log
    Ingest(ingest::Args),
    /// Measure appending to Kafka beside librdkafka alone
    #[cfg(feature = "kafka")]
    Kafka(bench::kafka::Args),
    /// Measure the standalone stack: throughput to queryable, memory, freshness, size
    Pipeline(standalone::PipelineArgs),
    /// Measure queries over many events, and starting with them
    Queries(standalone::QueriesArgs),
    /// Measure starting on an empty folder
    Start(standalone::StartArgs),
}

/// Options of every measurement.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Profile the measured programs were built in; printed with the figures
    #[arg(long, default_value = "unknown")]
    pub profile: String,
    /// Folder for everything that is written; a temporary one inside it is used and removed
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub scratch: PathBuf,
}

/// Runs a command and gives the exit code of the process.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::IngestServer(args) => ingest::serve(args),
        command => service_free(command),
    }
}

#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a command line tells what went wrong, and prints what was asked for"
)]
fn service_free(command: Command) -> ExitCode {
    let done = async {
        match command {
            Command::Upstream { listen } => upstream::run(listen).await,
            Command::Proxy { listen, upstream } => proxy::run(listen, upstream).await,
            Command::Events { count, seed } => {
                let timeline = events::Timeline::Live(service_kit::Clock::system());
                print!("{}", String::from_utf8(events::Generator::new(seed, timeline).lines(count))?);
                Ok(())
            }
            Command::Gateway(args) => gateway::measure(args).await,
            Command::Ingest(args) => ingest::measure(args).await,
            #[cfg(feature = "kafka")]
            Command::Kafka(args) => bench::kafka::measure(args).await,
            Command::Pipeline(args) => standalone::measure_pipeline(args).await,
            Command::Queries(args) => standalone::measure_queries(args).await,
            Command::Start(args) => standalone::measure_start(args).await,
            Command::IngestServer(_) => Ok(()),
        }
    };
    // One worker, like the programs under measurement: the peer must not win or lose by its runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let outcome = runtime
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(done));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
