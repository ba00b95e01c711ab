//! Events and filters from a seed: few distinct values, so that groups fill and filters match; times on and around the edges of
//! hours and days; absent values everywhere they may be.

use std::time::Duration;

use domain::{Decision, Event, EventBatch, EventId, Identity, Outcome, Payload, Span, SpanId, Timestamp, TraceId};

use crate::query::{Filter, Scope};

/// The first moment that events are generated for: the start of a day.
pub(super) const BEGIN: Timestamp = Timestamp::from_seconds(1_793_491_200);
/// Hours that events are spread over: two days and a half.
const HOURS: u64 = 60;
/// Batches of one seed.
const BATCHES: u64 = 12;
const PARTITIONS: u64 = 2;

const NAMESPACES: [&str; 3] = ["acme", "globex", "initech"];
const SERVERS: [&str; 3] = ["payments", "search", "mail"];
const TEAMS: [&str; 3] = ["", "red", "blue"];
const TOOLS: [&str; 5] = ["", "list", "create", "other", "it's \"quoted\" \\ ünï"];
const AGENTS: [&str; 4] = ["", "claude", "scout", "bot"];
const METHODS: [&str; 3] = ["tools/call", "tools/list", "initialize"];

/// A small generator of numbers (`SplitMix64`), the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Whether something that happens in `percent` of all cases happens.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len() as u64);
        &of[usize::try_from(at).unwrap_or_default()]
    }

    /// One of several words; none when it is empty.
    fn word(&mut self, of: &[&str]) -> Option<String> {
        Some(*self.pick(of)).filter(|word| !word.is_empty()).map(str::to_owned)
    }
}

/// Batches in the order in which they are to be inserted, with some `size` events each, ids unlike within a seed.
pub fn batches(seed: u64, size: u64) -> Vec<EventBatch> {
    let mut random = Random::new(seed.wrapping_mul(1_000_003));
    let mut ends = vec![0; usize::try_from(PARTITIONS).unwrap_or(usize::MAX)];
    let mut through = BEGIN;
    let batch = |at: u64| {
        let partition = at % PARTITIONS;
        let end = &mut ends[usize::try_from(partition).unwrap_or_default()];
        let span = Span {
            partition: u32::try_from(partition).unwrap_or_default(),
            first: *end,
            end: *end + size,
        };
        *end = span.end;
        through = through.plus(Duration::from_mins(1));
        // Some offsets held what could not be decoded.
        let offsets = (span.first..span.end).filter(|_| !random.chance(1)).collect::<Vec<_>>();
        let events = offsets
            .into_iter()
            .map(|offset| (offset, event(&mut random, seed, at * size + offset - span.first)))
            .collect();
        EventBatch {
            span,
            events,
            complete_through: through,
        }
    };
    (0..BATCHES).map(batch).collect()
}

fn time(random: &mut Random) -> Timestamp {
    let hour = BEGIN.plus(Duration::from_hours(random.below(HOURS)));
    match random.below(10) {
        0 => hour,
        1 => hour.minus(Duration::from_nanos(1)).max(BEGIN),
        _ => hour.plus(Duration::from_nanos(random.below(3_600_000_000_000))),
    }
}

fn event(random: &mut Random, seed: u64, number: u64) -> Event {
    let timestamp = time(random);
    let millis = u128::from(timestamp.millis().unsigned_abs());
    let id = (millis << 80) | (7 << 76) | (2 << 62) | (u128::from(seed) << 32) | u128::from(number);
    let producer = random.word(&["", "g1", "g2"]);
    let mut trace = [1; 16];
    trace[..8].copy_from_slice(&random.below(50).to_be_bytes());
    Event {
        version: domain::event::WireVersion,
        id: EventId::from_bytes(id.to_be_bytes()),
        timestamp,
        // A store need not keep more of it than milliseconds.
        received_at: Timestamp::from_millis(timestamp.millis() + i64::try_from(random.below(900)).unwrap_or_default()),
        received_by: random.word(&["", "k1"]),
        source: format!("{}-gateway", random.pick(&SERVERS)),
        event_type: (*random.pick(&["mcp.request", "mcp.request", "audit"])).to_owned(),
        trace_id: random.chance(70).then(|| TraceId::from_bytes(trace)).flatten(),
        span_id: random
            .chance(50)
            .then(|| SpanId::from_bytes(random.next().to_be_bytes()))
            .flatten(),
        parent_span_id: None,
        producer_seq: producer.is_some().then_some(number),
        producer,
        payload: Box::new(payload(random)),
    }
}

fn payload(random: &mut Random) -> Payload {
    let namespace = *random.pick(&NAMESPACES);
    let humans = [
        String::new(),
        format!("{namespace}-{}", random.below(40)),
        format!("{namespace}-{}", random.below(400)),
    ];
    let mut payload = Payload {
        namespace: Some(namespace.to_owned()),
        server: random.word(&SERVERS),
        team_id: random.word(&TEAMS),
        human_id: Some(random.pick(&humans).clone()).filter(|human| !human.is_empty()),
        agent_id: random.word(&AGENTS),
        session_id: random.chance(60).then(|| format!("s{}", random.below(500))),
        identity: random.chance(50).then(|| *random.pick(Identity::ALL)),
        rpc_method: random.word(&METHODS),
        tool_name: random.word(&TOOLS),
        status: random.chance(80).then(|| *random.pick(&[200, 403, 500])),
        outcome: random.chance(85).then(|| *random.pick(Outcome::ALL)),
        decision: random.chance(80).then(|| *random.pick(Decision::ALL)),
        rpc_code: random.chance(10).then_some(-32_602),
        latency_us: random.chance(80).then(|| random.next() >> (40 + random.below(20))),
        bytes_in: random.chance(70).then(|| random.below(10_000)),
        bytes_out: random.chance(70).then(|| random.below(1 << 40)),
        sse_events: random.chance(10).then_some(3),
        ..Payload::default()
    };
    if random.chance(10) {
        payload
            .attributes
            .insert("note, with \"comma\"".to_owned(), "a\nb".to_owned());
    }
    payload
}

/// A filter that matches some of the events of [`batches`], mostly.
pub fn filter(random: &mut Random) -> Filter {
    let scope = match random.below(5) {
        0 => Scope::Only {
            namespaces: Vec::new(),
            teams: Vec::new(),
        },
        1 => Scope::Only {
            namespaces: vec!["acme".to_owned()],
            teams: vec![String::new()],
        },
        2 => Scope::Only {
            namespaces: vec!["globex".to_owned()],
            teams: vec!["red".to_owned(), "none".to_owned()],
        },
        _ => Scope::All,
    };
    let edge = |random: &mut Random| match random.below(4) {
        0 => None,
        1 => Some(BEGIN.plus(Duration::from_hours(random.below(HOURS / 12) * 12))),
        2 => Some(BEGIN.plus(Duration::from_hours(random.below(HOURS)))),
        _ => Some(time(random)),
    };
    let (since, until) = (edge(random), edge(random));
    let texts = |words: &[&str], random: &mut Random| {
        (0..=random.below(2))
            .map(|_| (*random.pick(words)).to_owned())
            .collect::<Vec<_>>()
    };
    let mut equals = Vec::new();
    for _ in 0..random.below(3) {
        let (name, values) = match random.below(9) {
            0 => ("server", texts(&SERVERS, random)),
            1 => ("tool_name", texts(&TOOLS, random)),
            2 => ("team_id", texts(&TEAMS, random)),
            3 => ("decision", texts(&["", "allow", "deny"], random)),
            4 => ("outcome", texts(&["", "ok", "denied", "tool_error"], random)),
            5 => ("agent_id", texts(&AGENTS, random)),
            6 => ("status", texts(&["", "200", "500"], random)),
            7 => ("rpc_code", texts(&["", "-32602"], random)),
            _ => ("event_type", texts(&["mcp.request", "audit"], random)),
        };
        equals.push((name.to_owned(), values));
    }
    Filter {
        scope,
        since,
        until,
        equals,
    }
}
