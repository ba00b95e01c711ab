//! One installation: a topic, a group and a database of its own, its ingest, its processors, its API.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;

use super::backends::Backends;
use super::ledger::{Batch, Kind, Ledger};
use super::process::{Process, run};
use super::proxy::Proxy;
use super::{DEADLINE, http, until};

pub(crate) const NAMESPACE: &str = "acme";
/// Longest wait of a sender for one answer.
const SENDER_WAIT: Duration = Duration::from_secs(8);

static NUMBERS: AtomicU32 = AtomicU32::new(0);

/// One installation.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) backends: Arc<Backends>,
    /// Between the engine and the processors.
    pub(crate) network: Proxy,
    pub(crate) topic: String,
    pub(crate) database: String,
    key: String,
    pub(crate) ingest: Process,
    pub(crate) processors: Vec<Process>,
    sender: reqwest::Client,
    folder: TempDir,
}

impl Installation {
    /// Makes the database, then starts ingest and one processor. Nobody waits until they are ready.
    pub(crate) async fn start(backends: &Arc<Backends>, seed: u64) -> Self {
        let folder = TempDir::with_prefix("cluster.").expect("a temporary folder");
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (topic, database) = (format!("mcp.events-{number}"), backends.engine.database());
        let network = Proxy::bind(seed);
        let engine = backends.engine.url().trim_start_matches("http://").parse();
        network.lead_to(engine.expect("the engine's address"));
        run(
            "sentinel-migrate",
            &args(&[
                "--apply",
                "--clickhouse-url",
                backends.engine.url(),
                "--clickhouse-db",
                &database,
            ]),
        )
        .await;
        let keys = folder.path().join("keys.json").display().to_string();
        let key = run("sentinel-keys", &args(&["--file", &keys, "create", "--namespace", NAMESPACE])).await;
        let mut installation = Self {
            ingest: ingest(backends, &topic, &keys, folder.path()),
            processors: Vec::new(),
            backends: Arc::clone(backends),
            network,
            topic,
            database,
            key: key.trim().to_owned(),
            sender: http(SENDER_WAIT),
            folder,
        };
        installation.add_processor();
        installation
    }

    /// One more processor of the same group.
    pub(crate) fn add_processor(&mut self) {
        let engine = format!("http://{}", self.network.address);
        let mut all = kafka_args(&self.backends, &self.topic);
        all.extend(args(&[
            "--processor-admin-listen=127.0.0.1:0",
            "--processor-retry-pause-max=300ms",
            "--kafka-session-timeout-ms=2000",
            "--kafka-lease-age-ms-max=50",
            "--shutdown-timeout=20s",
            "--clickhouse-url",
            &engine,
            "--clickhouse-db",
            &self.database,
        ]));
        self.processors
            .push(Process::start("sentinel-processor", self.folder.path(), all));
    }

    /// An API that asks past the proxies, once it is ready.
    pub(crate) async fn api(&self) -> Api {
        let (ingest, processor) = (self.ingest.address("admin").await, self.processors[0].address("admin").await);
        let mut all = kafka_args(&self.backends, &self.topic);
        all.extend(args(&[
            "--open-loopback",
            "--platform-api-listen=127.0.0.1:0",
            "--platform-api-admin-listen=127.0.0.1:0",
            "--platform-api-parts",
            &format!("ingest=http://{ingest},processor=http://{processor}"),
            "--clickhouse-url",
            self.backends.engine.url(),
            "--clickhouse-db",
            &self.database,
        ]));
        let process = Process::start("platform-api", self.folder.path(), all);
        process.ready().await;
        let url = format!("http://{}", process.address("platform-api").await);
        Api {
            process,
            url,
            client: http(DEADLINE),
        }
    }

    /// Sends a batch once; `Err`: nothing is known of it.
    pub(crate) async fn send(&self, batch: &Batch) -> Result<(), String> {
        let url = format!("http://{}/events", self.ingest.address("ingest").await);
        let request = self
            .sender
            .post(url)
            .header("x-api-key", &self.key)
            .header("content-type", "application/x-ndjson")
            .body(batch.body.clone());
        let answer = request.send().await.map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            202 => Ok(()),
            status @ 503 => {
                let again = answer.headers().contains_key("retry-after");
                assert!(again, "503 without Retry-After");
                Err(format!("{status} {}", answer.text().await.unwrap_or_default()))
            }
            status => panic!(
                "an answer that no sender expects: {status} {}",
                answer.text().await.unwrap_or_default()
            ),
        }
    }

    /// Puts something that is no event straight into the topic.
    pub(crate) async fn poison(&self, line: &str) {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", self.backends.kafka.bootstrap());
        let producer: FutureProducer = settings.create().expect("a producer");
        let record = FutureRecord::to(&self.topic).key("poison").payload(line);
        producer
            .send(record, DEADLINE)
            .await
            .map_err(|(error, _)| error)
            .expect("a poisoned topic");
    }

    /// Values of the records that hold so many events, read from the beginning of the topic.
    pub(crate) fn records(&self, events: u64) -> Vec<Vec<u8>> {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", self.backends.kafka.bootstrap())
            .set("group.id", "reader");
        let consumer: BaseConsumer = settings.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..2 {
            all.add_partition_offset(&self.topic, partition, Offset::Beginning)
                .expect("a partition");
        }
        consumer.assign(&all).expect("an assignment");
        let (mut records, mut found) = (Vec::new(), 0);
        while found < events {
            let message = consumer.poll(DEADLINE).expect("a record in time").expect("a record");
            let value = message.payload().expect("a value").to_vec();
            found += value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
            records.push(value);
        }
        records
    }

    /// Inserts what is encoded already; `{db}` is the database.
    pub(crate) async fn put(&self, statement: &str, body: Vec<u8>) -> Result<(), String> {
        let statement = &*statement.replace("{db}", &self.database);
        let request = self
            .sender
            .post(self.backends.engine.url())
            .query(&[("input_format_skip_unknown_fields", "1"), ("query", statement)]);
        let answer = request.body(body).send().await.map_err(|error| error.to_string())?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(answer.text().await.unwrap_or_default())
    }

    /// Waits until the events are stored and every position is committed, and compares the table and every rollup with the ledger.
    pub(crate) async fn exact(&self, ledger: &Ledger, what: &str) {
        let expected: u64 = ledger.values().sum();
        until(&format!("{what}: every event is stored"), async || {
            let stored = self.number("SELECT count() FROM {db}.events").await?;
            (stored >= expected).then_some(()).ok_or_else(|| {
                let logs: String = self.processors.iter().map(Process::log_end).collect();
                format!("{stored} of {expected}\n{logs}")
            })
        })
        .await;
        until(&format!("{what}: everything is counted once"), async || {
            self.compare(ledger).await
        })
        .await;
    }

    async fn compare(&self, ledger: &Ledger) -> Result<(), String> {
        let expected: u64 = ledger.values().sum();
        let ids = self.number("SELECT uniqExact(id) FROM {db}.events").await?;
        if ids != expected {
            return Err(format!("{ids} ids instead of {expected}"));
        }
        for (table, sum) in [
            ("events", "count()"),
            ("calls_hourly", "sum(events)"),
            ("calls_daily", "sum(events)"),
        ] {
            let sql = format!("SELECT server, tool_name, outcome, toUInt64({sum}) FROM {{db}}.{table} GROUP BY ALL");
            same(table, ledger, &self.counts(&sql, 3).await?)?;
        }
        let mut servers = Ledger::new();
        for ((server, ..), count) in ledger {
            *servers.entry((server.clone(), String::new(), String::new())).or_default() += count;
        }
        for table in ["servers_hourly", "servers_daily", "calls_minutely"] {
            let sql = format!("SELECT server, toUInt64(sum(events)) FROM {{db}}.{table} GROUP BY server");
            same(table, &servers, &self.counts(&sql, 1).await?)?;
        }
        Ok(())
    }

    /// Counts by so many columns; `{db}` is the database.
    pub(crate) async fn counts(&self, sql: &str, keys: usize) -> Result<Ledger, String> {
        let rows = self.backends.rows(&sql.replace("{db}", &self.database)).await?;
        let text = |row: &Vec<Value>, at: usize| {
            let value = if at < keys { row[at].as_str() } else { Some("") };
            value.unwrap_or_default().to_owned()
        };
        let count = |row: &Vec<Value>| whole(&row[keys]);
        Ok(rows
            .iter()
            .map(|row| ((text(row, 0), text(row, 1), text(row, 2)), count(row)))
            .collect())
    }

    /// The number that a statement answers; `{db}` is the database.
    pub(crate) async fn number(&self, sql: &str) -> Result<u64, String> {
        let rows = self.backends.rows(&sql.replace("{db}", &self.database)).await?;
        Ok(rows.first().map_or(0, |row| whole(&row[0])))
    }

    /// Sends what no ingest takes: an event without a source, and an event without a key.
    pub(crate) async fn refused(&self) {
        let url = format!("http://{}/events", self.ingest.address("ingest").await);
        for key in [self.key.as_str(), "nobody"] {
            let request = self
                .sender
                .post(&url)
                .header("x-api-key", key)
                .header("content-type", "application/json")
                .body("{}");
            let status = request.send().await.expect("an answer of ingest").status();
            assert!(status.is_client_error(), "{status}");
        }
    }

    /// Rows of a statement whose tables are in our database.
    pub(crate) async fn ask(&self, sql: &str) -> Result<Vec<Vec<Value>>, String> {
        self.backends.rows_in(&self.database, sql).await
    }

    /// Ends everything and forgets the database.
    pub(crate) async fn end(mut self) {
        for process in self.processors.iter_mut().chain([&mut self.ingest]) {
            process.kill().await;
        }
        let forgotten = self.backends.rows(&format!("DROP DATABASE {} SYNC", self.database)).await;
        forgotten.expect("a dropped database");
    }
}

/// Whole numbers come as texts or as numbers, depending on their size.
fn whole(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or(text).unwrap_or_else(|| panic!("no number: {value}"))
}

fn same(table: &str, expected: &Ledger, found: &Ledger) -> Result<(), String> {
    let differs = |kind: &&Kind| expected.get(*kind) != found.get(*kind);
    let kinds: BTreeSet<&Kind> = expected.keys().chain(found.keys()).collect();
    let mut text = String::new();
    for kind in kinds.into_iter().filter(differs).take(5) {
        let _infallible = write!(text, "; {kind:?}: {:?} instead of {:?}", found.get(kind), expected.get(kind));
    }
    if text.is_empty() {
        Ok(())
    } else {
        Err(format!("{table}{text}"))
    }
}

fn args(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn kafka_args(backends: &Backends, topic: &str) -> Vec<String> {
    let brokers = backends.network.address.to_string();
    let (letters, group) = (format!("{topic}.dlq"), format!("{topic}.processors"));
    args(&[
        "--kafka-brokers",
        &brokers,
        "--kafka-topic",
        topic,
        "--kafka-dlq-topic",
        &letters,
        "--kafka-partitions=2",
    ])
    .into_iter()
    .chain(group_args(&group))
    .collect()
}

fn group_args(group: &str) -> Vec<String> {
    args(&["--kafka-group", group])
}

fn ingest(backends: &Backends, topic: &str, keys: &str, folder: &Path) -> Process {
    // Ingest is no member of the group.
    let mut all: Vec<String> = kafka_args(backends, topic);
    all.truncate(all.len() - 2);
    all.extend(args(&[
        "--ingest-listen=127.0.0.1:0",
        "--ingest-admin-listen=127.0.0.1:0",
        "--ingest-append-timeout=5s",
        "--kafka-append-timeout-ms=4000",
        "--ingest-keys-file",
        keys,
    ]));
    Process::start("sentinel-ingest", folder, all)
}

/// A running platform API.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) process: Process,
    url: String,
    client: reqwest::Client,
}

impl Api {
    /// What it answers, status and body.
    pub(crate) async fn ask(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.expect("an answer of the API");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("the body of an answer");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The body of a good answer.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(reqwest::Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}
