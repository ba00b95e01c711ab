//! Answers questions with DataFusion: on threads of its own, within a bounded amount of memory.
//!
//! A question is asked of [`Tables`]: what was stored at one moment, confined to what the caller may see. `typed` counts (from
//! rollups where it can), `pages` lists events, `export` streams them, `sql` runs a person's query, and `answers` puts the
//! typed answers together.

mod answers;
mod cache;
mod count;
mod export;
mod pages;
mod reader;
mod rows;
mod sql;
mod texts;
mod typed;
mod udaf;

use std::fmt::{self, Debug};
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use domain::Timestamp;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::schema::Table;
use crate::QueryError;
use crate::query::Scope;

/// Stack of a query's thread: planning recurses as deep as the SQL nests. Only what is touched costs memory.
const STACK_BYTES: usize = 64 << 20;
/// Unit in which memory for SQL is handed out.
const MEMORY_UNIT: u64 = 1 << 20;
/// Bytes that sorts and aggregates of one engine may put on disk.
const SPILL_BYTES_MAX: u64 = 16 << 30;
/// Groups that are counted with all they have, at most; the busiest of more are found in two passes.
const GROUPS_MAX: usize = 1 << 17;
/// Memory of a group while it is counted, generously: on every thread, and once more together.
const GROUP_BYTES: usize = 1 << 10;
/// Share of the memory for typed questions that remembers what was counted before; again as much remembers the footers of files.
const CACHE_SHARE: usize = 8;
/// Functions whose answers may be any size, whatever the size of their arguments: memory that no pool sees.
const FUNCTIONS_REFUSED: [&str; 3] = ["repeat", "lpad", "rpad"];

/// The tables at one moment.
pub(super) trait Tables: Debug + Send + Sync + 'static {
    /// A table without the rows that are not in the scope.
    fn table(&self, table: Table, scope: &Scope) -> Arc<dyn TableProvider>;

    /// A table in pieces that together are it, of which rows outside the parts may be missing.
    fn pieces(&self, table: Table, scope: &Scope, _parts: &[Part]) -> Vec<Piece> {
        vec![Piece {
            rows: self.table(table, scope),
            settled: None,
        }]
    }

    /// Times of the oldest and the newest event; `None` when there is none.
    fn span(&self) -> Option<(Timestamp, Timestamp)>;

    /// Every event received before this is in the tables.
    fn complete_through(&self) -> Timestamp;
}

/// A part of a window: from `.0` up to, not including, `.1`; open ends have no bound.
pub(super) type Part = (Option<Timestamp>, Option<Timestamp>);

/// Rows of a table.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) rows: Arc<dyn TableProvider>,
    /// A name that no other rows will ever have, when the rows never change.
    pub(super) settled: Option<String>,
}

pub use reader::ParquetReader;

use cache::Cache;

/// What queries may use.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Threads, and partitions of a query.
    pub threads: NonZeroUsize,
    /// Bytes of memory for typed questions and exports together, and again as many for SQL.
    pub memory_bytes_max: u64,
    /// Folder for what does not fit in memory; absent: the system's.
    pub spill_folder: Option<PathBuf>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            threads,
            memory_bytes_max: 1 << 30,
            spill_folder: None,
        }
    }
}

/// Runs queries.
pub struct Engine {
    /// Told to end when dropped.
    runtimes: Vec<Runtime>,
    /// Runs typed questions and exports.
    handle: Handle,
    /// Runs people's SQL, which may keep its threads busy for longer than anybody wishes.
    sql: Handle,
    memory: Arc<RuntimeEnv>,
    cache: Arc<Cache>,
    groups_max: usize,
    sql_memory: Arc<Semaphore>,
    settings: EngineSettings,
}

impl Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Without waiting: a query's callers are gone, and waiting is not allowed where a runtime may be running.
        self.runtimes.drain(..).for_each(Runtime::shutdown_background);
    }
}

impl Engine {
    /// Starts the threads.
    pub fn start(settings: EngineSettings) -> std::io::Result<Self> {
        let runtime = |name: &str| {
            let threads = settings.threads.get();
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                .thread_stack_size(STACK_BYTES)
                .enable_all()
                .build()
        };
        let (typed, sql) = (runtime("sentinel-query")?, runtime("sentinel-sql")?);
        let mode = settings
            .spill_folder
            .clone()
            .map_or(DiskManagerMode::OsTmpDirectory, |folder| {
                DiskManagerMode::Directories(vec![folder])
            });
        let bytes = usize::try_from(settings.memory_bytes_max).unwrap_or(usize::MAX);
        let cache = bytes / CACHE_SHARE;
        let builder = RuntimeEnvBuilder::new().with_metadata_cache_limit(cache);
        let memory = environment(builder, Arc::new(FairSpillPool::new(bytes - 2 * cache)), mode)?;
        let units = usize::try_from(settings.memory_bytes_max / MEMORY_UNIT)
            .unwrap_or(usize::MAX)
            .clamp(1, Semaphore::MAX_PERMITS);
        let sql_memory = Arc::new(Semaphore::new(units));
        let (handle, sql_handle) = (typed.handle().clone(), sql.handle().clone());
        Ok(Self {
            handle,
            sql: sql_handle,
            runtimes: vec![typed, sql],
            memory,
            cache: Arc::new(Cache::new(cache)),
            groups_max: (bytes / GROUP_BYTES).min(GROUPS_MAX),
            sql_memory,
            settings,
        })
    }

    /// Runs work on the query threads, and stops it when the caller no longer waits.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        run_on(&self.handle, work).await
    }

    /// Memory for one SQL query: a pool of its own and no disk, but the footers of files that were read before.
    fn confined(&self, pool: Arc<dyn MemoryPool>) -> std::io::Result<Arc<RuntimeEnv>> {
        environment(
            RuntimeEnvBuilder::from_runtime_env(&self.memory),
            pool,
            DiskManagerMode::Disabled,
        )
    }

    /// A context for one typed question.
    fn session(&self) -> SessionContext {
        SessionContext::new_with_state(self.state(Arc::clone(&self.memory)))
    }

    fn state(&self, environment: Arc<RuntimeEnv>) -> SessionState {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.settings.threads.get())
            .with_information_schema(false)
            .with_default_catalog_and_schema("mcp", "public");
        let options = config.options_mut();
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        options.execution.enable_recursive_ctes = false;
        let mut scalars = SessionStateDefaults::default_scalar_functions();
        scalars.retain(|function| !FUNCTIONS_REFUSED.contains(&function.name()));
        scalars.extend(udaf::scalars());
        let mut aggregates = SessionStateDefaults::default_aggregate_functions();
        aggregates.extend(udaf::aggregates());
        // Neither file formats nor table functions nor table factories: there is nothing to reach beyond the registered tables.
        SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(environment)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(scalars)
            .with_aggregate_functions(aggregates)
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .build()
    }
}

fn environment(
    builder: RuntimeEnvBuilder,
    pool: Arc<dyn MemoryPool>,
    mode: DiskManagerMode,
) -> std::io::Result<Arc<RuntimeEnv>> {
    let disk = DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(SPILL_BYTES_MAX);
    builder
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(std::io::Error::other)
}

async fn run_on<T: Send + 'static>(
    threads: &Handle,
    work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
) -> Result<T, QueryError> {
    let mut task = Abort(threads.spawn(work));
    (&mut task.0)
        .await
        .unwrap_or_else(|error| Err(QueryError::Failed(error.into())))
}

/// Stops the task when dropped.
struct Abort<T>(JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A failed typed question: too much for the memory there is, or a fault of the store.
fn fault(error: DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => QueryError::OverLimit(
            "the question needs more memory than queries may use; narrow the time range or the filters".to_owned(),
        ),
        _ => QueryError::Failed(Box::new(error)),
    }
}

#[cfg(test)]
mod tests;
