use std::fmt::Write as _;

use domain::{Decision, Era, Event, EventBatch, EventId, Identity, Outcome, ResponseKind, Span, SpanId, Timestamp, TraceId};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::events::{NOON, event, open};
use crate::EventWriter as _;

/// One row group.
const EVENTS: u64 = 131_072;
/// As many hours as it takes at ten million a month.
const SPAN_NS: i64 = 34_000_000_000_000;
/// What an event may take on disk, rollups and filters included: a little above what was measured, so that growth is noticed. Of it
/// some 40 are three random ids and the filters, and some 18 the rollups, whose rows are shared by few events in so small a set.
const BYTES_MAX: u64 = 90;

/// Small numbers far more often than large ones.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product lies within 0 and `end`"
)]
fn skewed(random: &mut SmallRng, end: u32) -> u32 {
    let share: f64 = random.random::<f64>().powi(4);
    (f64::from(end) * share) as u32
}

fn realistic(random: &mut SmallRng, number: u64) -> Event {
    let mut event = event(number);
    let nanos =
        NOON * 1_000_000_000 - 43_200_000_000_000 + i64::try_from(number * u64::try_from(SPAN_NS).unwrap() / EVENTS).unwrap();
    let nanos = nanos + random.random_range(0..1_000_000_000);
    event.timestamp = Timestamp::from_nanos(nanos);
    event.received_at = Timestamp::from_nanos(nanos + random.random_range(1_000_000..2_000_000_000));
    let made = u128::try_from(nanos / 1_000_000).unwrap() << 80;
    event.id =
        EventId::from_bytes((made | 0x7 << 76 | 0x8 << 60 | (random.random::<u128>() & 0x0fff_ffff_ffff_ffff)).to_be_bytes());
    event.trace_id = TraceId::from_bytes(random.random());
    event.span_id = SpanId::from_bytes(random.random());
    event.received_by = Some("k1".to_owned());
    let server = skewed(random, 60);
    let latency = 300 + u64::from(skewed(random, 2_000_000));
    let payload = &mut *event.payload;
    let human = skewed(random, 2_000);
    payload.namespace = Some(format!("team-{}", server % 12));
    payload.server = Some(format!("server-{server}"));
    payload.tool_name = Some(format!("tool-{}", skewed(random, 12)));
    payload.human_id = Some(format!("person-{human}@example.com"));
    payload.agent_id = Some(format!("agent-{}", human % 40));
    payload.session_id = Some(format!(
        "{:032x}",
        u128::from(human * 8 + skewed(random, 8)) * 0x9e37_79b9_7f4a_7c15_1234_5678
    ));
    payload.identity = Some(Identity::Verified);
    payload.method = Some("POST".to_owned());
    payload.path = Some(format!("/server-{server}/mcp"));
    payload.status = Some(200);
    payload.rpc_method = Some("tools/call".to_owned());
    let denied = random.random_ratio(1, 30);
    payload.outcome = Some(if denied { Outcome::Denied } else { Outcome::Ok });
    payload.decision = Some(if denied { Decision::Deny } else { Decision::Allow });
    payload.policy_revision = Some(format!("sha256:{:064x}", server / 3));
    payload.matched_grant = Some(format!("grant-{}", human % 200));
    payload.latency_us = Some(latency);
    payload.upstream_us = (!denied).then(|| latency - random.random_range(50..250));
    payload.ttfb_us = (!denied).then(|| latency - random.random_range(0..50));
    payload.bytes_in = Some(200 + u64::from(skewed(random, 2_000)));
    payload.bytes_out = Some(100 + u64::from(skewed(random, 30_000)));
    payload.protocol_version = Some("2025-11-25".to_owned());
    payload.era = Some(Era::Legacy);
    payload.client_name = Some(format!("client-{}", human % 5));
    payload.client_version = Some("1.2.3".to_owned());
    payload.response_kind = Some(ResponseKind::Json);
    payload.request_id = Some(random.random_range(1..200).to_string());
    payload.attributes.clear();
    event
}

#[tokio::test]
async fn realistic_events_take_few_bytes_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut random = SmallRng::seed_from_u64(7);
    let mut first = 0;
    while first < EVENTS {
        let end = (first + 16_384).min(EVENTS);
        let events = (first..end).map(|number| (number, realistic(&mut random, number))).collect();
        let batch = EventBatch {
            span: Span {
                partition: 0,
                first,
                end,
            },
            events,
            complete_through: Timestamp::MIN,
        };
        store.insert(batch.into()).await.unwrap();
        first = end;
    }
    store.flush().await.unwrap();
    let mut told = String::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        writeln!(
            told,
            "{}: {} rows, {} bytes",
            path.display(),
            reader.metadata().file_metadata().num_rows(),
            path.metadata().unwrap().len()
        )
        .unwrap();
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                let bytes = column.compressed_size() + i64::from(column.bloom_filter_length().unwrap_or(0));
                if bytes > 5_000 {
                    writeln!(
                        told,
                        "  {}: {bytes}, of it filter {:?}",
                        column.column_path(),
                        column.bloom_filter_length()
                    )
                    .unwrap();
                }
            }
        }
    }
    let stored = store.snapshot().stored();
    assert!(
        stored.bytes <= BYTES_MAX * EVENTS,
        "{} bytes an event\n{told}",
        stored.bytes / EVENTS
    );
}
