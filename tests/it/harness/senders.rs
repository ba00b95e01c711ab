//! Senders with a ledger: batches of every form, some of them repeated, as long as the other end lives.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Answer, Ledger, Standalone, now, until};

/// Largest batch that a sender makes.
const BATCH_EVENTS_MAX: usize = 120;
/// Acknowledged batches that a sender remembers, to send them again.
const REMEMBERED_MAX: usize = 20;
/// How far back events lie: several days, so that several daily files and buckets are written.
const BACK_MAX: Duration = Duration::from_hours(60);

/// A valid event with an id of its own.
pub(crate) fn event(tool: &str) -> Value {
    json!({
        "id": Uuid::now_v7(),
        "source": "probe-gateway",
        "event_type": "mcp.request",
        "payload": { "rpc_method": "tools/call", "tool_name": tool, "outcome": "ok", "decision": "allow", "latency_us": 1_200 },
    })
}

/// Some events that are sent together, always with the same ids.
#[derive(Debug, Clone)]
struct Batch {
    ids: Vec<Uuid>,
    content_type: &'static str,
    gzip: bool,
    body: Vec<u8>,
    /// Events in the body, the repeated ones too.
    events: usize,
}

/// One sender: its numbering, its memory, its account.
#[derive(Debug)]
pub(crate) struct Sender {
    random: SmallRng,
    name: String,
    /// Whether its events carry its own count; those of others are known by their id alone.
    numbers: bool,
    next_seq: u64,
    /// To be sent first: nothing is known of it.
    pending: Option<Batch>,
    remembered: Vec<Batch>,
    pub(crate) ledger: Ledger,
}

impl Sender {
    /// Some senders whose choices follow from the seed.
    pub(crate) fn some(count: u64, seed: u64) -> Vec<Self> {
        let sender = |number: u64| Self {
            random: SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number)),
            name: format!("sender-{seed}-{number}"),
            numbers: number.is_multiple_of(2),
            next_seq: 0,
            pending: None,
            remembered: Vec::new(),
            ledger: Ledger::default(),
        };
        (0..count).map(sender).collect()
    }

    fn event(&mut self) -> (Uuid, Value) {
        let id = Uuid::now_v7();
        let random = &mut self.random;
        let back = BACK_MAX.mul_f64(random.random::<f64>().powi(4));
        let outcome = ["ok", "ok", "ok", "tool_error", "denied"][random.random_range(0..5)];
        let server = ["payments", "search", "files"][random.random_range(0..3)];
        let mut event = json!({
            "id": id,
            "timestamp": now().minus(back),
            "source": "load-gateway",
            "event_type": "mcp.request",
            "payload": {
                "server": server,
                "rpc_method": "tools/call",
                "tool_name": format!("tool-{}", random.random_range(0..12)),
                "agent_id": format!("agent-{}", random.random_range(0..9)),
                "outcome": outcome,
                "decision": if outcome == "denied" { "deny" } else { "allow" },
                "latency_us": random.random_range(200..900_000),
                "bytes_in": random.random_range(80..4_000),
                "request_id": random.random::<u32>().to_string(),
            },
        });
        if self.numbers {
            event["producer"] = json!(self.name);
            event["producer_seq"] = json!(self.next_seq);
            self.next_seq += 1;
        }
        (id, event)
    }

    fn batch(&mut self) -> Batch {
        let single = self.random.random_bool(0.2);
        let count = if single {
            1
        } else {
            self.random.random_range(1..=BATCH_EVENTS_MAX)
        };
        let (ids, mut events): (Vec<_>, Vec<_>) = (0..count).map(|_| self.event()).unzip();
        if !single && self.random.random_bool(0.1) {
            // A sender with a fault: one event twice in one body.
            events.push(events[0].clone());
        }
        let lines = self.random.random_bool(0.5);
        let (content_type, body) = match (single, lines) {
            (true, _) => ("application/json", events[0].to_string()),
            (false, false) => ("application/json", json!(events).to_string()),
            (false, true) => (
                "application/x-ndjson",
                events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
            ),
        };
        let gzip = self.random.random_bool(0.3);
        let body = if gzip { gzipped(body.as_bytes()) } else { body.into_bytes() };
        Batch {
            ids,
            content_type,
            gzip,
            body,
            events: events.len(),
        }
    }

    fn next(&mut self) -> Batch {
        if let Some(batch) = self.pending.take() {
            return batch;
        }
        if !self.remembered.is_empty() && self.random.random_bool(0.1) {
            let at = self.random.random_range(0..self.remembered.len());
            return self.remembered[at].clone();
        }
        self.batch()
    }

    /// Sends until the other end is gone.
    async fn send_on(&mut self, target: &Target) {
        loop {
            let batch = self.next();
            let answer = target.post(&batch).await;
            let Ok(answer) = answer else {
                self.ledger.doubt(batch.ids.iter().copied());
                // Some senders try again later, some give up: both happen.
                self.pending = self.random.random_bool(0.7).then_some(batch);
                return;
            };
            match (answer.status, answer.taken()) {
                (202, Some((accepted, duplicates))) if accepted + duplicates == batch.events as u64 => {
                    self.ledger.acknowledge(batch.ids.iter().copied());
                    target.acknowledged.send_modify(|sum| *sum += batch.ids.len());
                    self.remember(batch);
                }
                // Draining or full: nothing is known.
                (503, _) => {
                    self.ledger.doubt(batch.ids.iter().copied());
                    self.pending = Some(batch);
                    tokio::task::yield_now().await;
                }
                _ => panic!(
                    "{}: a valid batch of {} events was answered {answer:?}",
                    self.name, batch.events
                ),
            }
        }
    }

    fn remember(&mut self, batch: Batch) {
        if self.remembered.len() == REMEMBERED_MAX {
            let at = self.random.random_range(0..REMEMBERED_MAX);
            self.remembered[at] = batch;
        } else {
            self.remembered.push(batch);
        }
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// Where senders send to.
#[derive(Debug)]
struct Target {
    http: reqwest::Client,
    url: String,
    key: String,
    acknowledged: watch::Sender<usize>,
}

impl Target {
    async fn post(&self, batch: &Batch) -> reqwest::Result<Answer> {
        let mut request = self
            .http
            .post(&self.url)
            .header("x-api-key", &self.key)
            .header("content-type", batch.content_type);
        if batch.gzip {
            request = request.header("content-encoding", "gzip");
        }
        Answer::of(request.body(batch.body.clone()).send().await?).await
    }
}

/// Senders at work against one process.
#[derive(Debug)]
pub(crate) struct Load {
    senders: JoinSet<Sender>,
    acknowledged: watch::Receiver<usize>,
}

impl Load {
    pub(crate) fn start(standalone: &Standalone, senders: Vec<Sender>) -> Self {
        let (sum, acknowledged) = watch::channel(0);
        let url = format!("{}/events", standalone.url);
        // Each process gets connections of its own: none that an earlier one left half open.
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(1))
            .build()
            .expect("an HTTP client");
        let target = Arc::new(Target {
            http,
            url,
            key: standalone.key.clone(),
            acknowledged: sum,
        });
        let mut tasks = JoinSet::new();
        for mut sender in senders {
            let target = Arc::clone(&target);
            tasks.spawn(async move {
                sender.send_on(&target).await;
                sender
            });
        }
        Self {
            senders: tasks,
            acknowledged,
        }
    }

    /// Waits until so many events were acknowledged in this round.
    pub(crate) async fn reaches(&mut self, events: usize) {
        let wait = self.acknowledged.wait_for(|sum| *sum >= events);
        let reached = matches!(tokio::time::timeout(super::DEADLINE, wait).await, Ok(Ok(_)));
        let seen = *self.acknowledged.borrow();
        assert!(
            reached,
            "{seen} of {events} events were acknowledged, then the senders got no further"
        );
    }

    /// The senders, once the other end is gone.
    pub(crate) async fn end(self) -> Vec<Sender> {
        let ended = tokio::time::timeout(super::DEADLINE * 2, self.senders.join_all()).await;
        let mut senders = ended.expect("senders end with the process they send to");
        senders.sort_by(|a, b| a.name.cmp(&b.name));
        senders
    }
}

/// The store holds what the senders know, in raw rows and in every rollup.
pub(crate) async fn verify(standalone: &Standalone, senders: &[Sender], when: &str) {
    let mut ledger = Ledger::default();
    for sender in senders {
        ledger.merge(&sender.ledger);
    }
    let raw = until(&format!("{when}: raw rows and rollups agree"), async || {
        let raw = standalone.number("select count(*) from events").await;
        let distinct = standalone.number("select count(distinct id) from events").await;
        let hourly = standalone.number("select sum(events) from calls_hourly").await;
        let daily = standalone.number("select sum(events) from calls_daily").await;
        let state = format!(
            "{raw} rows, {distinct} distinct ids, {hourly} in hours, {daily} in days; {} acknowledged",
            ledger.acknowledged()
        );
        let agree = distinct == raw && hourly == raw && daily == raw && raw >= ledger.acknowledged() as u64;
        if agree { Ok(raw) } else { Err(state) }
    })
    .await;
    let stored = stored_ids(standalone).await;
    assert_eq!(
        stored.len() as u64,
        raw,
        "{when}: an export has {} events, the table {raw}",
        stored.len()
    );
    if let Err(fault) = ledger.compare(&stored) {
        panic!("{when}: {fault}");
    }
}

/// Ids of everything stored.
async fn stored_ids(standalone: &Standalone) -> Vec<Uuid> {
    let answer = standalone
        .get("/api/v1/analytics/export?format=ndjson")
        .await
        .expect(200, "exporting every event");
    let id = |line: &str| {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("a line of the export is no JSON: {error}: {line}"));
        event["id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .unwrap_or_else(|| panic!("an exported event without id: {line}"))
    };
    answer.text.lines().map(id).collect()
}
