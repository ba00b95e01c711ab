use std::collections::BTreeMap;

use futures::{FutureExt as _, StreamExt as _};
use tracing_subscriber::layer::SubscriberExt as _;

use super::{LogFilter, LogLevel, LogLimits, LogRecord, LogStore};
use crate::clock::Clock;
use crate::testing::soon;

fn record(component: &str, level: LogLevel, message: &str) -> LogRecord {
    LogRecord {
        timestamp_unix_ns: 0,
        level,
        component: component.to_owned(),
        message: message.to_owned(),
        fields: BTreeMap::new(),
        trace_id: None,
    }
}

fn info(message: &str) -> LogRecord {
    record("gateway", LogLevel::Info, message)
}

fn store(records_max: usize, bytes_max: usize, followers_lag_max: usize) -> LogStore {
    LogStore::new(
        LogLimits {
            records_max,
            bytes_max,
            followers_lag_max,
        },
        Clock::manual(1_000).0,
    )
}

fn messages(store: &LogStore, filter: &LogFilter) -> Vec<String> {
    store.read(filter).iter().map(|record| record.message.clone()).collect()
}

#[test]
fn the_oldest_leave_beyond_the_number_and_are_counted() {
    let store = store(3, usize::MAX, 8);
    for number in 0..5 {
        store.push(info(&number.to_string()));
    }
    assert_eq!(messages(&store, &LogFilter::default()), ["2", "3", "4"]);
    assert_eq!(store.evicted(), 2);
}

#[test]
fn the_oldest_leave_beyond_the_bytes() {
    let store = store(1_000, 10_000, 8);
    for _ in 0..100 {
        store.push(info(&"x".repeat(1_000)));
    }
    let left = store.read(&LogFilter::default());
    let bytes: usize = left.iter().map(|record| record.bytes()).sum();
    assert!(bytes <= 10_000, "{bytes} bytes are kept");
    assert!(left.len() >= 5, "only {} records are kept", left.len());
    assert_eq!(store.evicted(), 100 - left.len() as u64);
}

#[test]
fn one_record_larger_than_the_store_is_not_kept() {
    let store = store(10, 1_000, 8);
    store.push(info(&"x".repeat(2_000)));
    assert!(store.read(&LogFilter::default()).is_empty());
}

#[test]
fn filters_choose() {
    let store = store(100, usize::MAX, 8);
    for (second, component, level, message) in [
        (1, "gateway", LogLevel::Info, "policy read"),
        (2, "sentinel_ingest", LogLevel::Warn, "sender refused"),
        (3, "sentinel_ingest", LogLevel::Debug, "batch stored"),
        (4, "gateway", LogLevel::Error, "Policy unreadable"),
    ] {
        store.push(LogRecord {
            timestamp_unix_ns: second,
            ..record(component, level, message)
        });
    }
    let all = LogFilter::default();
    let component = LogFilter {
        component: Some("sentinel-ingest".to_owned()),
        ..all.clone()
    };
    assert_eq!(messages(&store, &component), ["sender refused", "batch stored"]);
    let grave = LogFilter {
        level_min: LogLevel::Warn,
        ..all.clone()
    };
    assert_eq!(messages(&store, &grave), ["sender refused", "Policy unreadable"]);
    let since = LogFilter {
        since_unix_ns: Some(3),
        ..all.clone()
    };
    assert_eq!(messages(&store, &since), ["batch stored", "Policy unreadable"]);
    let grep = LogFilter {
        grep: Some("POLICY".to_owned()),
        ..all.clone()
    };
    assert_eq!(messages(&store, &grep), ["policy read", "Policy unreadable"]);
    let tail = LogFilter { tail: Some(1), ..grep };
    assert_eq!(messages(&store, &tail), ["Policy unreadable"]);
    assert_eq!(
        messages(
            &store,
            &LogFilter {
                tail: Some(0),
                ..all.clone()
            }
        ),
        [""; 0]
    );
    assert_eq!(messages(&store, &LogFilter { tail: Some(9), ..all }).len(), 4);
}

#[test]
fn records_from_tracing_carry_component_fields_and_trace() {
    let store = store(100, usize::MAX, 8);
    let subscriber = tracing_subscriber::registry().with(store.layer());
    tracing::subscriber::with_default(subscriber, || {
        let outer = tracing::info_span!("request", trace_id = "4bf9", path = "/a", status = tracing::field::Empty);
        let _in_outer = outer.enter();
        outer.record("status", 200);
        let inner = tracing::info_span!("batch", path = "/b");
        let _in_inner = inner.enter();
        let error = anyhow::anyhow!("disk is full").context("opening segment");
        tracing::warn!(target: "sentinel_ingest::http", events = 3, error = &*error as &dyn std::error::Error, "batch refused");
    });
    let records = store.read(&LogFilter::default());
    insta::assert_json_snapshot!(records);
    let read_back: Vec<LogRecord> = serde_json::from_str(&serde_json::to_string(&records).unwrap()).unwrap();
    assert_eq!(read_back[0], *records[0]);
}

#[test]
fn long_texts_are_cut_off() {
    let store = store(100, usize::MAX, 8);
    let subscriber = tracing_subscriber::registry().with(store.layer());
    let long = "ä".repeat(20_000);
    tracing::subscriber::with_default(subscriber, || tracing::info!(field = long, "{long}"));
    let records = store.read(&LogFilter::default());
    assert!(records[0].message.len() < 9_000 && records[0].message.ends_with('…'));
    assert!(records[0].fields["field"].as_str().unwrap().len() < 9_000);
}

#[tokio::test]
async fn following_starts_with_the_tail_and_misses_nothing() {
    let store = store(100, usize::MAX, 8);
    for message in ["a", "b", "c"] {
        store.push(info(message));
    }
    let follower = store.follow(LogFilter {
        tail: Some(2),
        level_min: LogLevel::Info,
        ..LogFilter::default()
    });
    store.push(info("d"));
    store.push(record("gateway", LogLevel::Debug, "not wanted"));
    store.push(info("e"));
    let seen: Vec<_> = soon("following", follower.take(4).map(|record| record.message.clone()).collect()).await;
    assert_eq!(seen, ["b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_slow_follower_is_told_what_it_missed() {
    let store = store(100, usize::MAX, 4);
    let mut follower = Box::pin(store.follow(LogFilter::default()));
    for number in 0..10 {
        store.push(info(&number.to_string()));
    }
    let gap = soon("following", follower.next()).await.unwrap();
    assert_eq!((gap.fields["missed"].as_u64(), gap.timestamp_unix_ns), (Some(6), 1_000));
    assert_eq!(soon("following", follower.next()).await.unwrap().message, "6");
    for _ in 7..10 {
        assert!(soon("following", follower.next()).await.is_some());
    }
    assert!(
        follower.next().now_or_never().is_none(),
        "there is nothing more to follow yet"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_each_record_once_while_others_write() {
    let store = store(10_000, usize::MAX, 16_384);
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || (0..5_000).for_each(|number| store.push(info(&number.to_string()))))
    };
    let seen: Vec<_> = soon("following", store.follow(LogFilter::default()).take(5_000).collect()).await;
    writer.join().unwrap();
    for (number, record) in seen.iter().enumerate() {
        assert_eq!(record.message, number.to_string());
    }
}

#[test]
fn levels_read_in_any_case() {
    assert_eq!("WARN".parse::<LogLevel>().unwrap(), LogLevel::Warn);
    assert!("loud".parse::<LogLevel>().is_err());
}
