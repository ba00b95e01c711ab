//! The standalone stack as one process, seen over HTTP only: what goes in, when it can be seen, what it costs, how fast it answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use domain::Timestamp;
use hdrhistogram::Histogram;
use serde_json::Value;
use service_kit::Clock;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::ingest::encode;
use crate::Common;
use crate::drive::{Client, Outcome, request, send_once};
use crate::events::{Generator, Timeline};
use crate::process::{Cores, Running, Used, free_address};
use crate::report::{Report, folder_bytes, median, print_machine};

const BATCH: usize = 1_000;
const SENDERS: usize = 4;
/// Events that are prepared in memory at a time: about a gigabyte of requests.
const SLICE: u64 = 1_000_000;
const PAST_DAYS: u32 = 30;
const VISIBLE_MAX: Duration = Duration::from_mins(5);
const KEY_MAX: Duration = Duration::from_secs(10);
const FRESH_SAMPLES: u32 = 200;
const WARM_RUNS: u32 = 15;
const WARM_TIME_MAX: Duration = Duration::from_secs(10);

/// What each question asks, and the bar of its warm answer in milliseconds.
const QUESTIONS: [(&str, &str, u32); 7] = [
    ("overview, 30 days", "/api/v1/dashboard/summary?since=30d", 100),
    ("usage, 30 days", "/api/v1/analytics/usage?window_days=30", 100),
    ("tools, 30 days", "/api/v1/analytics/tools?since=30d", 100),
    (
        "calls by server, 30 days",
        "/api/v1/analytics/series?since=30d&by=server",
        100,
    ),
    (
        "p95 by tool, 7 days",
        "/api/v1/analytics/series?since=7d&metric=latency_p95&by=tool",
        100,
    ),
    ("last 100 calls", "/api/v1/events?limit=100", 200),
    (
        "last 100 denied of one server",
        "/api/v1/events?limit=100&namespace=team-0&server=invoices&outcome=denied",
        200,
    ),
];

/// The stack to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Stack {
    /// The `mcp-runtime` program, with the standalone stack
    #[arg(long)]
    runtime: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// What to measure of the pipeline.
#[derive(Debug, Clone, clap::Args)]
pub struct PipelineArgs {
    /// Events to send
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    #[command(flatten)]
    stack: Stack,
}

/// What to measure of queries.
#[derive(Debug, Clone, clap::Args)]
pub struct QueriesArgs {
    /// Events to ask about
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    #[command(flatten)]
    stack: Stack,
}

/// What to measure of starting.
#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    /// Starts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(flatten)]
    stack: Stack,
}

/// A running stack.
struct Standalone {
    process: Running,
    address: SocketAddr,
    /// From the start of the process to the first good `/ready`.
    ready_after: Duration,
    client: Client,
}

impl Standalone {
    async fn start(program: &Path, data: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let (listen, folder) = (address.to_string(), data.to_string_lossy());
        let args = [
            "up",
            "--data-dir",
            &folder,
            "--listen",
            &listen,
            "--flush-age",
            "10s",
            "--log-level",
            "warn",
        ];
        let start = Instant::now();
        let log = data.with_extension("log");
        let mut process = Running::start(program, &args, Cores::All, &log)?;
        let listening = process.listening(address).await;
        listening.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        let mut client = Client::connect(address).await?;
        let ready = request("GET", "/ready", &[], b"");
        while client.call(&ready).await? != 200 {
            ensure!(start.elapsed() < VISIBLE_MAX, "the stack did not become ready");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Self {
            process,
            address,
            ready_after: start.elapsed(),
            client,
        })
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self.client.fetch(&request("GET", path, &[], b"")).await?;
        ensure!(
            status == 200,
            "{path} was answered with {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(serde_json::from_slice(&body)?)
    }

    async fn timed(&mut self, path: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.get(path).await?;
        Ok(start.elapsed())
    }

    /// An ingest key for all namespaces.
    async fn key(&mut self) -> anyhow::Result<String> {
        let wish = request(
            "POST",
            "/api/v1/sentinel/keys",
            &[("content-type", "application/json")],
            br#"{"namespace":"*","note":"load"}"#,
        );
        let (status, body) = self.client.fetch(&wish).await?;
        let body: Value = serde_json::from_slice(&body)?;
        ensure!((200..300).contains(&status), "no ingest key was made: {status} {body}");
        let key = body["key"].as_str().context("the answer has no key")?.to_owned();
        // Ingest notices a new key a moment after it was made; an empty body tells without leaving an event.
        let empty = encode(&key, b"", "")?;
        let start = Instant::now();
        while self.client.call(&empty).await? == 401 {
            ensure!(
                start.elapsed() < KEY_MAX,
                "a new ingest key is still refused after {} s",
                KEY_MAX.as_secs()
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(key)
    }

    /// Waits until so many events can be seen.
    async fn visible(&mut self, events: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let seen = self.get("/api/v1/stats").await?["events_total"]
                .as_u64()
                .context("stats have no events_total")?;
            if seen == events {
                return Ok(());
            }
            ensure!(seen < events, "{seen} events are counted, but only {events} were sent");
            ensure!(
                start.elapsed() < VISIBLE_MAX,
                "{seen} of {events} events can be seen after {} s",
                VISIBLE_MAX.as_secs()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends past events and waits until they can be seen; gives the seconds from the first request, preparing left out.
    async fn fill(&mut self, events: u64, key: &str) -> anyhow::Result<Duration> {
        let mut generator = Generator::new(1, Timeline::past(now(), PAST_DAYS, events));
        let mut took = Duration::ZERO;
        while generator.made() < events {
            let slice = (events - generator.made()).min(SLICE);
            let requests = prepare(&mut generator, slice, key)?;
            let start = Instant::now();
            send_once(self.address, requests, SENDERS).await?;
            self.visible(generator.made()).await?;
            took += start.elapsed();
        }
        Ok(took)
    }
}

fn now() -> Timestamp {
    Timestamp::from_nanos(Clock::system().unix_ns())
}

fn prepare(generator: &mut Generator, events: u64, key: &str) -> anyhow::Result<Vec<Bytes>> {
    let mut left = usize::try_from(events)?;
    let mut requests = Vec::with_capacity(left.div_ceil(BATCH));
    while left > 0 {
        let batch = left.min(BATCH);
        requests.push(encode(key, &generator.lines(batch), "")?);
        left -= batch;
    }
    Ok(requests)
}

/// Throughput, memory, freshness and size.
pub async fn measure_pipeline(args: PipelineArgs) -> anyhow::Result<()> {
    print_machine(&args.stack.common.profile);
    let scratch = TempDir::new_in(&args.stack.common.scratch)?;
    let data = scratch.path().join("data");
    std::fs::create_dir(&data)?;
    let mut stack = Standalone::start(&args.stack.runtime, &data).await?;
    let mut report = Report::new(format!(
        "Standalone pipeline: {} events in batches of {BATCH} over {SENDERS} connections",
        args.events
    ));
    let idle = stack.process.used()?;
    let key = stack.key().await?;

    let mut generator = Generator::new(1, Timeline::past(now(), 1, args.events));
    let requests = prepare(&mut generator, args.events, &key)?;
    let bytes: usize = requests.iter().map(Bytes::len).sum();
    let start = Instant::now();
    let sender = tokio::task::JoinSet::from_iter([send_once(stack.address, requests, SENDERS)]);
    let (sent, asked) = ask_while(&mut stack, sender).await?;
    stack.visible(args.events).await?;
    let took = start.elapsed();
    let used = stack.process.used()?;

    flow(&mut report, args.events, took, &sent, &asked, (idle, used))?;
    let fresh = freshness(&mut stack, &key).await?;
    report.row(
        "acknowledged to visible, one event at a time",
        format!("p50 {:.1} ms, p99 {:.1} ms", millis(&fresh, 0.5), millis(&fresh, 0.99)),
        "≤ 50 ms",
    );
    stack.process.stop().await?;
    let stored = folder_bytes(&data.join("store"));
    report.row(
        "on disk, after a clean stop",
        format!("{:.1} bytes an event", ratio(stored, args.events + u64::from(FRESH_SAMPLES))),
        "≤ 60 bytes at 10 million",
    );
    report.note(format!(
        "An event is {:.0} bytes on the wire. Client and stack share all cores; queries run twice a second.",
        ratio(bytes as u64, args.events)
    ));
    report.print();
    Ok(())
}

/// What became of the stream of events, and what it cost.
fn flow(
    report: &mut Report,
    events: u64,
    took: Duration,
    sent: &Outcome,
    asked: &Histogram<u64>,
    (idle, used): (Used, Used),
) -> anyhow::Result<()> {
    let events = f64::from(u32::try_from(events)?);
    report.row(
        "HTTP to queryable, while being queried",
        format!("{:.0} events/s", events / took.as_secs_f64()),
        "≥ 100000 events/s",
    );
    report.row(
        "acknowledged (synced)",
        format!(
            "{:.0} events/s; ack p50 {:.1} ms, p99 {:.1} ms; {} answers 503",
            events / sent.elapsed.as_secs_f64(),
            sent.micros(0.5) / 1e3,
            sent.micros(0.99) / 1e3,
            sent.refused
        ),
        "",
    );
    report.row(
        "processor time of the stack",
        format!("{:.1} µs an event", (used.cpu - idle.cpu) / events * 1e6),
        "",
    );
    report.row(
        "resident memory, idle / most under load and queries",
        format!("{:.0} / {:.0} MiB", idle.rss, used.rss_peak),
        "≤ 120 / 512 MiB",
    );
    report.row(
        "overview of a day while events pour in",
        format!(
            "p50 {:.0} ms, worst {:.0} ms of {} questions",
            millis(asked, 0.5),
            millis(asked, 1.0),
            asked.len()
        ),
        "",
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "bytes and counts far below 2^53")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    ratio(latency.value_at_quantile(quantile), 1_000)
}

/// Asks for an overview twice a second until the sender is done.
async fn ask_while(
    stack: &mut Standalone,
    mut sender: tokio::task::JoinSet<anyhow::Result<Outcome>>,
) -> anyhow::Result<(Outcome, Histogram<u64>)> {
    let mut asked = Histogram::new_with_bounds(1, 120_000_000, 3)?;
    loop {
        tokio::select! {
            sent = sender.join_next() => return Ok((sent.context("there is no sender")???, asked)),
            () = sleep(Duration::from_millis(500)) => {}
        }
        let took = stack.timed("/api/v1/analytics/usage?window_days=1").await?;
        asked.saturating_record(micros(took));
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// From the acknowledgement of an event until a query shows it, in microseconds.
async fn freshness(stack: &mut Standalone, key: &str) -> anyhow::Result<Histogram<u64>> {
    let mut fresh = Histogram::new_with_bounds(1, 120_000_000, 3)?;
    let mut generator = Generator::new(2, Timeline::Live(Clock::system()));
    let mut sender = Client::connect(stack.address).await?;
    for _ in 0..FRESH_SAMPLES {
        let mut line = String::new();
        let id = generator.line(&mut line).to_string();
        let status = sender.call(&encode(key, line.as_bytes(), "")?).await?;
        ensure!(status == 202, "an event was answered with {status}");
        let acknowledged = Instant::now();
        // The newest event by time is the one just sent: the others are older.
        while stack.get("/api/v1/events?limit=1").await?["events"][0]["id"] != id.as_str() {
            ensure!(
                acknowledged.elapsed() < Duration::from_secs(10),
                "an event could not be seen within 10 s"
            );
        }
        fresh.saturating_record(micros(acknowledged.elapsed()));
    }
    Ok(fresh)
}

/// Latencies of the questions, and starting with these events.
pub async fn measure_queries(args: QueriesArgs) -> anyhow::Result<()> {
    print_machine(&args.stack.common.profile);
    let scratch = TempDir::new_in(&args.stack.common.scratch)?;
    let data = scratch.path().join("data");
    std::fs::create_dir(&data)?;
    let mut stack = Standalone::start(&args.stack.runtime, &data).await?;
    let mut report = Report::new(format!("Standalone queries: {} events over {PAST_DAYS} days", args.events));
    let key = stack.key().await?;
    let filled = stack.fill(args.events, &key).await?;
    report.row(
        "filling, HTTP to queryable",
        format!(
            "{:.0} events/s",
            f64::from(u32::try_from(args.events)?) / filled.as_secs_f64()
        ),
        "",
    );
    stack.process.stop().await?;
    report.row(
        "on disk, after a clean stop",
        format!("{:.1} bytes an event", ratio(folder_bytes(&data.join("store")), args.events)),
        "≤ 60 bytes at 10 million",
    );

    let mut stack = Standalone::start(&args.stack.runtime, &data).await?;
    report.row(
        "ready after a clean stop",
        format!("{} ms", stack.ready_after.as_millis()),
        "≤ 2000 ms at 100 million",
    );
    for (name, path, bar) in QUESTIONS {
        let first = stack.timed(path).await.context(name)?;
        let mut warm = Histogram::<u64>::new_with_bounds(1, 120_000_000, 3)?;
        let start = Instant::now();
        while warm.len() < u64::from(WARM_RUNS) && (warm.is_empty() || start.elapsed() < WARM_TIME_MAX) {
            warm.saturating_record(micros(stack.timed(path).await?));
        }
        report.row(
            name,
            format!(
                "first {:.1} ms, then p50 {:.1} ms, worst {:.1} ms",
                first.as_secs_f64() * 1e3,
                millis(&warm, 0.5),
                millis(&warm, 1.0)
            ),
            &format!("≤ {bar} ms warm at 100 million"),
        );
    }
    let used = stack.process.used()?;
    report.row(
        "resident memory after the questions / most",
        format!("{:.0} / {:.0} MiB", used.rss, used.rss_peak),
        "",
    );
    stack.process.stop().await?;
    report.note("`first` is the first question of its kind after a restart; files may still be in the system's cache.");
    report.print();
    Ok(())
}

/// Starting on an empty folder.
pub async fn measure_start(args: StartArgs) -> anyhow::Result<()> {
    print_machine(&args.stack.common.profile);
    let mut report = Report::new("Standalone start on an empty folder");
    let (mut ready, mut rss) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let scratch = TempDir::new_in(&args.stack.common.scratch)?;
        let data = scratch.path().join("data");
        std::fs::create_dir(&data)?;
        let stack = Standalone::start(&args.stack.runtime, &data).await?;
        ready.push(stack.ready_after.as_secs_f64() * 1e3);
        // What start-up left behind is given back or not within a second; both are idle memory.
        sleep(Duration::from_secs(1)).await;
        rss.push(stack.process.used()?.rss);
        stack.process.stop().await?;
    }
    report.row("ready", format!("{:.0} ms", median(ready)), "≤ 500 ms");
    report.row("resident memory, idle", format!("{:.0} MiB", median(rss)), "≤ 120 MiB");
    report.print();
    Ok(())
}
