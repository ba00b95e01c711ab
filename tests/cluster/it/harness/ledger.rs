//! Senders and what they know: every event that was made, and which were acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::now;

/// How far back events lie: two days, so that blocks have several days.
const BACK_MAX: Duration = Duration::from_hours(30);

/// What events are counted by: server, tool, outcome.
pub(crate) type Kind = (String, String, String);

/// How many events there are of each kind, all of them acknowledged in the end.
pub(crate) type Ledger = BTreeMap<Kind, u64>;

/// Events that are sent together, always with the same ids.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) body: String,
}

/// A batch of new events, entered into the ledger.
pub(crate) fn batch(random: &mut SmallRng, namespace: &str, ledger: &mut Ledger) -> Batch {
    let count = random.random_range(1..40);
    let mut lines = String::new();
    for _ in 0..count {
        let server = format!("server-{}", random.random_range(0..3));
        let tool = format!("tool-{}", random.random_range(0..4));
        let outcome = ["ok", "ok", "ok", "tool_error", "denied"][random.random_range(0..5)];
        lines.push_str(&event(random, namespace, &server, &tool, outcome).to_string());
        lines.push('\n');
        *ledger.entry((server, tool, outcome.to_owned())).or_default() += 1;
    }
    Batch { body: lines }
}

/// A valid event with an id of its own.
pub(crate) fn event(random: &mut SmallRng, namespace: &str, server: &str, tool: &str, outcome: &str) -> Value {
    let back = Duration::from_millis(random.random_range(0..BACK_MAX.as_secs() * 1_000));
    let decision = if outcome == "denied" { "deny" } else { "allow" };
    json!({
        "id": Uuid::now_v7(),
        "timestamp": now().minus(back).to_string(),
        "source": format!("{server}-gateway"),
        "event_type": "mcp.request",
        "payload": {
            "namespace": namespace,
            "server": server,
            "rpc_method": "tools/call",
            "tool_name": tool,
            "outcome": outcome,
            "decision": decision,
            "latency_us": random.random_range(5_000..90_000),
            "upstream_us": random.random_range(500..4_000),
            "ttfb_us": random.random_range(300..4_000),
            "reason": if outcome == "denied" { "no_matching_grant" } else { "allowed" },
            "error_type": if outcome == "tool_error" { "tool" } else { "" },
            "status": if outcome == "denied" { 403 } else { 200 },
            "required_trust": "high",
            "effective_trust": "low",
            "identity": "verified",
            "session_id": format!("session-{}", random.random_range(0..40)),
            "client_name": "editor",
            "client_version": "1.2",
            "protocol_version": "2025-11-25",
            "tool_schema_hash": "0123456789abcdef",
            "human_id": format!("person-{}", random.random_range(0..20)),
            "agent_id": "agent",
            "bytes_in": 100,
            "bytes_out": 1_000,
        },
    })
}
