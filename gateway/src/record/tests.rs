use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use domain::{Payload, Timestamp};

use super::{Draft, Importance, Recorder, RecorderLimits};
use crate::route::{Route, RouteTable, Site};

fn site() -> Arc<Site> {
    static SITE: LazyLock<Arc<Site>> = LazyLock::new(|| {
        let route = Route::new("payments", "acme", "http://up".parse().unwrap());
        RouteTable::new(vec![route]).unwrap().find("/").unwrap()
    });
    Arc::clone(&SITE)
}

fn draft(importance: Importance, tool: &str) -> Draft {
    Draft {
        importance,
        timestamp: Timestamp::from_seconds(1_800_000_000),
        site: site(),
        event_type: "",
        trace_id: None,
        span_id: None,
        parent_span_id: None,
        payload: Box::new(Payload {
            tool_name: Some(tool.to_owned()),
            ..Payload::default()
        }),
    }
}

fn tools(recorder: &Recorder) -> Vec<String> {
    recorder
        .drain(100)
        .into_iter()
        .filter_map(|event| event.payload.tool_name)
        .collect()
}

#[test]
fn denials_push_out_calls_and_calls_push_out_nothing() {
    let recorder = Recorder::new(RecorderLimits {
        events_max: 3,
        ..RecorderLimits::default()
    });
    recorder.record(draft(Importance::Ordinary, "call 0"));
    recorder.record(draft(Importance::Kept, "denial 1"));
    recorder.record(draft(Importance::Ordinary, "call 2"));
    recorder.record(draft(Importance::Ordinary, "call 3"));
    recorder.record(draft(Importance::Kept, "denial 4"));
    let status = recorder.delivery().status();
    assert_eq!((status.queued, status.dropped_calls, status.dropped_kept), (3, 2, 0));
    recorder.record(draft(Importance::Kept, "denial 5"));
    recorder.record(draft(Importance::Kept, "denial 6"));
    assert_eq!(recorder.delivery().status().dropped_kept, 1);
    assert_eq!(tools(&recorder), ["denial 1", "denial 4", "denial 5"]);
}

#[test]
fn bytes_are_bounded_too() {
    let recorder = Recorder::new(RecorderLimits {
        bytes_max: 10_000,
        ..RecorderLimits::default()
    });
    for _ in 0..100 {
        recorder.record(draft(Importance::Ordinary, &"x".repeat(1_000)));
    }
    let status = recorder.delivery().status();
    assert_eq!(status.queued + status.dropped_calls, 100);
    assert!((1..=10).contains(&status.queued), "{status:?}");
}

#[test]
fn numbers_are_gapless_and_ids_differ_also_between_processes() {
    let recorders = [
        Recorder::new(RecorderLimits::default()),
        Recorder::new(RecorderLimits::default()),
    ];
    assert_ne!(recorders[0].producer(), recorders[1].producer());
    let mut ids = HashSet::new();
    for recorder in &recorders {
        for _ in 0..10_000 {
            recorder.record(draft(Importance::Ordinary, "x"));
        }
        for (seq, event) in recorder.drain(usize::MAX).into_iter().enumerate() {
            assert_eq!(event.producer_seq, Some(seq as u64));
            assert_eq!((event.server(), event.namespace()), ("payments", "acme"));
            assert_eq!(
                (event.source.as_str(), event.event_type.as_str()),
                ("payments-gateway", "mcp.request")
            );
            assert_eq!(event.id.made_at_millis(), Some(1_800_000_000_000));
            assert!(ids.insert(event.id), "{} twice", event.id);
        }
    }
    assert_eq!(ids.len(), 20_000);
}
