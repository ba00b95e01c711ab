//! A store on the engine of `tests/services`.

use clickhouse_service::Engine as Service;
use sentinel_store::clickhouse::{ClickHouseStore, Config, apply};

pub(crate) use clickhouse_service::available;

/// A running engine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Engine(Service);

/// How many seeds to try: more on demand.
#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by the environment how long it may take"
)]
pub(crate) fn runs(usual: u64) -> u64 {
    let told = std::env::var("CLICKHOUSE_FAULT_RUNS").ok();
    told.and_then(|runs| runs.parse().ok()).unwrap_or(usual)
}

impl Engine {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self(aside(Service::start).await)
    }

    /// Whether it may be killed.
    pub(crate) fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    /// Starts it again on the same folder and port.
    pub(crate) fn restart(&self) {
        tokio::task::block_in_place(|| self.0.restart());
    }

    /// Settings of a store in a database that nobody else has.
    pub(crate) fn config(&self) -> Config {
        Config {
            database: self.0.database(),
            ..Config::single(self.0.url())
        }
    }

    /// An empty store.
    pub(crate) async fn store(&self) -> ClickHouseStore {
        open(self.config()).await
    }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("starting the engine")
}

/// Applies the migrations and opens the store.
pub(crate) async fn open(config: Config) -> ClickHouseStore {
    apply(&config).await.expect("applying the migrations");
    ClickHouseStore::open(config).await.expect("opening the store")
}
