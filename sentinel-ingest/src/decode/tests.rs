use std::io::Write as _;

use prometheus_client::metrics::gauge::Gauge;
use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::body::Layout;
use crate::budget::Budget;
use crate::keys::Key;
use crate::{KeyRing, KeyStore, NewKeyRequest};

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

fn key() -> Arc<Key> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let request = NewKeyRequest {
        namespace: "acme".to_owned(),
        ..NewKeyRequest::default()
    };
    let made = KeyStore::new(&path, service_kit::Clock::system()).create(request).unwrap();
    KeyRing::open(&path).find(&made.key, NOW).unwrap()
}

fn run(key: &Arc<Key>, budget: &Budget, body: &[u8], layout: Layout, coding: Coding) -> Result<Decoded, BodyFault> {
    let job = Job {
        body: Bytes::copy_from_slice(body),
        form: Form { layout, coding },
        sender: Sender::Key(Arc::clone(key)),
        now: NOW,
        now_monotonic: Duration::ZERO,
        trace_id: None,
        config: Config {
            events_max: 10,
            ..Config::default()
        },
        held: budget.hold(),
    };
    job.run()
}

fn packed(text: &[u8], coding: Coding) -> Vec<u8> {
    match coding {
        Coding::Identity => text.to_vec(),
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Zstd => zstd::encode_all(text, 1).unwrap(),
    }
}

#[test]
fn memory_is_held_while_events_are_and_given_back_with_them() {
    let (key, gauge) = (key(), Gauge::default());
    let budget = Budget::new(1 << 20, gauge.clone());
    let text = br#"{"source":"a","event_type":"b","payload":{}}"#;
    let decoded = run(&key, &budget, text, Layout::Lines, Coding::Identity).unwrap();
    assert_eq!(gauge.get(), i64::try_from(event_memory(1)).unwrap());
    drop(decoded);
    assert_eq!(gauge.get(), 0);
    let packed = packed(text, Coding::Zstd);
    let refused = run(&key, &Budget::new(1_000, gauge.clone()), &packed, Layout::Lines, Coding::Zstd);
    assert_eq!(refused.unwrap_err(), BodyFault::NoRoom);
    assert_eq!(gauge.get(), 0);
}

proptest! {
    #[test]
    fn nothing_a_stranger_sends_breaks_the_decoder(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in r#"[\[\]{}",:\\ \nau0-9]{0,80}"#,
        cut in 0_usize..100,
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let key = key();
        let budget = Budget::new(64 << 20, Gauge::default());
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            let mut damaged = packed(text.as_bytes(), coding);
            damaged.truncate(damaged.len().saturating_sub(cut % 10));
            if !damaged.is_empty() {
                let at = flip.0.index(damaged.len());
                damaged[at] ^= flip.1;
            }
            for layout in [Layout::Json, Layout::Lines] {
                for body in [&bytes, &damaged] {
                    if let Ok(decoded) = run(&key, &budget, body, layout, coding) {
                        let sum = decoded.events.len() + decoded.duplicates + decoded.rejections.total();
                        prop_assert_eq!(sum, decoded.charged, "every item is accounted for");
                    }
                }
            }
        }
    }
}
