//! Bounds of number and time.

use std::sync::Arc;
use std::time::Duration;

use platform_api::Config;
use tokio::sync::Semaphore;

use crate::world::{ADMIN, World, config, json_body};

#[tokio::test]
async fn questions_beyond_the_bound_are_told_to_come_again() {
    let world = World::with(Config {
        queries_max: 2,
        query_time_max: Duration::from_secs(30),
        ..config()
    });
    let gate = Arc::new(Semaphore::new(0));
    *world.store.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let ask = || world.call("GET", "/api/v1/stats", Some(ADMIN), "");
    // Two wait in the store for the gate; the third finds no turn, whereupon the gate opens.
    let (one, two, third) = tokio::join!(ask(), ask(), async {
        let third = ask().await;
        gate.add_permits(2);
        third
    });
    assert_eq!(
        (one.status().as_u16(), two.status().as_u16(), third.status().as_u16()),
        (200, 200, 503)
    );
    assert_eq!(third.headers()["retry-after"], "2");
    assert_eq!(json_body(third).await["error"], "busy");
    gate.add_permits(1);
    assert_eq!(ask().await.status(), 200, "turns are given back");
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up() {
    let world = World::with(Config {
        queries_max: 1,
        query_time_max: Duration::from_millis(50),
        ..config()
    });
    *world.store.gate.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let late = world.call("GET", "/api/v1/stats", Some(ADMIN), "").await;
    assert_eq!(late.status(), 504);
    assert_eq!(json_body(late).await["error"], "query_timeout");
    *world.store.gate.lock().unwrap() = None;
    assert_eq!(world.call("GET", "/api/v1/stats", Some(ADMIN), "").await.status(), 200);
    let text = world.running.tasks().metrics().encode().unwrap();
    assert!(text.contains("platform_api_queries_timed_out_total 1"), "{text}");
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_until_one_ends() {
    let world = World::with(Config {
        streams_max: 2,
        ..config()
    });
    let follow = |uri: &'static str| world.call("GET", uri, Some(ADMIN), "");
    let one = follow("/api/v1/events/stream").await;
    let two = follow("/api/v1/sentinel/logs/gateway?follow=true").await;
    let third = follow("/api/v1/events/stream").await;
    assert_eq!(
        (one.status().as_u16(), two.status().as_u16(), third.status().as_u16()),
        (200, 200, 503)
    );
    assert_eq!(third.headers()["retry-after"], "15");
    drop(one);
    assert_eq!(follow("/api/v1/events/stream").await.status(), 200);
}
