//! Events reach ingest once each, whatever ingest does meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::event::{Draft, NamespaceRule, Receipt};
use domain::{EventId, Namespace, Timestamp};
use futures::FutureExt as _;
use gateway::{ApiKey, Coding, DeliveryConfig, GatewayLimits, SpoolConfig, deliver};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use service_kit::{BackoffPolicy, Tasks};

use crate::support::{Setup, answer, json, soon, until, upstream};

/// Ingest, as far as its senders see it.
#[derive(Clone, Default)]
struct Ingest {
    /// What it answers; 0 for taking events.
    status: Arc<AtomicU16>,
    /// Most events it takes at once; 0 for any number.
    events_max: Arc<AtomicUsize>,
    ids: Arc<Mutex<BTreeSet<EventId>>>,
    repeats: Arc<AtomicUsize>,
}

impl Ingest {
    async fn take(self, request: Request<Incoming>) -> http::Response<crate::support::Body> {
        assert_eq!(request.headers()["x-api-key"], "mcpi_a_b");
        let is_packed = request.headers().contains_key("content-encoding");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let status = self.status.load(Ordering::SeqCst);
        if status != 0 {
            return answer(
                status,
                "application/json",
                r#"{"error":"unavailable","message":"the queue is away"}"#,
            );
        }
        let lines = if is_packed {
            zstd::bulk::decompress(&body, 64 << 20).unwrap()
        } else {
            body.to_vec()
        };
        let lines: Vec<_> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let events_max = self.events_max.load(Ordering::SeqCst);
        if events_max > 0 && lines.len() > events_max {
            return answer(413, "application/json", "{}");
        }
        for line in &lines {
            let rule = NamespaceRule::Only(Namespace::parse("acme").unwrap(), None);
            let receipt = Receipt {
                now: Timestamp::from_nanos(service_kit::Clock::system().unix_ns()),
                key: None,
                rule: &rule,
                trace_id: None,
                age_max: Duration::from_hours(1),
                ahead_max: Duration::from_mins(5),
            };
            let event = Draft::parse(line)
                .unwrap()
                .admit(&receipt, || panic!("an event without id"))
                .unwrap();
            if !self.ids.lock().unwrap().insert(event.id) {
                self.repeats.fetch_add(1, Ordering::SeqCst);
            }
        }
        answer(
            202,
            "application/json",
            format!(r#"{{"ok":true,"accepted":{},"duplicates":0,"rejected":[]}}"#, lines.len()),
        )
    }

    fn taken(&self) -> usize {
        self.ids.lock().unwrap().len()
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"refund"}}"#;

fn config(address: std::net::SocketAddr) -> DeliveryConfig {
    DeliveryConfig {
        backoff: BackoffPolicy {
            first: Duration::from_millis(1),
            pause_max: Duration::from_millis(5),
            attempts_max: None,
        },
        drain_timeout: Duration::from_millis(200),
        coding: Coding::Zstd,
        ..DeliveryConfig::new(
            format!("http://{address}/events").parse().unwrap(),
            ApiKey::Value("mcpi_a_b".to_owned()),
        )
    }
}

async fn start(ingest: &Ingest, change: impl FnOnce(&mut DeliveryConfig)) -> Setup {
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let taking = ingest.clone();
    let address = upstream(&tasks, move |request| taking.clone().take(request).boxed());
    let server = upstream(&tasks, |_| async { json(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#) }.boxed());
    let setup = Setup::before(running, GatewayLimits::default(), server);
    let mut config = config(address);
    change(&mut config);
    deliver(setup.recorder.clone(), config, &tasks).await.unwrap();
    setup
}

async fn all_taken(ingest: &Ingest, count: usize) {
    until("ingest to have all", || {
        if ingest.taken() == count {
            Ok(())
        } else {
            Err(format!("{} of {count}", ingest.taken()))
        }
    })
    .await;
}

#[tokio::test]
async fn events_arrive_once_and_are_counted() {
    let ingest = Ingest::default();
    let setup = start(&ingest, |_| {}).await;
    for _ in 0..50 {
        assert_eq!(setup.post(CALL).await.status(), 200);
    }
    all_taken(&ingest, 50).await;
    let delivery = setup.recorder.delivery();
    until("the count", || {
        if delivery.status().delivered == 50 {
            Ok(())
        } else {
            Err(format!("{:?}", delivery.status()))
        }
    })
    .await;
    assert_eq!(ingest.repeats.load(Ordering::SeqCst), 0);
    assert!(soon("stopping", setup.running.stop()).await.is_clean());
}

#[tokio::test]
async fn an_outage_of_ingest_loses_nothing_and_delays_no_call() {
    let ingest = Ingest::default();
    ingest.status.store(503, Ordering::SeqCst);
    let setup = start(&ingest, |_| {}).await;
    for _ in 0..20 {
        assert_eq!(setup.post(CALL).await.status(), 200);
    }
    let delivery = setup.recorder.delivery();
    until("a told fault", || match delivery.status().last_error {
        Some(error) if error.contains("503") && error.contains("the queue is away") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    ingest.status.store(0, Ordering::SeqCst);
    all_taken(&ingest, 20).await;
    until("the fault to be over", || {
        if delivery.status().last_error.is_none() {
            Ok(())
        } else {
            Err("still told".to_owned())
        }
    })
    .await;
    assert_eq!(delivery.status().dropped_calls, 0);
}

#[tokio::test]
async fn what_is_recorded_last_is_sent_before_the_process_ends() {
    let ingest = Ingest::default();
    let setup = start(&ingest, |config| config.linger = Duration::from_hours(1)).await;
    for _ in 0..5 {
        drop(setup.post(CALL).await);
    }
    assert!(soon("stopping", setup.running.stop()).await.is_clean());
    assert_eq!(ingest.taken(), 5);
}

#[tokio::test]
async fn batches_that_are_too_large_are_cut() {
    let ingest = Ingest::default();
    ingest.events_max.store(3, Ordering::SeqCst);
    let setup = start(&ingest, |config| config.linger = Duration::from_millis(50)).await;
    for _ in 0..40 {
        drop(setup.post(CALL).await);
    }
    all_taken(&ingest, 40).await;
}

#[tokio::test]
async fn what_ingest_will_never_take_is_counted_and_let_go() {
    let ingest = Ingest::default();
    ingest.status.store(400, Ordering::SeqCst);
    let setup = start(&ingest, |_| {}).await;
    drop(setup.post(CALL).await);
    let delivery = setup.recorder.delivery();
    until("the refusal", || {
        if delivery.status().refused == 1 {
            Ok(())
        } else {
            Err(format!("{:?}", delivery.status()))
        }
    })
    .await;
    ingest.status.store(0, Ordering::SeqCst);
    drop(setup.post(CALL).await);
    all_taken(&ingest, 1).await;
}

#[tokio::test]
async fn the_spool_carries_events_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let spool = SpoolConfig {
        folder: folder.path().to_owned(),
        bytes_max: 1 << 20,
    };
    let ingest = Ingest::default();
    ingest.status.store(503, Ordering::SeqCst);
    let setup = start(&ingest, |config| config.spool = Some(spool.clone())).await;
    for _ in 0..10 {
        drop(setup.post(CALL).await);
    }
    assert!(soon("stopping", setup.running.stop()).await.is_clean());
    assert_eq!(setup.recorder.delivery().status().dropped_calls, 0);
    assert_eq!(ingest.taken(), 0);
    ingest.status.store(0, Ordering::SeqCst);
    let again = start(&ingest, |config| config.spool = Some(spool.clone())).await;
    all_taken(&ingest, 10).await;
    until("an empty folder", || {
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        let spooled = again.recorder.delivery().status().spooled;
        if (left, spooled) == (0, 0) {
            Ok(())
        } else {
            Err(format!("{left} files, {spooled} events"))
        }
    })
    .await;
}

#[tokio::test]
async fn without_ingest_and_spool_what_is_lost_is_counted() {
    let ingest = Ingest::default();
    ingest.status.store(503, Ordering::SeqCst);
    let setup = start(&ingest, |_| {}).await;
    for _ in 0..3 {
        drop(setup.post(CALL).await);
    }
    assert!(soon("stopping", setup.running.stop()).await.is_clean());
    assert_eq!(setup.recorder.delivery().status().dropped_calls, 3);
}
