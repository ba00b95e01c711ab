//! Realistic events in their wire form: who calls what, when, how long it takes and how it ends.
//!
//! Everything is drawn from one seed. Names follow Zipf's law (a few servers, tools, agents and people make most of the calls),
//! times follow days and weeks, latencies are lognormal, ids are `UUIDv7` of the event's time. Every event has values of its
//! own: repeating prepared lines would make stores look smaller than they are.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use service_kit::Clock;

const NAMESPACES: usize = 8;
const SERVERS: usize = 12;
const TOOLS: usize = 14;
const AGENTS: usize = 40;
const HUMANS: usize = 250;

/// Steepness of the skew; 1 is the classic law.
const SKEW: f64 = 1.05;
/// Share of `tools/call` that policy refuses.
const DENIED: f64 = 0.04;
const TOOL_ERRORS: f64 = 0.03;
const RPC_ERRORS: f64 = 0.01;
const TRANSPORT_ERRORS: f64 = 0.005;

const VERBS: [&str; TOOLS] = [
    "list",
    "get",
    "search",
    "create",
    "update",
    "delete",
    "export",
    "refund",
    "approve",
    "assign",
    "close",
    "notify",
    "summarise",
    "reconcile",
];
const NOUNS: [&str; SERVERS] = [
    "invoice",
    "ticket",
    "employee",
    "document",
    "repository",
    "incident",
    "order",
    "shipment",
    "contract",
    "calendar",
    "dataset",
    "page",
];
const CLIENTS: [(&str, &str); 5] = [
    ("cursor", "2.4.1"),
    ("claude-code", "3.0.12"),
    ("vscode", "1.118.0"),
    ("inspector", "2.12.0"),
    ("custom-agent", "0.9.3"),
];
const HOUR: Duration = Duration::from_hours(1);

/// When events happen.
#[derive(Debug, Clone)]
pub enum Timeline {
    /// At the moment they are made.
    Live(Clock),
    /// Spread over whole hours before `end`, in order, more by day and on working days.
    Past {
        /// First hour.
        start: Timestamp,
        /// Share of all events before the end of each hour; the last is 1.
        until: Arc<[f64]>,
        /// How many events there will be.
        total: u64,
    },
}

impl Timeline {
    /// `total` events over `days` days before `end`.
    pub fn past(end: Timestamp, days: u32, total: u64) -> Self {
        let start = end.minus(HOUR * 24 * days);
        let mut sum = 0.0;
        let mut until: Vec<f64> = (0..days * 24)
            .map(|hour| {
                let at = start.plus(HOUR * hour);
                sum += activity(at);
                sum
            })
            .collect();
        for share in &mut until {
            *share /= sum;
        }
        Self::Past {
            start,
            until: until.into(),
            total,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares of a window; no exactness is asked for"
    )]
    fn at(&self, index: u64) -> Timestamp {
        match self {
            Self::Live(clock) => Timestamp::from_nanos(clock.unix_ns()),
            Self::Past { start, until, total } => {
                let share = (index as f64 + 0.5) / (*total).max(1) as f64;
                let hour = until.partition_point(|&until| until < share).min(until.len() - 1);
                let from = hour.checked_sub(1).map_or(0.0, |before| until[before]);
                let within = ((share - from) / (until[hour] - from)).clamp(0.0, 0.999_999);
                let nanos = (hour as f64 + within) * HOUR.as_nanos() as f64;
                start.plus(Duration::from_nanos(nanos as u64))
            }
        }
    }
}

/// How busy an hour is: a day has its noon, a week its weekend.
fn activity(at: Timestamp) -> f64 {
    let hours = i32::try_from(at.seconds().rem_euclid(86_400) / 3_600).unwrap_or_default();
    let noon = 1.0 - f64::from((hours - 13).abs()) / 13.0;
    // Day 0 of the epoch was a Thursday.
    let weekend = matches!(at.day().rem_euclid(7), 2 | 3);
    (0.15 + noon.max(0.0)) * if weekend { 0.3 } else { 1.0 }
}

/// Draws ranks by Zipf's law.
#[derive(Debug, Clone)]
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let mut until: Vec<f64> = (1..=u32::try_from(ranks).unwrap_or(u32::MAX))
            .map(|rank| {
                sum += f64::from(rank).powf(-SKEW);
                sum
            })
            .collect();
        for share in &mut until {
            *share /= sum;
        }
        Self(until)
    }

    fn draw(&self, rng: &mut SmallRng) -> usize {
        let share: f64 = rng.random();
        self.0.partition_point(|&until| until < share).min(self.0.len() - 1)
    }
}

/// Writes to a text in memory, which cannot fail.
macro_rules! put {
    ($text:expr, $($piece:tt)*) => {
        $text.write_fmt(format_args!($($piece)*)).expect("a String takes everything")
    };
}

/// Makes events, one after the other.
#[derive(Debug, Clone)]
pub struct Generator {
    rng: SmallRng,
    timeline: Timeline,
    index: u64,
    namespaces: Zipf,
    servers: Zipf,
    tools: Zipf,
    agents: Zipf,
    humans: Zipf,
}

/// How a request ended, as four columns of the event say it.
struct End {
    outcome: &'static str,
    decision: &'static str,
    reason: &'static str,
    status: u16,
    error: &'static str,
}

impl Generator {
    /// Events of a seed at the times of a timeline.
    pub fn new(seed: u64, timeline: Timeline) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            timeline,
            index: 0,
            namespaces: Zipf::new(NAMESPACES),
            servers: Zipf::new(SERVERS),
            tools: Zipf::new(TOOLS),
            agents: Zipf::new(AGENTS),
            humans: Zipf::new(HUMANS),
        }
    }

    /// Events made so far.
    pub fn made(&self) -> u64 {
        self.index
    }

    /// `count` events as lines of JSON.
    pub fn lines(&mut self, count: usize) -> Vec<u8> {
        let mut text = String::with_capacity(count * 1_100);
        for _ in 0..count {
            self.line(&mut text);
        }
        text.into_bytes()
    }

    /// Appends one event and a line end, and gives its id.
    pub fn line(&mut self, text: &mut String) -> uuid::Uuid {
        let at = self.timeline.at(self.index);
        let id = id_at(at, &mut self.rng);
        let (trace, span): (u128, u64) = (self.rng.random(), self.rng.random());
        let (namespace, server) = (self.namespaces.draw(&mut self.rng), self.servers.draw(&mut self.rng));
        let noun = NOUNS[(server + namespace * 5) % SERVERS];
        put!(
            text,
            r#"{{"v":1,"id":"{id}","timestamp":"{at}","source":"{noun}s-gateway","event_type":"mcp.request","trace_id":"{trace:032x}","span_id":"{span:016x}","producer":"{noun}s-gateway-{namespace}","producer_seq":{},"payload":{{"server":"{noun}s","namespace":"team-{namespace}","team_id":"team-{namespace}""#,
            self.index
        );
        self.caller(text, namespace, at);
        self.call(text, noun);
        text.push_str("}}\n");
        self.index += 1;
        id
    }

    fn caller(&mut self, text: &mut String, namespace: usize, at: Timestamp) {
        let (agent, human) = (self.agents.draw(&mut self.rng), self.humans.draw(&mut self.rng));
        let (client, version) = CLIENTS[agent % CLIENTS.len()];
        put!(
            text,
            r#","human_id":"user-{namespace}-{human:03}","agent_id":"agent-{agent:02}","identity":"verified","client_name":"{client}","client_version":"{version}""#
        );
        if agent % 2 == 0 {
            text.push_str(r#","era":"modern","protocol_version":"2026-07-28""#);
        } else {
            // A session of a person and an agent lasts half an hour.
            let half_hour = u64::try_from(at.seconds() / 1_800).unwrap_or_default();
            let session = mix(half_hour ^ ((agent as u64) << 40) ^ ((human as u64) << 48) ^ ((namespace as u64) << 60));
            put!(
                text,
                r#","era":"legacy","protocol_version":"2025-11-25","session_id":"{:016x}{session:016x}""#,
                mix(session)
            );
        }
    }

    fn call(&mut self, text: &mut String, noun: &str) {
        let method = match self.rng.random_range(0..100) {
            0..88 => "tools/call",
            88..95 => "tools/list",
            95..97 => "resources/read",
            _ => "initialize",
        };
        let tool = self.tools.draw(&mut self.rng);
        let end = if method == "tools/call" { self.end() } else { ALLOWED };
        let denied = end.decision == "deny";
        let upstream_us = if denied {
            0
        } else {
            self.lognormal(9.4 + [0.0, 0.7, 1.6][tool % 3], 0.8)
        };
        let own_us = self.lognormal(4.2, 0.3);
        let bytes_in = self.lognormal(5.6, 0.4);
        let bytes_out = if denied { 310 } else { self.lognormal(6.2, 1.2) };
        put!(
            text,
            r#","method":"POST","path":"/{noun}s/mcp","status":{},"rpc_method":"{method}","outcome":"{}","decision":"{}","reason":"{}","policy_version":"v1","policy_revision":"sha256:9f3c1a7be4d25f60","latency_us":{},"bytes_in":{bytes_in},"bytes_out":{bytes_out},"request_id":"{}""#,
            end.status,
            end.outcome,
            end.decision,
            end.reason,
            upstream_us + own_us,
            self.rng.random_range(1..400),
        );
        if method == "tools/call" {
            put!(
                text,
                r#","tool_name":"{}_{noun}","required_side_effect":"{}""#,
                VERBS[tool],
                ["read", "read", "read", "write"][tool % 4]
            );
        }
        if !denied {
            put!(
                text,
                r#","matched_grant":"{noun}s-{}","upstream_us":{upstream_us},"ttfb_us":{},"response_kind":"{}""#,
                tool % 3,
                upstream_us + own_us / 2,
                if upstream_us % 3 == 0 { "sse" } else { "json" },
            );
        }
        if !end.error.is_empty() {
            put!(text, r#","error_type":"{}""#, end.error);
        }
    }

    fn end(&mut self) -> End {
        let share: f64 = self.rng.random();
        let mut until = DENIED;
        if share < until {
            let reason = ["no_matching_grant", "trust_too_low", "tool_denied"][self.rng.random_range(0..3)];
            return End {
                outcome: "denied",
                decision: "deny",
                reason,
                status: 403,
                error: "",
            };
        }
        until += TOOL_ERRORS;
        if share < until {
            return End {
                outcome: "tool_error",
                error: "tool_error",
                ..ALLOWED
            };
        }
        until += RPC_ERRORS;
        if share < until {
            return End {
                outcome: "rpc_error",
                error: "-32602",
                ..ALLOWED
            };
        }
        until += TRANSPORT_ERRORS;
        if share < until {
            return End {
                outcome: "transport_error",
                error: "timeout",
                status: 504,
                ..ALLOWED
            };
        }
        ALLOWED
    }

    /// e to the power of a normal variable, by Box and Muller.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and far below 2^53"
    )]
    fn lognormal(&mut self, mean: f64, deviation: f64) -> u64 {
        let (a, b): (f64, f64) = (1.0 - self.rng.random::<f64>(), self.rng.random());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (mean + deviation * normal).exp().min(3e8) as u64
    }
}

const ALLOWED: End = End {
    outcome: "ok",
    decision: "allow",
    reason: "allowed",
    status: 200,
    error: "",
};

fn id_at(at: Timestamp, rng: &mut SmallRng) -> uuid::Uuid {
    let millis = u64::try_from(at.millis()).unwrap_or_default();
    let random: [u8; 10] = rng.random();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// Spreads the bits of a number (the finaliser of splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
