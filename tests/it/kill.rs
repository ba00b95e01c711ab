//! `SIGKILL` at random moments under load: what was acknowledged is counted exactly once, in raw rows and in every rollup.
//!
//! `MCP_RUNTIME_KILL_RUNS` is the number of kills under load in all (50), `MCP_RUNTIME_KILL_SEED` the first seed (1). A seed stands for
//! one data folder and decides what is sent and about when each kill comes.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use crate::harness::{Home, Load, Sender, setting, verify};

const RUNS: u64 = 50;
/// Kills that one data folder lives through.
const KILLS_PER_FOLDER: u64 = 5;
/// Folders tested at the same time.
const FOLDERS_AT_ONCE: usize = 2;
const SENDERS: u64 = 4;
/// Most acknowledged events before a kill.
const EVENTS_MAX: usize = 4_000;

/// Names the seed when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "again with: MCP_RUNTIME_KILL_SEED={} MCP_RUNTIME_KILL_RUNS={KILLS_PER_FOLDER}",
                self.0
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_survive_every_kill_and_count_once() {
    let number = |name, default| setting(name).map_or(default, |text| text.parse().expect("a number"));
    let (runs, first) = (number("MCP_RUNTIME_KILL_RUNS", RUNS), number("MCP_RUNTIME_KILL_SEED", 1));
    let folders = runs.div_ceil(KILLS_PER_FOLDER);
    let acknowledged: Vec<usize> = stream::iter(first..first + folders)
        .map(folder)
        .buffer_unordered(FOLDERS_AT_ONCE)
        .collect()
        .await;
    // A run in which nothing was sent would prove nothing.
    let least = acknowledged.len() * EVENTS_MAX / 2;
    let sum: usize = acknowledged.iter().sum();
    assert!(sum >= least, "only {sum} events were acknowledged in {folders} folders");
}

/// One data folder through all its kills. Gives the number of acknowledged events.
async fn folder(seed: u64) -> usize {
    let named = Seed(seed);
    let home = Home::new();
    let launch = home.launch().busy_store();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut senders = Sender::some(SENDERS, seed);
    for kill in 1..=KILLS_PER_FOLDER {
        if random.random_bool(0.3) {
            // Recovery must bear being interrupted, too. The moment is the fault itself, not a wait.
            let starting = launch.spawn();
            sleep(Duration::from_millis(random.random_range(0..400))).await;
            starting.kill().await;
        }
        let standalone = launch.start().await;
        verify(&standalone, &senders, &format!("seed {seed}, before kill {kill}")).await;
        let mut load = Load::start(&standalone, senders);
        load.reaches(random.random_range(EVENTS_MAX / 4..EVENTS_MAX)).await;
        sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        standalone.kill().await;
        senders = load.end().await;
    }
    let standalone = launch.start().await;
    verify(&standalone, &senders, &format!("seed {seed}, after the last kill")).await;
    standalone.stop().await;
    let standalone = launch.start().await;
    verify(&standalone, &senders, &format!("seed {seed}, after an orderly stop")).await;
    standalone.stop().await;
    drop(named);
    senders.iter().map(|sender| sender.ledger.acknowledged()).sum()
}
