//! The tables as DataFusion sees them: files that may matter, with the hot rows beside them, confined to a scope.
//!
//! A [`Snapshot`] is one moment: every table of it, asked as often as one likes, speaks of the same events. Files are chosen by what
//! the manifest tells, without touching them; footers come from the runtime's metadata cache; row groups and pages are pruned by
//! DataFusion. The scope is a filter below everything that a query can say, so no query text can get around it.

use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, col, lit};
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

use domain::Timestamp;

use super::engine::{Part, Piece};
use super::files::DataFile;
use super::hot::Generation;
use super::schema::Table;
use super::view::{Stored, View};
use crate::query::{Scope, Watermark};

/// One moment of the database. Its files stay on disk while it, or a plan made from it, is held.
#[derive(Debug, Clone)]
pub struct Snapshot {
    view: Arc<View>,
}

impl Snapshot {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    /// How far it is.
    pub fn watermark(&self) -> Watermark {
        self.view.watermark
    }

    /// What it holds, in numbers.
    pub fn stored(&self) -> Stored {
        self.view.stored()
    }

    /// A table, confined to a scope.
    pub fn table(&self, table: Table, scope: &Scope) -> Arc<dyn TableProvider> {
        let files = self.view.files_of(table).cloned().collect();
        Arc::new(self.scoped(table, scope, files, self.hot(None)))
    }

    /// The same in two pieces, without what lies outside the parts of a window: files of days gone by, and the newest day's with the
    /// hot rows.
    pub(super) fn pieces(&self, table: Table, scope: &Scope, parts: &[Part]) -> Vec<Piece> {
        let newest = self.view.files_of(Table::Events).map(|file| file.entry.day).max();
        // A row of a rollup covers events up to a step later than its own time.
        let within = |min: i64, max: i64| {
            let (min, max) = (Timestamp::from_nanos(min), Timestamp::from_nanos(max));
            let min = table.step().map_or(min, |step| min.floor(step));
            let overlaps =
                |&(since, until): &Part| since.is_none_or(|since| max >= since) && until.is_none_or(|until| min < until);
            parts.iter().any(overlaps)
        };
        let files = self.view.files_of(table);
        let (settled, fresh): (Vec<_>, Vec<_>) = files
            .filter(|file| within(file.entry.time_min, file.entry.time_max))
            .cloned()
            .partition(|file| newest.is_some_and(|newest| file.entry.day < newest));
        let mut pieces = Vec::new();
        if !settled.is_empty() {
            let mut names: Vec<&str> = settled.iter().map(|file| file.entry.name.as_str()).collect();
            names.sort_unstable();
            let name = names.join(" ");
            pieces.push(Piece {
                rows: Arc::new(self.scoped(table, scope, settled, Vec::new())),
                settled: Some(name),
            });
        }
        let hot = self.hot(Some(&within));
        if !fresh.is_empty() || !hot.is_empty() {
            pieces.push(Piece {
                rows: Arc::new(self.scoped(table, scope, fresh, hot)),
                settled: None,
            });
        }
        pieces
    }

    /// Generations in memory with events whose least and greatest time are of interest.
    fn hot(&self, within: Option<&dyn Fn(i64, i64) -> bool>) -> Vec<Arc<Generation>> {
        let wanted = |generation: &Arc<Generation>| {
            let times = generation.times.map(|(min, max)| (min.nanos(), max.nanos()));
            times.is_some_and(|(min, max)| within.is_none_or(|within| within(min, max)))
        };
        self.view.hot().filter(|generation| wanted(generation)).cloned().collect()
    }

    fn scoped(&self, table: Table, scope: &Scope, files: Vec<Arc<DataFile>>, hot: Vec<Arc<Generation>>) -> ScopedTable {
        ScopedTable {
            view: Arc::clone(&self.view),
            table,
            scope: permitted(scope),
            files,
            hot,
        }
    }
}

/// What the rows of a scope satisfy; `None`: all do.
fn permitted(scope: &Scope) -> Option<Expr> {
    let Scope::Only { namespaces, teams } = scope else {
        return None;
    };
    let among = |column: &str, names: &[String]| {
        let names: Vec<Expr> = names
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| lit(name.as_str()))
            .collect();
        (!names.is_empty()).then(|| col(column).in_list(names, false))
    };
    Some(match (among("namespace", namespaces), among("team_id", teams)) {
        (Some(namespace), Some(team)) => namespace.or(team),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => lit(false),
    })
}

#[derive(Debug)]
struct ScopedTable {
    view: Arc<View>,
    table: Table,
    scope: Option<Expr>,
    files: Vec<Arc<DataFile>>,
    hot: Vec<Arc<Generation>>,
}

impl TableProvider for ScopedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // Written out as `async_trait` would, which is not worth a dependency here.
    fn scan<'life0, 'life1, 'life2, 'life3, 'async_trait>(
        &'life0 self,
        state: &'life1 dyn Session,
        projection: Option<&'life2 Vec<usize>>,
        filters: &'life3 [Expr],
        limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(std::future::ready(self.plan(state, projection, filters, limit)))
    }
}

impl ScopedTable {
    fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.table.schema();
        let dfschema = DFSchema::try_from(Arc::clone(schema))?;
        let physical = |expr: Expr| state.create_physical_expr(expr, &dfschema);
        let wanted = conjunction(filters.iter().cloned().chain(self.scope.clone()));
        let files = match wanted.map(physical).transpose()? {
            Some(predicate) => {
                let predicate = PruningPredicateBuilder::new()
                    .with_file_schema(Arc::clone(schema))
                    .try_build(predicate)?;
                self.may_match(&predicate)?
            }
            None => self.files.clone(),
        };
        if let Some(fault) = files.iter().find_map(|file| file.fault()) {
            return Err(DataFusionError::External(Box::new(DamagedFile(fault.to_owned()))));
        }
        // The scope looks at two columns that the query may not want: they are read all the same, and left out above.
        let asked = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let mut read = asked.clone();
        if let Some(scope) = &self.scope {
            for column in scope.column_refs() {
                let at = schema.index_of(column.name())?;
                if !read.contains(&at) {
                    read.push(at);
                }
            }
        }
        let limit = limit.filter(|_| self.scope.is_none());
        let rows = self.rows(state, &files, &read, limit)?;
        let Some(scope) = self.scope.clone() else { return Ok(rows) };
        let inner = DFSchema::try_from(rows.schema())?;
        let scoped: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(state.create_physical_expr(scope, &inner)?, rows)?);
        if read.len() == asked.len() {
            return Ok(scoped);
        }
        let columns = (0..asked.len()).map(|at| {
            let name = schema.field(asked[at]).name().clone();
            (Arc::new(PhysicalColumn::new(&name, at)) as _, name)
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), scoped)?))
    }

    fn may_match(&self, predicate: &PruningPredicate) -> Result<Vec<Arc<DataFile>>> {
        let kept = predicate.prune(&Told {
            table: self.table,
            files: &self.files,
        })?;
        let kept = self.files.iter().zip(kept).filter(|(_, kept)| *kept);
        Ok(kept.map(|(file, _)| Arc::clone(file)).collect())
    }

    /// The columns `read` of files and hot rows.
    fn rows(
        &self,
        state: &dyn Session,
        files: &[Arc<DataFile>],
        read: &[usize],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            inputs.push(self.parquet(state, files, read, limit)?);
        }
        let hot = self.hot_rows()?;
        if !hot.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(
                &[hot],
                Arc::clone(self.table.schema()),
                Some(read.to_vec()),
            )?);
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(Arc::new(self.table.schema().project(read)?)))),
            _ => UnionExec::try_new(inputs),
        }
    }

    fn hot_rows(&self) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for generation in &self.hot {
            for piece in generation.pieces()? {
                rows.push(piece.rows(self.table)?.clone());
            }
        }
        Ok(rows)
    }

    fn parquet(
        &self,
        state: &dyn Session,
        files: &[Arc<DataFile>],
        read: &[usize],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::local_filesystem();
        let runtime = state.runtime_env();
        let inner =
            CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, runtime.cache_manager.get_file_metadata_cache());
        let factory = PinnedReaders {
            inner,
            _view: Arc::clone(&self.view),
        };
        let source = ParquetSource::new(Arc::clone(self.table.schema()))
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_enable_page_index(true)
            .with_bloom_filter_on_read(true)
            .with_parquet_file_reader_factory(Arc::new(factory));
        let mut groups = vec![Vec::new(); files.len().min(state.config().target_partitions()).max(1)];
        let count = groups.len();
        // Largest first, so that groups come out alike.
        let mut files: Vec<_> = files.iter().collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.entry.bytes));
        for (at, file) in files.into_iter().enumerate() {
            groups[at % count].push(PartitionedFile::new(absolute(&file.path)?, file.entry.bytes));
        }
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(Some(read.to_vec()))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// A path as the local object store names it.
fn absolute(path: &Path) -> Result<String> {
    let path = datafusion::object_store::path::Path::from_absolute_path(path)?;
    Ok(path.to_string())
}

/// A file that a query needs cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DamagedFile(pub String);

/// Opens files through the cache, and holds the moment they belong to as long as the plan lives.
#[derive(Debug)]
struct PinnedReaders {
    inner: CachedParquetFileReaderFactory,
    _view: Arc<View>,
}

impl ParquetFileReaderFactory for PinnedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        self.inner.create_reader(partition, file, metadata_size_hint, metrics)
    }
}

/// What the manifest tells of files, for pruning.
struct Told<'a> {
    table: Table,
    files: &'a [Arc<DataFile>],
}

impl Told<'_> {
    fn per_file(
        &self,
        column: &Column,
        time: impl Fn(&DataFile) -> i64,
        namespace: impl Fn(&DataFile) -> Option<&String>,
    ) -> Option<ArrayRef> {
        if column.name == self.table.time_column() {
            let times = TimestampNanosecondArray::from_iter_values(self.files.iter().map(|file| time(file)));
            return Some(Arc::new(times.with_timezone("+00:00")));
        }
        if column.name == "namespace" {
            return Some(Arc::new(
                self.files.iter().map(|file| namespace(file)).collect::<StringArray>(),
            ));
        }
        None
    }
}

impl PruningStatistics for Told<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.per_file(column, |file| file.entry.time_min, |file| file.entry.namespaces.first())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.per_file(column, |file| file.entry.time_max, |file| file.entry.namespaces.last())
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(
            self.files.iter().map(|file| file.entry.rows),
        )))
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        if column.name != "namespace" {
            return None;
        }
        let values: Vec<&str> = values
            .iter()
            .map(|value| value.try_as_str().flatten())
            .collect::<Option<_>>()?;
        Some(
            self.files
                .iter()
                .map(|file| {
                    let listed = &file.entry.namespaces;
                    match listed.as_slice() {
                        [] => None,
                        [only] => Some(values.contains(&only.as_str())),
                        // Some rows may be of these values, and some are not: only "none" can be told.
                        several => (!several.iter().any(|one| values.contains(&one.as_str()))).then_some(false),
                    }
                })
                .collect(),
        )
    }
}
