//! Settings, topics and groups of a test's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use domain::{Event, Timestamp};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use sentinel_queue::contract;
use sentinel_queue::kafka::{AppenderArgs, AppenderConfig, KafkaAppender, KafkaTail, TailArgs, TailConfig};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Parser)]
struct Appender {
    #[command(flatten)]
    args: AppenderArgs,
}

#[derive(Parser)]
struct Tail {
    #[command(flatten)]
    args: TailArgs,
}

/// Names of a topic and a group that nobody else has.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) group: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Names {
    pub(crate) fn new(brokers: &str) -> Self {
        // Shown with a failure. The first test of the process sets it.
        let _set = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .with_test_writer()
            .try_init();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            brokers: brokers.to_owned(),
            topic: format!("events-{number}"),
            group: format!("group-{number}"),
        }
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let own = ["test", "--kafka-brokers", &self.brokers, "--kafka-topic", &self.topic];
        own.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    pub(crate) fn appender_config(&self, more: &[&str]) -> AppenderConfig {
        let args = Appender::try_parse_from(self.args(more)).unwrap_or_else(|error| panic!("{error}"));
        AppenderConfig::try_from(args.args).unwrap()
    }

    pub(crate) fn tail_config(&self, more: &[&str]) -> TailConfig {
        let own = [
            "--kafka-group",
            &self.group,
            "--kafka-session-timeout-ms=6000",
            "--kafka-lease-age-ms-max=0",
        ];
        let all: Vec<&str> = own.iter().chain(more).copied().collect();
        let args = Tail::try_parse_from(self.args(&all)).unwrap_or_else(|error| panic!("{error}"));
        TailConfig::try_from(args.args).unwrap()
    }

    pub(crate) async fn appender(&self, more: &[&str]) -> KafkaAppender {
        KafkaAppender::connect(self.appender_config(more)).await.unwrap()
    }

    pub(crate) async fn tail(&self, more: &[&str]) -> KafkaTail {
        KafkaTail::connect(self.tail_config(more), now).await.unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test may look at the clock")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap())
}

/// Awaits what must not take longer than the deadline.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: still waiting after {DEADLINE:?}"))
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Events numbered by a range, of so many servers in turn.
pub(crate) fn events_of(numbers: std::ops::Range<u64>, servers: u64) -> Vec<Event> {
    let mut events = contract::events(numbers);
    for event in &mut events {
        event.payload.server = event.producer_seq.map(|number| format!("server-{}", number % servers));
    }
    events
}

impl Names {
    /// Moves the group by hand, as an operator would.
    pub(crate) fn commit_record(&self, record: i64) {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.brokers).set("group.id", &self.group);
        let consumer: BaseConsumer = settings.create().unwrap();
        let mut position = TopicPartitionList::new();
        position.add_partition_offset(&self.topic, 0, Offset::Offset(record)).unwrap();
        consumer.commit(&position, CommitMode::Sync).unwrap();
    }
}
