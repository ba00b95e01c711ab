//! The suite that every store passes.

use sentinel_store::contract;

use crate::engine::{Engine, available};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_clickhouse_keeps_the_contract() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    Box::pin(contract::every_case(|| engine.store())).await;
}
