//! Counts stay exact whatever happens: seeded runs of faults under load, ten installations at a time on one broker and one engine.
//!
//! Each installation has a sender with a ledger, and a plan of faults of its own that follows from its seed: ingest killed amid a
//! request, processors killed, stopped, paused or joined by another, the network to the database cut, stalled or losing answers,
//! batches sent again. Meanwhile the broker and the database, which all share, are killed and cut off too. When all batches are
//! acknowledged and everything is well again, the ledger, the table and every rollup must say the same.
//!
//! `CLUSTER_FAULT_RUNS` asks for more runs, `CLUSTER_FAULT_SEED` begins with another seed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::harness::backends::Backends;
use crate::harness::installation::Installation;
use crate::harness::ledger::{Batch, Ledger, batch};
use crate::harness::proxy::Network;
use crate::harness::{setting, until};

/// Runs of one `make test`.
const RUNS: u64 = 50;
/// Installations that share a broker and an engine at a time.
const RUNS_AT_ONCE: usize = 10;
/// Batches of one run.
const BATCHES: u64 = 14;
const PROCESSORS_MAX: usize = 3;
/// Acknowledged batches that a sender remembers, to send them again.
const REMEMBERED_MAX: usize = 6;

/// What happens to one installation.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// While a request is on its way.
    KillIngest,
    KillProcessor,
    /// It leaves its group and comes back: two rebalances.
    StopProcessor,
    /// It goes on later, believing that nothing has happened.
    PauseProcessor,
    AddProcessor,
    Network(Network),
}

impl Fault {
    const KINDS: [&str; 6] = [
        "ingest killed",
        "processor killed",
        "processor stopped",
        "processor paused",
        "processor added",
        "network to the database changed",
    ];

    fn kind(self) -> &'static str {
        Self::KINDS[match self {
            Self::KillIngest => 0,
            Self::KillProcessor => 1,
            Self::StopProcessor => 2,
            Self::PauseProcessor => 3,
            Self::AddProcessor => 4,
            Self::Network(_) => 5,
        }]
    }
}

/// One installation under faults.
struct Run {
    seed: u64,
    installation: Installation,
    random: SmallRng,
    ledger: Ledger,
    remembered: Vec<Batch>,
    paused: Option<usize>,
    happened: Vec<(u64, Fault)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_changes_a_count() {
    let Some(backends) = Backends::start().await else { return };
    let number = |name: &str, usual: u64| setting(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (runs, first) = (number("CLUSTER_FAULT_RUNS", RUNS), number("CLUSTER_FAULT_SEED", 0));
    let seeds: Vec<u64> = (first..first + runs).collect();
    let mut happened = BTreeMap::<&str, u64>::new();
    for seeds in seeds.chunks(RUNS_AT_ONCE) {
        for (what, count) in round(&backends, seeds).await {
            *happened.entry(what).or_default() += count;
        }
    }
    // Past the capture of test output, so that whoever reads the run sees it.
    let _closed = writeln!(std::io::stderr(), "{runs} runs from seed {first}: {happened:?}");
    let kinds = Fault::KINDS
        .iter()
        .chain(["answers lost", "database killed", "broker killed", "brokers cut off"].iter());
    let never: Vec<&&str> = kinds.filter(|kind| !happened.contains_key(**kind)).collect();
    assert!(runs < RUNS || never.is_empty(), "{never:?} never happened");
}

/// Gives what happened, and how often.
async fn round(backends: &Arc<Backends>, seeds: &[u64]) -> Vec<(&'static str, u64)> {
    let mut runs = join_all(seeds.iter().map(|seed| Run::start(backends, *seed))).await;
    let (taken, all) = (AtomicU64::new(0), seeds.len() as u64 * BATCHES);
    let sending = join_all(runs.iter_mut().map(|run| run.send_amid_faults(&taken)));
    let (_, mut happened) = tokio::join!(sending, shared_faults(backends, seeds[0], &taken, all));
    for run in &mut runs {
        run.heal();
    }
    join_all(runs.iter().map(Run::check)).await;
    for run in &runs {
        happened.extend(run.happened.iter().map(|(_, fault)| (fault.kind(), 1)));
        happened.extend(Some(("answers lost", run.installation.network.lost())).filter(|(_, lost)| *lost > 0));
    }
    join_all(runs.into_iter().map(|run| run.installation.end())).await;
    happened
}

/// What happens to the broker and the database, at a quarter, a half and three quarters of a round.
async fn shared_faults(backends: &Backends, seed: u64, taken: &AtomicU64, all: u64) -> Vec<(&'static str, u64)> {
    let mut happened = Vec::new();
    let mut random = SmallRng::seed_from_u64(seed ^ 0xFA17);
    for quarter in 1..4 {
        until("batches are taken", async || {
            let taken = taken.load(Ordering::Relaxed);
            (taken >= all * quarter / 4)
                .then_some(())
                .ok_or_else(|| format!("{taken} of {all} batches"))
        })
        .await;
        let network = [Network::Cut, Network::Stalled, Network::Losing(10)][random.random_range(0..3)];
        match quarter {
            1 if backends.engine.is_ours() => {
                happened.push(("database killed", 1));
                tokio::task::block_in_place(|| backends.engine.restart());
            }
            2 => {
                happened.push(("brokers cut off", 1));
                backends.network.set(network);
                // How long the network is away is the fault itself; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
                backends.network.set(Network::Well);
            }
            3 => {
                happened.push(("broker killed", 1));
                tokio::task::block_in_place(|| {
                    backends.kafka.kill(1);
                    backends.kafka.restart(1);
                });
            }
            _ => {}
        }
    }
    happened
}

impl Run {
    async fn start(backends: &Arc<Backends>, seed: u64) -> Self {
        Self {
            seed,
            installation: Installation::start(backends, seed).await,
            random: SmallRng::seed_from_u64(seed),
            ledger: Ledger::new(),
            remembered: Vec::new(),
            paused: None,
            happened: Vec::new(),
        }
    }

    async fn send_amid_faults(&mut self, taken: &AtomicU64) {
        self.installation.ingest.ready().await;
        for number in 0..BATCHES {
            let batch = batch(&mut self.random, "acme", &mut self.ledger);
            if let Some(fault) = self.choose() {
                self.happened.push((number, fault));
                self.carry_out(fault, &batch).await;
            }
            let what = format!("seed {}: batch {number} is taken", self.seed);
            until(&what, async || self.installation.send(&batch).await).await;
            taken.fetch_add(1, Ordering::Relaxed);
            self.remember(batch);
            if self.random.random_range(0..100) < 20 {
                // As a sender does that has not seen the answer. Whether it is taken is no matter: the events are there.
                let again = self.random.random_range(0..self.remembered.len());
                let _repeated = self.installation.send(&self.remembered[again]).await;
            }
        }
    }

    /// A fault for every other batch or so.
    fn choose(&mut self) -> Option<Fault> {
        let networks = [
            Network::Cut,
            Network::Stalled,
            Network::Losing(15),
            Network::Well,
            Network::Well,
        ];
        match self.random.random_range(0..16) {
            0 => Some(Fault::KillIngest),
            1 | 2 => Some(Fault::KillProcessor),
            3 => Some(Fault::StopProcessor),
            4 => Some(Fault::PauseProcessor),
            5 => Some(Fault::AddProcessor),
            6..9 => Some(Fault::Network(networks[self.random.random_range(0..networks.len())])),
            _ => None,
        }
    }

    async fn carry_out(&mut self, fault: Fault, batch: &Batch) {
        let at = self.random.random_range(0..self.installation.processors.len());
        let moment = Duration::from_millis(self.random.random_range(0..40));
        if matches!(fault, Fault::KillProcessor | Fault::StopProcessor) {
            // A paused process does not notice that it is asked to stop.
            self.resume();
        }
        let installation = &mut self.installation;
        match fault {
            Fault::KillIngest => {
                // Nobody learns what became of this one, so it is sent again.
                let _unknown = tokio::time::timeout(moment, installation.send(batch)).await;
                installation.ingest.kill().await;
                installation.ingest.restart();
            }
            Fault::KillProcessor => {
                let _unknown = tokio::time::timeout(moment, installation.send(batch)).await;
                installation.processors[at].kill().await;
                installation.processors[at].restart();
            }
            Fault::StopProcessor => {
                installation.processors[at].stop().await;
                installation.processors[at].restart();
            }
            Fault::PauseProcessor if self.paused.is_none() => {
                installation.processors[at].signal("STOP");
                self.paused = Some(at);
            }
            Fault::PauseProcessor => self.resume(),
            Fault::AddProcessor if installation.processors.len() < PROCESSORS_MAX => installation.add_processor(),
            Fault::AddProcessor => {}
            Fault::Network(network) => installation.network.set(network),
        }
    }

    fn resume(&mut self) {
        if let Some(at) = self.paused.take() {
            self.installation.processors[at].signal("CONT");
        }
    }

    fn remember(&mut self, batch: Batch) {
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.remove(0);
        }
        self.remembered.push(batch);
    }

    fn heal(&mut self) {
        self.resume();
        self.installation.network.set(Network::Well);
    }

    async fn check(&self) {
        let lost = self.installation.network.lost();
        let what = format!("seed {}, {lost} answers lost, {:?}", self.seed, self.happened);
        self.installation.exact(&self.ledger, &what).await;
    }
}
