//! Entry points for fuzzers. Each takes any bytes and panics when a promise of this crate does not hold for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::Timestamp;
use domain::event::NamespaceRule;
use prometheus_client::metrics::gauge::Gauge;

use crate::Config;
use crate::body::{Coding, Form, Layout, Telemetry, Wire};
use crate::budget::Budget;
use crate::decode::Job;
use crate::keys::{Grant, Sender};

const LAYOUTS: [Layout; 6] = [
    Layout::Json,
    Layout::Lines,
    Layout::Telemetry(Telemetry::Spans, Wire::Protobuf),
    Layout::Telemetry(Telemetry::Spans, Wire::Json),
    Layout::Telemetry(Telemetry::Records, Wire::Protobuf),
    Layout::Telemetry(Telemetry::Records, Wire::Json),
];
const CODINGS: [Coding; 3] = [Coding::Identity, Coding::Gzip, Coding::Zstd];
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// A body, after a byte for how it is laid out and packed: it is read within its bounds, each of its events is admitted, repeated or
/// rejected, and the memory comes back.
pub fn body(bytes: &[u8]) {
    let Some((&form, body)) = bytes.split_first() else { return };
    let form = usize::from(form);
    let form = Form {
        layout: LAYOUTS[form % LAYOUTS.len()],
        coding: CODINGS[form / LAYOUTS.len() % CODINGS.len()],
    };
    let gauge = Gauge::default();
    let budget = Budget::new(64 << 20, gauge.clone());
    let job = Job {
        body: Bytes::copy_from_slice(body),
        form,
        sender: Sender::Token(Arc::new(Grant {
            id: "fuzzer".to_owned(),
            rule: NamespaceRule::Any,
        })),
        now: Timestamp::from_seconds(1_795_000_000),
        now_monotonic: Duration::ZERO,
        trace_id: None,
        config: Config {
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            events_max: 100,
            ..Config::default()
        },
        held: budget.hold(),
    };
    if let Ok(decoded) = job.run() {
        assert!(decoded.bytes <= DECOMPRESSED_BYTES_MAX);
        let counted = decoded.events.len() + decoded.duplicates + decoded.rejections.total();
        // Telemetry holds more than calls: spans and records about something else are passed over.
        let is_telemetry = matches!(form.layout, Layout::Telemetry(..));
        assert!(counted == decoded.charged || is_telemetry && counted < decoded.charged);
    }
    assert_eq!(gauge.get(), 0, "all memory comes back");
}
