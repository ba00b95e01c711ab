//! Events on their way out: a bounded queue in memory, filled by requests that never wait and emptied by the delivery task.
//!
//! Every event gets an id and this process's own gapless number when it enters, so that what is lost later can be seen by whoever
//! counts. When the queue is full, ordinary calls make room for denials and sessions, never the other way round.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::event::WireVersion;
use domain::{Event, EventId, Payload, SpanId, Timestamp, TraceId};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::route::Site;

/// Memory an event takes besides its texts.
const EVENT_BYTES: usize = 1_536;

/// How much the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecorderLimits {
    pub events_max: usize,
    /// Approximate memory of all events together.
    pub bytes_max: usize,
}

impl Default for RecorderLimits {
    fn default() -> Self {
        Self {
            events_max: 16_384,
            bytes_max: 32 << 20,
        }
    }
}

/// Whether an event may make room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Importance {
    Ordinary,
    /// Denials and sessions: shed last.
    Kept,
}

/// An event before it is numbered. What all events of a server have in common stays with the server until it is needed.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) importance: Importance,
    pub(crate) timestamp: Timestamp,
    pub(crate) site: Arc<Site>,
    /// Empty for the type that the server's requests have.
    pub(crate) event_type: &'static str,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) span_id: Option<SpanId>,
    pub(crate) parent_span_id: Option<SpanId>,
    pub(crate) payload: Box<Payload>,
}

/// Takes events. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: RecorderLimits,
    producer: String,
    /// Makes the ids of this process differ from those of any other.
    seed: [u8; 8],
    queue: Mutex<Queue>,
    filled: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Queue {
    kept: VecDeque<Queued>,
    ordinary: VecDeque<Queued>,
    bytes: usize,
    next_seq: u64,
}

/// A numbered draft.
#[derive(Debug)]
pub(crate) struct Queued {
    draft: Draft,
    seq: u64,
    bytes: usize,
}

/// How delivery is doing, as the status page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryStatus {
    /// Events in memory.
    pub queued: u64,
    /// Events on disk.
    pub spooled: u64,
    /// Events that ingest has made durable.
    pub delivered: u64,
    /// Ordinary calls given up.
    pub dropped_calls: u64,
    /// Denials and sessions given up.
    pub dropped_kept: u64,
    /// Events that ingest refused for good.
    pub refused: u64,
    /// The last fault, until the next success.
    pub last_error: Option<String>,
}

/// Tells how delivery is doing. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Delivery(Recorder);

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) recorded: Counter,
    pub(crate) delivered: Counter,
    pub(crate) attempts_failed: Counter,
    pub(crate) dropped: Family<Dropped, Counter>,
    queued: Gauge,
    queued_bytes: Gauge,
    pub(crate) spooled: Gauge,
    spooled_now: AtomicU64,
    last_error: Mutex<Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Dropped {
    /// `call`, `denial_or_session` or `refused`.
    pub(crate) kind: &'static str,
}

impl Recorder {
    pub fn new(limits: RecorderLimits) -> Self {
        let identity = uuid::Uuid::new_v4();
        let mut seed = [0; 8];
        seed.copy_from_slice(&identity.as_bytes()[8..]);
        Self(Arc::new(Inner {
            limits,
            producer: format!("gateway-{}", identity.simple()),
            seed,
            queue: Mutex::default(),
            filled: Notify::new(),
            counts: Counts::default(),
        }))
    }

    /// Name of this process among those that send events.
    pub fn producer(&self) -> &str {
        &self.0.producer
    }

    /// A handle that tells how delivery is doing.
    pub fn delivery(&self) -> Delivery {
        Delivery(self.clone())
    }

    /// Takes the oldest events without sending them: for tests, and for whoever stores events in this very process.
    pub fn drain(&self, events_max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for queued in self.take(events_max, usize::MAX) {
            let mut event = self.blank();
            self.fill(&mut event, queued);
            events.push(event);
        }
        events
    }

    /// An event to be filled again and again.
    pub(crate) fn blank(&self) -> Event {
        Event {
            version: WireVersion,
            id: EventId::from_uuid(uuid::Uuid::nil()),
            timestamp: Timestamp::from_nanos(0),
            received_at: Timestamp::from_nanos(0),
            received_by: None,
            source: String::new(),
            event_type: String::new(),
            trace_id: None,
            span_id: None,
            parent_span_id: None,
            producer: Some(self.0.producer.clone()),
            producer_seq: None,
            payload: Box::default(),
        }
    }

    /// Makes the event of a draft out of another one, whose texts lend their memory.
    pub(crate) fn fill(&self, event: &mut Event, Queued { draft, seq, .. }: Queued) {
        let Draft { site, payload, .. } = draft;
        let mut before = std::mem::replace(&mut event.payload, payload);
        event.id = self.id(draft.timestamp, seq);
        (event.timestamp, event.received_at) = (draft.timestamp, draft.timestamp);
        event.source.clone_from(&site.source);
        let event_type = if draft.event_type.is_empty() {
            &site.event_type
        } else {
            draft.event_type
        };
        event_type.clone_into(&mut event.event_type);
        (event.trace_id, event.span_id, event.parent_span_id) = (draft.trace_id, draft.span_id, draft.parent_span_id);
        event.producer_seq = Some(seq);
        let payload = &mut event.payload;
        let lend = |own: &mut Option<String>, lent: &mut Option<String>, text: &str| {
            let own = own.insert(lent.take().unwrap_or_default());
            text.clone_into(own);
        };
        lend(&mut payload.server, &mut before.server, &site.route.server);
        lend(&mut payload.namespace, &mut before.namespace, &site.route.namespace);
        payload.cluster.clone_from(&site.route.cluster);
        payload.team_id.clone_from(&site.route.team_id);
    }

    pub(crate) fn record(&self, draft: Draft) {
        let bytes = EVENT_BYTES + text_bytes(&draft.payload);
        self.0.counts.recorded.inc();
        let mut queue = self.lock();
        let seq = queue.next_seq;
        queue.next_seq += 1;
        if !self.make_room(&mut queue, draft.importance, bytes) {
            return;
        }
        queue.bytes += bytes;
        let line = match draft.importance {
            Importance::Ordinary => &mut queue.ordinary,
            Importance::Kept => &mut queue.kept,
        };
        line.push_back(Queued { draft, seq, bytes });
        self.measure(&queue);
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Sheds what is in the way; `false` when the event itself is what must go.
    fn make_room(&self, queue: &mut Queue, importance: Importance, bytes: usize) -> bool {
        let limits = self.0.limits;
        while queue.len() >= limits.events_max || queue.bytes + bytes > limits.bytes_max {
            if importance == Importance::Ordinary {
                self.0.counts.dropped("call", 1);
                return false;
            }
            let Some(shed) = queue.ordinary.pop_front() else {
                self.0.counts.dropped("denial_or_session", 1);
                return false;
            };
            queue.bytes -= shed.bytes;
            self.0.counts.dropped("call", 1);
        }
        true
    }

    /// `UUIDv7` of the time, this process and the number: no two events of a process share one, and no randomness is needed.
    fn id(&self, timestamp: Timestamp, seq: u64) -> EventId {
        let millis = u64::try_from(timestamp.millis()).unwrap_or(0);
        let mixed = (u64::from_be_bytes(self.0.seed) ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes();
        let [.., high, low] = seq.to_be_bytes();
        let mut rest = [high, low, 0, 0, 0, 0, 0, 0, 0, 0];
        rest[2..].copy_from_slice(&mixed);
        EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid())
    }

    /// Takes the oldest events, at least one if there is one.
    pub(crate) fn take(&self, events_max: usize, bytes_max: usize) -> Vec<Queued> {
        let mut queue = self.lock();
        let mut events = Vec::with_capacity(queue.len().min(events_max));
        let mut bytes = 0;
        while events.len() < events_max && bytes < bytes_max {
            let Some(next) = queue.pop() else { break };
            bytes += next.bytes;
            events.push(next);
        }
        self.measure(&queue);
        events
    }

    /// Waits until there is an event.
    pub(crate) async fn filled(&self) {
        loop {
            let filled = self.0.filled.notified();
            if self.lock().len() > 0 {
                return;
            }
            filled.await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().len() == 0
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Gives up what is left, and says how much that was.
    pub(crate) fn abandon(&self) -> usize {
        let mut queue = self.lock();
        self.0.counts.dropped("call", queue.ordinary.len() as u64);
        self.0.counts.dropped("denial_or_session", queue.kept.len() as u64);
        let count = queue.len();
        queue.ordinary.clear();
        queue.kept.clear();
        queue.bytes = 0;
        self.measure(&queue);
        count
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        self.0.counts.register(registry);
    }

    fn measure(&self, queue: &Queue) {
        self.0.counts.queued.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
        self.0.counts.queued_bytes.set(i64::try_from(queue.bytes).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.kept.len() + self.ordinary.len()
    }

    /// The oldest event of both lines.
    fn pop(&mut self) -> Option<Queued> {
        let seq = |line: &VecDeque<Queued>| line.front().map_or(u64::MAX, |queued| queued.seq);
        let line = if seq(&self.kept) <= seq(&self.ordinary) {
            &mut self.kept
        } else {
            &mut self.ordinary
        };
        let popped = line.pop_front()?;
        self.bytes -= popped.bytes;
        Some(popped)
    }
}

impl Delivery {
    pub fn status(&self) -> DeliveryStatus {
        let counts = self.0.counts();
        let dropped = |kind| counts.dropped.get_or_create(&Dropped { kind }).get();
        DeliveryStatus {
            queued: self.0.lock().len() as u64,
            spooled: counts.spooled_now.load(Ordering::Relaxed),
            delivered: counts.delivered.get(),
            dropped_calls: dropped("call"),
            dropped_kept: dropped("denial_or_session"),
            refused: dropped("refused"),
            last_error: counts.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Counts {
    pub(crate) fn dropped(&self, kind: &'static str, count: u64) {
        if count > 0 {
            self.dropped.get_or_create(&Dropped { kind }).inc_by(count);
        }
    }

    pub(crate) fn failed(&self, why: Option<String>) {
        if why.is_some() {
            self.attempts_failed.inc();
        }
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn on_disk(&self, events: u64) {
        self.spooled_now.store(events, Ordering::Relaxed);
        self.spooled.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("events_recorded", "Requests recorded", self.recorded.clone());
        registry.register(
            "events_delivered",
            "Events that ingest has made durable",
            self.delivered.clone(),
        );
        registry.register("events_dropped", "Events given up, by kind", self.dropped.clone());
        registry.register(
            "events_delivery_failures",
            "Attempts to deliver that failed",
            self.attempts_failed.clone(),
        );
        registry.register("events_queued", "Events waiting in memory", self.queued.clone());
        registry.register(
            "events_queued_bytes",
            "Memory of the events waiting",
            self.queued_bytes.clone(),
        );
        registry.register("events_spooled", "Events waiting on disk", self.spooled.clone());
    }
}

/// Memory of the texts that strangers can make long.
fn text_bytes(payload: &Payload) -> usize {
    let texts = [
        &payload.path,
        &payload.rpc_method,
        &payload.tool_name,
        &payload.prompt_name,
        &payload.resource_uri,
        &payload.human_id,
        &payload.agent_id,
        &payload.subject_team_id,
        &payload.client_name,
        &payload.client_version,
        &payload.request_id,
    ];
    texts.into_iter().flatten().map(String::len).sum()
}

#[cfg(test)]
mod tests;
