//! Merging files of a day, so that their number depends on neither uptime nor load.
//!
//! What to merge is chosen by [`choose`], a pure function: files of like size, several at a time, so that each row is rewritten a
//! few times at most; and all of a day's once the day is over. Merging keeps the order of rows and takes memory for one batch per file.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{SortOptions, concat_batches};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, col, lit};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt as _, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::files::{DataFile, FileWriter, Origin, file_name};
use super::flush::FlushError;
use super::manifest::{Edit, FileEntry};
use super::rollup;
use super::schema::Table;
use super::shared::Shared;

/// Files of one size class that are merged into one.
const FAN_IN: usize = 6;
/// Most files merged at once: each takes a reader's memory.
const FAN_IN_MAX: usize = 12;
/// Rows of the first size class; each next one has [`FAN_IN`] times as many.
const CLASS_ROWS: u64 = 4_096;
/// Rows beyond which a file is left alone.
const ROWS_MAX: u64 = 8_000_000;
/// Rows read from a file at a time.
const READ_ROWS: usize = 1_024;
const HOUR_NS: i64 = 3_600_000_000_000;
/// How long a day must be over before all its files become one: late events have come by then.
const SETTLED_SECONDS: i64 = 2 * 3_600;
/// Memory a merge may take for rows it compares.
const MERGE_BYTES_MAX: usize = 64 << 20;

/// Merges while there is something to merge.
pub(super) fn run(shared: &Shared) -> Result<(), FlushError> {
    loop {
        let view = shared.view.load_full();
        let today = shared
            .now()
            .minus(std::time::Duration::from_secs(SETTLED_SECONDS.unsigned_abs()))
            .day();
        let sound: Vec<FileEntry> = view
            .files
            .iter()
            .filter(|file| file.fault().is_none())
            .map(|file| file.entry.clone())
            .collect();
        let Some(chosen) = choose(&sound, today) else { return Ok(()) };
        let files: Vec<_> = view
            .files
            .iter()
            .filter(|file| chosen.contains(&file.entry.name))
            .cloned()
            .collect();
        drop(view);
        let Some(entry) = merge(shared, &files)? else { return Ok(()) };
        shared.commit(
            &Edit {
                add: vec![entry],
                remove: chosen,
                ..Edit::default()
            },
            |view| view,
        )?;
    }
}

/// Files to merge into one, of one table and day; `None` when all is well. `today` is the first day still taking many rows.
pub(super) fn choose(files: &[FileEntry], today: i32) -> Option<Vec<String>> {
    let mut days: BTreeMap<(Table, i32), Vec<&FileEntry>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.rows < ROWS_MAX) {
        days.entry((file.table, file.day)).or_default().push(file);
    }
    for ((_, day), mut files) in days {
        files.sort_by_key(|file| (file.rows, &file.name));
        let mut rows = 0;
        let together: Vec<_> = files
            .iter()
            .take_while(|file| {
                rows += file.rows;
                rows <= ROWS_MAX
            })
            .take(FAN_IN_MAX)
            .collect();
        if day < today && together.len() > 1 {
            return Some(together.iter().map(|file| file.name.clone()).collect());
        }
        let mut classes: BTreeMap<u32, Vec<&FileEntry>> = BTreeMap::new();
        for file in files {
            classes.entry(class(file.rows)).or_default().push(file);
        }
        if let Some(class) = classes.into_values().find(|class| class.len() >= FAN_IN) {
            return Some(class.iter().take(FAN_IN_MAX).map(|file| file.name.clone()).collect());
        }
    }
    None
}

fn class(rows: u64) -> u32 {
    let mut class = 0;
    let mut bound = CLASS_ROWS;
    while rows > bound {
        bound = bound.saturating_mul(FAN_IN as u64);
        class += 1;
    }
    class
}

/// Writes the rows of files into one. `None`: asked to stop, or a file turned out to be damaged and was marked.
fn merge(shared: &Shared, files: &[Arc<DataFile>]) -> Result<Option<FileEntry>, FlushError> {
    let Some(first) = files.first() else { return Ok(None) };
    let (table, day) = (first.entry.table, first.entry.day);
    let rows = files.iter().map(|file| file.entry.rows).sum();
    let name = file_name(table, day, shared.file_number(), Origin::Merged);
    let mut writer = FileWriter::begin(&shared.disk, table, day, name, rows).map_err(FlushError::Write)?;
    let streams = match files.iter().map(read).collect::<Result<Vec<_>, _>>() {
        Ok(streams) => streams,
        Err(error) => return Err(FlushError::Prepare(error)),
    };
    let finished = if table == Table::Events {
        merge_events(shared, streams, &mut writer)?
    } else {
        merge_rollups(streams, table, &mut writer)?
    };
    if !finished {
        return Ok(None);
    }
    let entry = writer.finish().map_err(FlushError::Write)?;
    if table == Table::Events && entry.rows != rows {
        super::flush::discard(&shared.disk, std::slice::from_ref(&entry));
        return Err(FlushError::Prepare(ArrowError::ComputeError(format!(
            "merging {rows} rows gave {}",
            entry.rows
        ))));
    }
    Ok(Some(entry))
}

/// Rows of a file; a fault marks the file, so that it is left alone from then on.
fn read(file: &Arc<DataFile>) -> Result<SendableRecordBatchStream, ArrowError> {
    let open = || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&file.path)?)?;
        builder.with_batch_size(READ_ROWS).build()
    };
    let reader = open().map_err(|error| {
        file.mark(&format!("cannot be read ({error})"));
        ArrowError::from(error)
    })?;
    let table = file.entry.table;
    let file = Arc::clone(file);
    let batches = reader.map(move |batch| {
        let batch = batch.inspect_err(|error| file.mark(&format!("cannot be read ({error})")))?;
        conform(&batch, table).map_err(DataFusionError::from)
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(
        Arc::clone(table.schema()),
        stream::iter(batches),
    )))
}

/// Rows with the columns of today: what an older file lacks is null.
fn conform(batch: &RecordBatch, table: Table) -> Result<RecordBatch, ArrowError> {
    let schema = table.schema();
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => arrow::compute::cast(column, field.data_type()),
        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

fn merge_events(shared: &Shared, streams: Vec<SendableRecordBatchStream>, writer: &mut FileWriter) -> Result<bool, FlushError> {
    let failed = |error: DataFusionError| FlushError::Prepare(ArrowError::ExternalError(Box::new(error)));
    let order = order().map_err(failed)?;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(MERGE_BYTES_MAX));
    let mut merged = StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(Table::Events.schema()))
        .with_expressions(&order)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(READ_ROWS * 4)
        .with_reservation(MemoryConsumer::new("merging files").register(&pool))
        .build()
        .map_err(failed)?;
    let runtime = runtime()?;
    while let Some(batch) = runtime.block_on(merged.next()) {
        if shared.stopping() {
            return Ok(false);
        }
        write(writer, &batch.map_err(failed)?)?;
    }
    Ok(true)
}

/// The order of rows in files: that of [`super::flush`].
fn order() -> Result<LexOrdering, DataFusionError> {
    let schema = Table::Events.schema();
    let nanos: Arc<dyn PhysicalExpr> = Arc::new(CastExpr::new(
        col("timestamp", schema)?,
        arrow::datatypes::DataType::Int64,
        None,
    ));
    // Rows of one file are of one UTC day, and no day before 1970 has hours that round the other way than its neighbours.
    let hour: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(nanos, Operator::Divide, lit(HOUR_NS)));
    let keys = [
        col("namespace", schema)?,
        hour,
        col("server", schema)?,
        col("tool_name", schema)?,
        col("timestamp", schema)?,
    ];
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    LexOrdering::new(keys.map(|key| PhysicalSortExpr::new(key, options)))
        .ok_or_else(|| DataFusionError::Internal("an order without columns".to_owned()))
}

fn merge_rollups(streams: Vec<SendableRecordBatchStream>, table: Table, writer: &mut FileWriter) -> Result<bool, FlushError> {
    let mut batches = Vec::new();
    let runtime = runtime()?;
    for mut stream in streams {
        while let Some(batch) = runtime.block_on(stream.next()) {
            batches.push(batch.map_err(|error| FlushError::Prepare(ArrowError::ExternalError(Box::new(error))))?);
        }
    }
    let rows = concat_batches(table.schema(), &batches).map_err(FlushError::Prepare)?;
    drop(batches);
    write(writer, &rollup::merge(&rows, table).map_err(FlushError::Prepare)?)?;
    Ok(true)
}

/// Streams are polled on this thread: reading and writing block anyway.
fn runtime() -> Result<tokio::runtime::Runtime, FlushError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.map_err(|error| FlushError::Prepare(ArrowError::from(error)))
}

fn write(writer: &mut FileWriter, batch: &RecordBatch) -> Result<(), FlushError> {
    writer.write(batch).map_err(FlushError::Write)
}
