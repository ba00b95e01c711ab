//! Events as a busy installation has them: the same skew, ids and latencies as the load generator's.

use domain::{Decision, Era, Event, EventBatch, EventId, Identity, Outcome, ResponseKind, Span, SpanId, Timestamp, TraceId};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::events::event;

const NAMESPACES: usize = 8;
const SERVERS: usize = 12;
const TOOLS: usize = 14;
const AGENTS: usize = 40;
const HUMANS: usize = 250;
const CLIENTS: [(&str, &str); 5] = [
    ("cursor", "2.4.1"),
    ("claude-code", "3.0.12"),
    ("vscode", "1.118.0"),
    ("inspector", "2.12.0"),
    ("custom-agent", "0.9.3"),
];

/// Ten million events a month are this many nanoseconds apart.
pub(super) const PACE_NS: u64 = 259_200_000;

/// Draws ranks by Zipf's law.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let weights = (1..=u32::try_from(ranks).unwrap()).map(|rank| f64::from(rank).powf(-1.05));
        let whole: f64 = weights.clone().sum();
        let mut sum = 0.0;
        Self(
            weights
                .map(|weight| {
                    sum += weight / whole;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut SmallRng) -> usize {
        let share: f64 = random.random();
        self.0.partition_point(|&until| until < share).min(self.0.len() - 1)
    }
}

/// Makes events one after the other, [`PACE_NS`] apart.
pub(super) struct Traffic {
    random: SmallRng,
    start_ns: i64,
    number: u64,
    namespaces: Zipf,
    servers: Zipf,
    tools: Zipf,
    agents: Zipf,
    humans: Zipf,
}

impl Traffic {
    pub(super) fn from(start_ns: i64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(7),
            start_ns,
            number: 0,
            namespaces: Zipf::new(NAMESPACES),
            servers: Zipf::new(SERVERS),
            tools: Zipf::new(TOOLS),
            agents: Zipf::new(AGENTS),
            humans: Zipf::new(HUMANS),
        }
    }

    pub(super) fn batch(&mut self, events: u64) -> EventBatch {
        let first = self.number;
        EventBatch {
            span: Span {
                partition: 0,
                first,
                end: first + events,
            },
            events: (first..first + events).map(|number| (number, self.event())).collect(),
            complete_through: Timestamp::MIN,
        }
    }

    fn event(&mut self) -> Event {
        let mut event = event(self.number);
        let random = &mut self.random;
        let nanos = self.start_ns + i64::try_from(self.number * PACE_NS + random.random_range(0..PACE_NS)).unwrap();
        event.timestamp = Timestamp::from_nanos(nanos);
        event.received_at = Timestamp::from_millis(nanos / 1_000_000 + random.random_range(1..1_500));
        let made = u128::try_from(nanos / 1_000_000).unwrap() << 80;
        let noise: u128 = random.random();
        event.id = EventId::from_bytes((made | 0x7 << 76 | 0x8 << 60 | (noise & 0x0fff_3fff_ffff_ffff_ffff)).to_be_bytes());
        event.trace_id = TraceId::from_bytes(random.random());
        event.span_id = SpanId::from_bytes(random.random());
        event.received_by = Some("k1".to_owned());
        let (namespace, server) = (self.namespaces.draw(random), self.servers.draw(random));
        event.source = format!("server-{server}-gateway");
        event.producer = Some(format!("server-{server}-gateway-{namespace}"));
        let (agent, human, tool) = (self.agents.draw(random), self.humans.draw(random), self.tools.draw(random));
        let payload = &mut *event.payload;
        payload.attributes.clear();
        payload.namespace = Some(format!("team-{namespace}"));
        payload.team_id = Some(format!("team-{namespace}"));
        payload.server = Some(format!("server-{server}"));
        payload.human_id = Some(format!("user-{namespace}-{human:03}"));
        payload.agent_id = Some(format!("agent-{agent:02}"));
        payload.identity = Some(Identity::Verified);
        let (client, version) = CLIENTS[agent % CLIENTS.len()];
        payload.client_name = Some(client.to_owned());
        payload.client_version = Some(version.to_owned());
        payload.protocol_version = Some(if agent % 2 == 0 { "2026-07-28" } else { "2025-11-25" }.to_owned());
        payload.era = Some(if agent % 2 == 0 { Era::Modern } else { Era::Legacy });
        let half_hour = u64::try_from(nanos / 1_800_000_000_000).unwrap();
        let session =
            SmallRng::seed_from_u64(half_hour << 24 ^ (agent * 2_000 + human * 8 + namespace) as u64).random::<u128>();
        payload.session_id = (agent % 2 == 1).then(|| format!("{session:032x}"));
        payload.method = Some("POST".to_owned());
        payload.path = Some(format!("/server-{server}/mcp"));
        let call = random.random_ratio(88, 100);
        payload.rpc_method = Some(if call { "tools/call" } else { "tools/list" }.to_owned());
        payload.tool_name = call.then(|| format!("tool-{tool}-of-{server}"));
        let denied = call && random.random_ratio(4, 100);
        let failed = call && random.random_ratio(4, 100);
        payload.outcome = Some(match (denied, failed) {
            (true, _) => Outcome::Denied,
            (_, true) => Outcome::ToolError,
            _ => Outcome::Ok,
        });
        payload.decision = Some(if denied { Decision::Deny } else { Decision::Allow });
        payload.reason = Some(if denied { "no_matching_grant" } else { "allowed" }.to_owned());
        payload.status = Some(if denied { 403 } else { 200 });
        payload.policy_version = Some("v1".to_owned());
        payload.policy_revision = Some("sha256:9f3c1a7be4d25f60".to_owned());
        payload.matched_grant = (!denied).then(|| format!("server-{server}-{}", tool % 3));
        let (upstream, own) = (lognormal(random, 9.4, 0.9), lognormal(random, 4.2, 0.3));
        payload.latency_us = Some(if denied { own } else { upstream + own });
        payload.upstream_us = (!denied).then_some(upstream);
        payload.ttfb_us = (!denied).then_some(upstream + own / 2);
        payload.bytes_in = Some(lognormal(random, 5.6, 0.4));
        payload.bytes_out = Some(if denied { 310 } else { lognormal(random, 6.2, 1.2) });
        payload.response_kind = Some(ResponseKind::Json);
        payload.request_id = Some(random.random_range(1..400).to_string());
        self.number += 1;
        event
    }
}

/// e to the power of a normal variable, by Box and Muller.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and far below 2^53"
)]
fn lognormal(random: &mut SmallRng, mean: f64, deviation: f64) -> u64 {
    let (a, b): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    (mean + deviation * normal).exp().min(3e8) as u64
}
