//! The suite that every store passes, and that rollups and events give the same answers.

use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use domain::analytics::Served;
use sentinel_store::clickhouse::{ClickHouseStore, Config, CountsFrom};
use sentinel_store::query::{Filter, Scope, UsageQuery};
use sentinel_store::{EventWriter as _, UsageReader as _, contract};

use crate::engine::{Engine, available, open, runs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_clickhouse_keeps_the_contract() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    Box::pin(contract::every_case(|| engine.store())).await;
}

/// With rollups the contract's own cases compare with the reference; here the same questions are answered from events alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_alone_give_the_answers_of_the_reference_too() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    for seed in 900..900 + runs(2) {
        let store = open(Config {
            counts_from: CountsFrom::Events,
            ..engine.config()
        })
        .await;
        contract::answers_are_those_of_the_reference(&store, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_and_events_of_one_database_count_the_same() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let config = engine.config();
    let rollups = open(config.clone()).await;
    for batch in contract::batches(17, 300) {
        rollups.insert(Arc::new(batch)).await.expect("inserting");
    }
    let events = Config {
        counts_from: CountsFrom::Events,
        ..config
    };
    let events = ClickHouseStore::open(events).await.expect("opening the store again");
    let query = |hours: u64| UsageQuery {
        filter: Filter {
            since: Some(Timestamp::from_seconds(1_793_491_200)),
            until: Some(Timestamp::from_seconds(1_793_491_200).plus(Duration::from_hours(hours))),
            ..Filter::all(Scope::All)
        },
        limit: 50,
        step: Duration::from_hours(24),
    };
    for hours in [24, 48, 96] {
        let mut one = rollups.usage(query(hours)).await.expect("usage from rollups");
        let mut other = events.usage(query(hours)).await.expect("usage from events");
        assert_eq!((one.served_from, other.served_from), (Served::Daily, Served::Raw));
        assert!(one.totals.calls.events > 0, "nothing in {hours} hours");
        (one.served_from, one.horizon) = (other.served_from, other.horizon);
        one.recent.clear();
        other.recent.clear();
        assert_eq!(one, other, "{hours} hours");
    }
}
