//! Appending to Kafka beside librdkafka alone, with the same settings and the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use domain::Event;
use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sentinel_queue::EventAppender;
use sentinel_queue::kafka::{AppenderArgs, AppenderConfig, KafkaAppender};
use service_kit::Clock;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Common;
use crate::events::{Generator, Timeline};
use crate::report::{Report, median, print_machine};

/// Different events that are sent again and again.
const POOL: usize = 40_000;
/// Events of one append.
const BATCH: usize = 1_000;
/// Appends in flight together.
const IN_FLIGHT: usize = 8;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Seconds of each round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds of each kind
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Brokers, such as those of `tests/services/kafka/kafka.sh run`
    #[arg(long, default_value = "127.0.0.1:9092")]
    brokers: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    appender: AppenderArgs,
}

/// One append's worth: the events, and the same as ready records.
struct Batch {
    events: Vec<Event>,
    records: Vec<(String, Vec<u8>)>,
}

/// Measures, and prints a table.
pub async fn measure(args: Args) -> anyhow::Result<()> {
    print_machine(&args.common.profile);
    let batches = batches()?;
    let topic = format!("bench-{}", std::process::id());
    let settings = ["bench", "--kafka-brokers", &args.brokers, "--kafka-topic", &topic];
    let config = AppenderConfig::try_from(Settings::try_parse_from(settings)?.appender)?;
    let appender = KafkaAppender::connect(config).await.context("reaching the brokers")?;
    let raw = raw_producer(&args.brokers)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let rate = round(&batches, args.seconds, {
            let (raw, topic) = (raw.clone(), topic.clone());
            move |batch| {
                let (raw, topic) = (raw.clone(), topic.clone());
                async move { send(&raw, &topic, &batch.records).await }
            }
        });
        theirs.push(rate.await?);
        let appender = appender.clone();
        let rate = round(&batches, args.seconds, move |batch| {
            let appender = appender.clone();
            async move { Ok(appender.append(&batch.events).await?) }
        });
        ours.push(rate.await?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let mut report = Report::new("Appending to Kafka: acknowledged by all replicas, lz4; client and brokers share all cores");
    report.row("librdkafka, records ready made", format!("{theirs:.0} events/s"), "");
    report.row("the queue, from events", format!("{ours:.0} events/s"), "");
    report.row("the queue over librdkafka", format!("{:.2} ×", ours / theirs), "≥ 0.8 ×");
    let bytes: usize = batches[0].records.iter().map(|(_, lines)| lines.len()).sum();
    report.note(format!(
        "Appends of {BATCH} events in {} records and {bytes} bytes, {IN_FLIGHT} in flight.",
        batches[0].records.len()
    ));
    report.print();
    Ok(())
}

fn batches() -> anyhow::Result<Vec<Arc<Batch>>> {
    let mut generator = Generator::new(1, Timeline::Live(Clock::system()));
    let now = domain::Timestamp::from_nanos(Clock::system().unix_ns());
    (0..POOL / BATCH)
        .map(|_| {
            let lines = generator.lines(BATCH);
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let event = |line: &[u8]| {
                // What ingest adds.
                let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
                fields.entry("received_at").or_insert(serde_json::to_value(now)?);
                fields.entry("id").or_insert(uuid::Uuid::now_v7().to_string().into());
                Ok(serde_json::from_value(fields.into())?)
            };
            let events: Vec<Event> = lines.map(event).collect::<anyhow::Result<_>>()?;
            let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for event in &events {
                let lines = records
                    .entry(format!("{}/{}", event.namespace(), event.server()))
                    .or_default();
                serde_json::to_writer(&mut *lines, event)?;
                lines.push(b'\n');
            }
            Ok(Arc::new(Batch {
                events,
                records: records.into_iter().collect(),
            }))
        })
        .collect()
}

/// The settings of the queue, said once more so that a change there is seen here.
fn raw_producer(brokers: &str) -> anyhow::Result<FutureProducer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("socket.nagle.disable", "true")
        .set("queue.buffering.max.kbytes", "131072")
        .create()?;
    Ok(producer)
}

async fn send(producer: &FutureProducer, topic: &str, records: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
    let sent: Result<Vec<_>, _> = records
        .iter()
        .map(|(key, lines)| producer.send_result(FutureRecord::to(topic).key(key).payload(lines)))
        .collect();
    for answer in try_join_all(sent.map_err(|(error, _)| error)?).await? {
        answer.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// Events per second of a closed loop.
async fn round<S, F>(batches: &[Arc<Batch>], seconds: u64, send: S) -> anyhow::Result<f64>
where
    S: Fn(Arc<Batch>) -> F + Clone + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let (turn, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (batches, turn, done, send) = (batches.to_vec(), Arc::clone(&turn), Arc::clone(&done), send.clone());
        senders.spawn(async move {
            while Instant::now() < until {
                let at = usize::try_from(turn.fetch_add(1, Ordering::Relaxed))? % batches.len();
                send(Arc::clone(&batches[at])).await?;
                done.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    let events = f64::from(u32::try_from(done.load(Ordering::Relaxed))?);
    Ok(events / begun.elapsed().as_secs_f64())
}
