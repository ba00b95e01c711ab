//! Durable ingest: the real routes over the embedded log, beside the same routes over a queue that keeps nothing.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use domain::{Event, Timestamp};
use sentinel_ingest::{Config, KeyRing, KeyStore, NewKeyRequest};
use sentinel_queue::log::{self, LogConfig};
use sentinel_queue::{AppendError, EventAppender};
use service_kit::{Clock, ProcessArgs, Tasks};
use tempfile::TempDir;

use crate::Common;
use crate::drive::{Load, Outcome, closed_loop, request};
use crate::events::{Generator, Timeline};
use crate::process::{Cores, Running, free_address};
use crate::report::{Report, median, print_machine};

/// Room for everything one run can append; nobody reads it.
const QUEUE_BYTES: u64 = 64 << 30;
/// Different events in the bodies that are sent again and again; ingest does not look for repeats.
const POOL: usize = 40_000;
const KEYS: &str = "keys.json";

/// What stands behind the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Queue {
    /// The embedded log, synced before the answer.
    Log,
    /// Nothing.
    Null,
}

/// Options of the server.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// Folder with the keys and the log
    #[arg(long)]
    folder: PathBuf,
    /// What stands behind the routes
    #[arg(long, value_enum)]
    queue: Queue,
    #[command(flatten)]
    process: ProcessArgs,
}

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Seconds of each round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds of each kind
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only shapes whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    #[command(flatten)]
    common: Common,
}

/// Takes events and forgets them.
#[derive(Debug)]
struct Nothing;

impl EventAppender for Nothing {
    async fn append(&self, _events: &[Event]) -> Result<(), AppendError> {
        Ok(())
    }
}

/// Serves ingest until told to stop.
pub fn serve(args: ServerArgs) -> ExitCode {
    service_kit::run("load-ingest", args.process.clone(), async move |tasks| match args.queue {
        Queue::Null => start(&args, Nothing, &tasks),
        Queue::Log => {
            let clock = tasks.clock().clone();
            let config = LogConfig {
                bytes_max: QUEUE_BYTES,
                ..LogConfig::new(args.folder.join("queue"))
            };
            let (appender, _tail) = log::open(config, move || Timestamp::from_nanos(clock.unix_ns()))?;
            start(&args, appender, &tasks)
        }
    })
}

fn start<A: EventAppender>(args: &ServerArgs, appender: A, tasks: &Tasks) -> anyhow::Result<()> {
    let listener = service_kit::http::bind(args.listen)?;
    let keys = KeyRing::open(args.folder.join(KEYS));
    sentinel_ingest::serve(Config::default(), listener, appender, keys, tasks)?;
    Ok(())
}

/// A way to send events.
struct Shape {
    name: &'static str,
    queue: Queue,
    connections: usize,
    batch: usize,
    coding: &'static str,
}

const SHAPES: [Shape; 8] = [
    Shape {
        name: "batches of 1000, log",
        queue: Queue::Log,
        connections: 8,
        batch: 1_000,
        coding: "",
    },
    Shape {
        name: "batches of 100, log",
        queue: Queue::Log,
        connections: 32,
        batch: 100,
        coding: "",
    },
    Shape {
        name: "batches of 1000, zstd, log",
        queue: Queue::Log,
        connections: 8,
        batch: 1_000,
        coding: "zstd",
    },
    Shape {
        name: "batches of 1000, gzip, log",
        queue: Queue::Log,
        connections: 8,
        batch: 1_000,
        coding: "gzip",
    },
    Shape {
        name: "batches of 1000, nothing behind",
        queue: Queue::Null,
        connections: 8,
        batch: 1_000,
        coding: "",
    },
    Shape {
        name: "single events, log, 64 connections",
        queue: Queue::Log,
        connections: 64,
        batch: 1,
        coding: "",
    },
    Shape {
        name: "single events, nothing behind, 64 connections",
        queue: Queue::Null,
        connections: 64,
        batch: 1,
        coding: "",
    },
    Shape {
        name: "single events, log, 1 connection",
        queue: Queue::Log,
        connections: 1,
        batch: 1,
        coding: "",
    },
];

/// One round of a shape.
struct Round {
    outcome: Outcome,
    /// Processor seconds of the server.
    cpu: f64,
}

/// Measures, and prints a table.
pub async fn measure(args: Args) -> anyhow::Result<()> {
    print_machine(&args.common.profile);
    let mut report = Report::new("Ingest: NDJSON over HTTP, acknowledged once synced; client and server share all cores");
    let scratch = TempDir::new_in(&args.common.scratch)?;
    let key = make_key(scratch.path())?;
    let mut singles = Vec::new();
    let shapes: Vec<&Shape> = SHAPES.iter().filter(|shape| shape.name.contains(&args.only)).collect();
    let bodies = bodies(&shapes, &key)?;
    let mut rounds: Vec<Vec<Round>> = shapes.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (shape, (requests, rounds)) in shapes.iter().zip(bodies.iter().zip(&mut rounds)) {
            rounds.push(
                round(shape, requests, scratch.path(), args.seconds)
                    .await
                    .with_context(|| shape.name.to_owned())?,
            );
        }
    }
    for (shape, rounds) in shapes.iter().zip(&rounds) {
        let batch = f64::from(u32::try_from(shape.batch)?);
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        let rate = of(&|round| round.outcome.rate() * batch);
        let cpu = of(&|round| round.cpu / (round.outcome.rate() * round.outcome.elapsed.as_secs_f64() * batch) * 1e6);
        let bar = if shape.name == SHAPES[0].name {
            "≥ 300000 events/s"
        } else {
            ""
        };
        report.row(
            shape.name,
            format!(
                "{rate:.0} events/s; {cpu:.2} µs CPU an event in the server; ack p50 {:.2} ms, p99 {:.2} ms",
                of(&|round| round.outcome.micros(0.5)) / 1e3,
                of(&|round| round.outcome.micros(0.99)) / 1e3,
            ),
            bar,
        );
        if shape.batch == 1 && shape.connections > 1 {
            singles.push(rate);
        }
    }
    if let [log, null] = singles[..] {
        report.row(
            "single events: log over nothing behind",
            format!("{:.2} ×", log / null),
            "≥ 0.7 ×",
        );
    }
    let wire = Generator::new(1, Timeline::Live(Clock::system())).lines(POOL / 10).len() / (POOL / 10);
    report.note(format!(
        "An event is {wire} bytes of JSON on the wire. The client sends prepared bodies of {POOL} different events."
    ));
    report.print();
    Ok(())
}

async fn round(shape: &Shape, requests: &[Bytes], keys: &Path, seconds: u64) -> anyhow::Result<Round> {
    let folder = TempDir::new_in(keys)?;
    std::fs::copy(keys.join(KEYS), folder.path().join(KEYS))?;
    let address = free_address()?;
    let queue = if shape.queue == Queue::Log { "log" } else { "null" };
    let folder_name = folder.path().to_string_lossy();
    let listen = address.to_string();
    let args = [
        "ingest-server",
        "--listen",
        &listen,
        "--folder",
        &folder_name,
        "--queue",
        queue,
        "--log-level",
        "warn",
    ];
    let mut server = Running::start(&std::env::current_exe()?, &args, Cores::All, &folder.path().join("log"))?;
    server.listening(address).await?;
    let before = server.used()?;
    let load = Load {
        address,
        requests: requests.to_vec(),
        connections: shape.connections,
        time: Duration::from_secs(seconds),
    };
    let outcome = closed_loop(&load).await?;
    ensure!(
        outcome.refused == 0,
        "{} of {} requests were refused",
        outcome.refused,
        outcome.refused + outcome.answered
    );
    let cpu = server.used()?.cpu - before.cpu;
    server.stop().await?;
    Ok(Round { outcome, cpu })
}

fn make_key(folder: &Path) -> anyhow::Result<String> {
    let store = KeyStore::new(folder.join(KEYS), Clock::system());
    let made = store.create(NewKeyRequest {
        namespace: "*".to_owned(),
        note: "load".to_owned(),
        ..NewKeyRequest::default()
    })?;
    Ok(made.key)
}

/// Whole requests for each shape.
fn bodies(shapes: &[&Shape], key: &str) -> anyhow::Result<Vec<Vec<Bytes>>> {
    shapes
        .iter()
        .map(|shape| {
            // Single events need no large pool to be different enough.
            let count = if shape.batch == 1 { 2_000 } else { POOL / shape.batch };
            let mut events = Generator::new(1, Timeline::Live(Clock::system()));
            (0..count)
                .map(|_| encode(key, &events.lines(shape.batch), shape.coding))
                .collect()
        })
        .collect()
}

/// A request with events, compressed if so asked.
pub fn encode(key: &str, lines: &[u8], coding: &str) -> anyhow::Result<Bytes> {
    let body = match coding {
        "zstd" => zstd::bulk::compress(lines, 1)?,
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(lines)?;
            encoder.finish()?
        }
        _ => lines.to_vec(),
    };
    let mut headers = vec![("content-type", "application/x-ndjson"), ("x-api-key", key)];
    if !coding.is_empty() {
        headers.push(("content-encoding", coding));
    }
    Ok(request("POST", "/events", &headers, &body))
}
