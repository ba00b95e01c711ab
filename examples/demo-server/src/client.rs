//! Made-up agents who use an MCP server as real ones do, through the official Rust SDK, and tell what became of each call.
//!
//! Every caller opens a session, lists what there is, makes a dozen calls and leaves; its next session speaks the other
//! protocol era. Which calls, is decided in `mix` from the seed alone. Identity travels in `X-MCP-*` headers, as a
//! gateway expects it; [`Caller::with_header`] adds a session credential where one is asked for.
//!
//! A record is written for each JSON-RPC request, so the records of a run are what a recorder in between must have
//! found. Notifications, streams and the end of sessions have none.

mod mix;
mod session;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use mix::Mix;
use session::Session;

/// A caller gives up when its server could not be reached this often in a row.
const REFUSALS_MAX: u32 = 6;
const CALLERS_MAX: u32 = 1_000;
const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 10_000.0;
const PAUSE_MAX: Duration = Duration::from_secs(2);
const CALLS_PER_SESSION: std::ops::Range<u32> = 8..16;

/// What to send.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Equal seeds choose equal calls.
    pub seed: u64,
    pub amount: Amount,
    /// Calls per second, of all callers together.
    pub rate: f64,
    pub callers: Vec<Caller>,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// After this many calls, not counting those that open a session.
    Calls(u64),
    /// After this time; a call under way is finished.
    For(Duration),
}

/// Who calls: a human, through an agent, in a team.
#[derive(Clone)]
pub struct Caller {
    pub human: String,
    pub agent: String,
    pub team: String,
    headers: HeaderMap,
}

/// A protocol era.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// Up to 2025-11-25: a handshake and a session.
    Legacy,
    /// Since 2026-07-28: every request for itself.
    Modern,
}

/// What became of a call, as its caller saw it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    ToolError,
    RpcError,
    /// Refused on the way: a JSON-RPC error that carries a decision.
    Denied,
    Cancelled,
    InputRequired,
    TransportError,
}

/// One JSON-RPC request and its end.
#[derive(Clone, Debug, Serialize)]
pub struct CallRecord {
    pub human: String,
    pub agent: String,
    pub team: String,
    pub era: Era,
    pub method: &'static str,
    /// The tool, prompt or URI; none for methods without one.
    pub name: Option<String>,
    pub outcome: Outcome,
    pub latency_us: u64,
    /// Progress notifications received before the end.
    pub progress_count: u32,
}

impl Caller {
    pub fn new(human: impl Into<String>, agent: impl Into<String>, team: impl Into<String>) -> Self {
        Self {
            human: human.into(),
            agent: agent.into(),
            team: team.into(),
            headers: HeaderMap::new(),
        }
    }

    /// Sends one header more with every request. Its value is never shown.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    /// The first `count` of the usual cast; after ten it begins again with numbered agents.
    pub fn cast(count: usize) -> Vec<Self> {
        const CAST: [(&str, &str, &str); 10] = [
            ("maria", "billing-bot", "finance"),
            ("jonas", "support-copilot", "support"),
            ("maria", "month-end-closer", "finance"),
            ("aiko", "support-copilot", "support"),
            ("femi", "collections-agent", "finance"),
            ("lucia", "sales-assistant", "growth"),
            ("tomasz", "incident-bot", "platform"),
            ("jonas", "refund-helper", "support"),
            ("priya", "data-analyst", "growth"),
            ("femi", "audit-reader", "compliance"),
        ];
        let numbered = |(at, (human, agent, team)): (usize, (&str, &str, &str))| match at / CAST.len() {
            0 => Self::new(human, agent, team),
            round => Self::new(human, format!("{agent}-{}", round + 1), team),
        };
        CAST.into_iter().cycle().take(count).enumerate().map(numbered).collect()
    }

    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let mut headers = self.headers.clone();
        for (name, value) in [
            ("x-mcp-human-id", &self.human),
            ("x-mcp-agent-id", &self.agent),
            ("x-mcp-team-id", &self.team),
        ] {
            let value = HeaderValue::try_from(value).with_context(|| format!("writing {value:?} into a header"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {} of {}", self.human, self.agent, self.team)
    }
}

/// Sends `traffic` to the server at `url` and every record to `records`, as it happens.
///
/// Ends when the amount is reached, or at once when nobody takes records any more; calls under way are then cancelled.
/// Failed calls are records, not errors; it is an error when a caller cannot open a session several times in a row.
pub async fn drive(url: &str, traffic: Traffic, records: mpsc::Sender<CallRecord>) -> anyhow::Result<()> {
    let callers = u32::try_from(traffic.callers.len()).unwrap_or(u32::MAX);
    if callers == 0 || callers > CALLERS_MAX || !(RATE_MIN..=RATE_MAX).contains(&traffic.rate) {
        bail!("traffic needs 1 to {CALLERS_MAX} callers and {RATE_MIN} to {RATE_MAX} calls per second");
    }
    let budget = Budget::new(traffic.amount);
    let gap = Duration::from_secs_f64(f64::from(callers) / traffic.rate);
    let http = session::http_client(url)?;
    let callers = traffic.callers.iter().enumerate().map(|(at, caller)| {
        let seed = traffic.seed.wrapping_add(at as u64);
        let agent = Agent {
            url,
            http: http.clone(),
            caller,
            at,
            gap,
            budget: &budget,
            records: records.clone(),
        };
        Box::pin(agent.work(SmallRng::seed_from_u64(seed)))
    });
    tokio::select! {
        ends = join_all(callers) => ends.into_iter().collect(),
        () = records.closed() => Ok(()),
    }
}

/// As [`drive`], but keeps the records. Memory grows with the amount.
pub async fn drive_and_collect(url: &str, traffic: Traffic) -> anyhow::Result<Vec<CallRecord>> {
    let (sender, mut receiver) = mpsc::channel(256);
    let collect = async {
        let mut all = Vec::new();
        while let Some(record) = receiver.recv().await {
            all.push(record);
        }
        all
    };
    let (end, all) = tokio::join!(drive(url, traffic, sender), collect);
    end.map(|()| all)
}

/// What is left to do, shared by all callers.
struct Budget {
    calls: AtomicU64,
    deadline: Option<Instant>,
}

impl Budget {
    fn new(amount: Amount) -> Self {
        match amount {
            Amount::Calls(calls) => Self {
                calls: AtomicU64::new(calls),
                deadline: None,
            },
            Amount::For(time) => Self {
                calls: AtomicU64::new(u64::MAX),
                deadline: Some(Instant::now() + time),
            },
        }
    }

    fn spent(&self) -> bool {
        self.calls.load(Ordering::Relaxed) == 0 || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn take(&self) -> bool {
        !self.spent()
            && self
                .calls
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }
}

struct Agent<'a> {
    url: &'a str,
    http: reqwest::Client,
    caller: &'a Caller,
    at: usize,
    gap: Duration,
    budget: &'a Budget,
    records: mpsc::Sender<CallRecord>,
}

impl Agent<'_> {
    async fn work(self, mut random: SmallRng) -> anyhow::Result<()> {
        let mut mix = Mix::new(self.at, SmallRng::seed_from_u64(random.random()));
        let mut era = if self.at.is_multiple_of(2) { Era::Legacy } else { Era::Modern };
        let mut refusals = 0;
        while !self.budget.spent() {
            match Session::open(self.url, self.http.clone(), self.caller, era, self.records.clone()).await {
                Ok(session) => {
                    refusals = 0;
                    let calls = random.random_range(CALLS_PER_SESSION);
                    self.converse(&session, calls, &mut mix, &mut random).await;
                    session.close().await;
                }
                Err(error) if refusals + 1 == REFUSALS_MAX => return Err(error),
                Err(error) => {
                    refusals += 1;
                    tracing::debug!(caller = ?self.caller, refusals, "no session: {error:#}");
                    tokio::time::sleep((Duration::from_millis(50) * 2_u32.pow(refusals)).min(PAUSE_MAX)).await;
                }
            }
            era = if era == Era::Legacy { Era::Modern } else { Era::Legacy };
        }
        Ok(())
    }

    async fn converse(&self, session: &Session, calls: u32, mix: &mut Mix, random: &mut SmallRng) {
        for _ in 0..calls {
            // Gaps of exponential length: calls of independent people come like that.
            let gap = self.gap.mul_f64(-(1.0 - random.random::<f64>()).ln());
            tokio::time::sleep(gap.min(self.gap * 5)).await;
            if !self.budget.take() || !session.perform(mix.next_step()).await {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::Caller;

    #[test]
    fn the_cast_is_as_large_as_asked_and_nobody_appears_twice() {
        let cast = Caller::cast(25);
        let mut seen: Vec<_> = cast.iter().map(|each| format!("{each:?}")).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 25);
    }

    #[test]
    fn a_credential_is_not_shown() {
        let caller = Caller::new("maria", "billing-bot", "finance");
        let caller = caller.with_header(
            HeaderName::from_static("x-mcp-agent-session"),
            HeaderValue::from_static("secret"),
        );
        let headers = caller.headers().expect("plain names");
        assert_eq!(headers["x-mcp-agent-session"], "secret");
        assert!(!format!("{caller:?} {headers:?}").contains("secret"));
    }
}
