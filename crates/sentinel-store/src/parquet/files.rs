//! Data files: how rows are written to Parquet, what is remembered of them, and when a file goes away.
//!
//! Name: `<table>-<UTC day>-<number>-<f|m>.parquet`, `f` for rows fresh from the queue, `m` for rows merged from other files. Any
//! Parquet reader understands them. Rows are sorted by namespace, hour, server, tool and time; ids have bloom filters.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use domain::{COLUMNS, EventId, Kind, Timestamp};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::disk::{Disk, Pending};
use super::manifest::FileEntry;
use super::names::Ranks;
use super::schema::Table;

/// Rows of a row group: what a query can skip as a whole.
pub(super) const ROW_GROUP_ROWS: usize = 131_072;
/// Rows of a data page: what it can skip within.
const PAGE_ROWS: usize = 16_384;
/// Most namespaces that are listed for a file.
const NAMESPACES_MAX: usize = 256;
/// Share of absent ids that a bloom filter takes for present.
/// The size is a power of two: a full row group comes to one byte an id, and would to two with a third less of this.
const BLOOM_FALSE: f64 = 0.03;
/// The same for ids of events, with half the size: they tell the day, so that few row groups are in question.
const BLOOM_FALSE_ID: f64 = 0.32;

/// A file that is part of the database, or was: it goes away when the last snapshot lets go.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) entry: FileEntry,
    pub(super) path: PathBuf,
    disk: Disk,
    removed: AtomicBool,
    fault: OnceLock<String>,
}

impl DataFile {
    pub(super) fn new(entry: FileEntry, disk: &Disk) -> Self {
        Self {
            path: disk.path(&entry.name),
            entry,
            disk: disk.clone(),
            removed: AtomicBool::new(false),
            fault: OnceLock::new(),
        }
    }

    /// The file is no longer part of the database.
    pub(super) fn retire(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// What is wrong with it, if something is.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Remembers what is wrong, in a sentence for people.
    pub(super) fn mark(&self, what: &str) {
        let text = format!(
            "{} {what}: its {} rows are missing from answers; put the file back from a copy of the folder, or remove its day",
            self.path.display(),
            self.entry.rows
        );
        if self.fault.set(text.clone()).is_ok() {
            tracing::error!(file = %self.entry.name, rows = self.entry.rows, "{text}");
        }
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if self.removed.load(Ordering::Acquire)
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(file = %self.entry.name, %error, "file left behind; the next start removes it");
        }
    }
}

/// Where the rows of a new file come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The queue.
    Fresh,
    /// Other files.
    Merged,
}

/// Name of a new file.
pub(super) fn file_name(table: Table, day: i32, number: u64, origin: Origin) -> String {
    let date = Timestamp::from_seconds(i64::from(day) * 86_400).to_string();
    let date = date.split('T').next().unwrap_or_default();
    let origin = if origin == Origin::Fresh { 'f' } else { 'm' };
    format!("{}-{date}-{number:08}-{origin}.parquet", table.name())
}

/// Whether a name is one that [`file_name`] makes, and of which origin.
pub(super) fn origin_of(path: &Path) -> Option<Origin> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
    let table = Table::ALL.iter().any(|table| stem.starts_with(table.name()));
    match (table, stem.rsplit('-').next()) {
        (true, Some("f")) => Some(Origin::Fresh),
        (true, Some("m")) => Some(Origin::Merged),
        _ => None,
    }
}

/// Writes one file.
pub(super) struct FileWriter {
    writer: ArrowWriter<Pending>,
    seen: Seen,
    entry: FileEntry,
}

/// What the manifest tells of rows.
#[derive(Default)]
struct Seen {
    rows: u64,
    time: Option<(i64, i64)>,
    namespaces: BTreeSet<String>,
    made: Option<(EventId, EventId)>,
    other: Option<(EventId, EventId)>,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {name}")]
pub struct WriteError {
    name: String,
    #[source]
    source: ParquetError,
}

impl FileWriter {
    /// Begins a file of some `rows` rows.
    pub(super) fn begin(disk: &Disk, table: Table, day: i32, name: String, rows: u64) -> Result<Self, WriteError> {
        let failed = |source| WriteError {
            name: name.clone(),
            source,
        };
        let pending = disk.begin(&name).map_err(|error| failed(ParquetError::from(error)))?;
        let writer =
            ArrowWriter::try_new(pending, Arc::clone(table.schema()), Some(properties(table, rows))).map_err(failed)?;
        let entry = FileEntry {
            name,
            table,
            day,
            rows: 0,
            bytes: 0,
            time_min: i64::MAX,
            time_max: i64::MIN,
            namespaces: Vec::new(),
            made_ids: None,
            other_ids: None,
        };
        Ok(Self {
            writer,
            seen: Seen::default(),
            entry,
        })
    }

    /// Appends rows, which are in the order of the table.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let outcome = self.seen.add(batch, self.entry.table).and_then(|()| self.writer.write(batch));
        outcome.map_err(|source| WriteError {
            name: self.entry.name.clone(),
            source,
        })
    }

    /// Makes the file's content survive; its name does with the next sync of the folder.
    pub(super) fn finish(mut self) -> Result<FileEntry, WriteError> {
        let failed = |source| WriteError {
            name: self.entry.name.clone(),
            source,
        };
        self.writer.finish().map_err(failed)?;
        let bytes = self
            .writer
            .inner_mut()
            .finish()
            .map_err(|error| failed(ParquetError::from(error)))?;
        let (time_min, time_max) = self.seen.time.unwrap_or_default();
        let namespaces = if self.seen.namespaces.len() > NAMESPACES_MAX {
            Vec::new()
        } else {
            self.seen.namespaces.into_iter().collect()
        };
        Ok(FileEntry {
            rows: self.seen.rows,
            bytes,
            time_min,
            time_max,
            namespaces,
            made_ids: self.seen.made,
            other_ids: self.seen.other,
            ..self.entry
        })
    }
}

impl Seen {
    fn add(&mut self, batch: &RecordBatch, table: Table) -> Result<(), ParquetError> {
        self.rows += batch.num_rows() as u64;
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| ParquetError::General(format!("the rows lack the column {name}")))
        };
        for time in column(table.time_column())?
            .as_primitive::<TimestampNanosecondType>()
            .values()
        {
            let (min, max) = self.time.unwrap_or((*time, *time));
            self.time = Some((min.min(*time), max.max(*time)));
        }
        // One more than is listed tells that there were too many; beyond it, looking is of no use.
        if self.namespaces.len() <= NAMESPACES_MAX {
            let ranks = Ranks::of(batch, "namespace")?;
            let mut last = None;
            for row in 0..batch.num_rows() {
                let rank = ranks.rank(row);
                if last.replace(rank) != Some(rank) && !self.namespaces.contains(ranks.text_of(row)) {
                    self.namespaces.insert(ranks.text_of(row).to_owned());
                }
            }
        }
        if table == Table::Events {
            for id in column("id")?.as_fixed_size_binary().iter().flatten() {
                self.add_id(EventId::from_bytes(
                    id.try_into()
                        .map_err(|_| ParquetError::General("an id is not of 16 bytes".to_owned()))?,
                ));
            }
        }
        Ok(())
    }

    fn add_id(&mut self, id: EventId) {
        let range = if id.made_at_millis().is_some() {
            &mut self.made
        } else {
            &mut self.other
        };
        let (min, max) = range.unwrap_or((id, id));
        *range = Some((min.min(id), max.max(id)));
    }
}

fn properties(table: Table, rows: u64) -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(4_096)
        .set_created_by(concat!("mcp-runtime ", env!("CARGO_PKG_VERSION")).to_owned());
    match table {
        Table::Events => event_properties(builder, rows),
        _ => builder
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_data_page_row_count_limit(4_096),
    }
    .build()
}

fn event_properties(mut builder: WriterPropertiesBuilder, rows: u64) -> WriterPropertiesBuilder {
    let packed = |builder: WriterPropertiesBuilder, name: &str, encoding| {
        let column = ColumnPath::from(name);
        builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, encoding)
    };
    for (id, share) in [("id", BLOOM_FALSE_ID), ("trace_id", BLOOM_FALSE)] {
        let column = ColumnPath::from(id);
        builder = builder
            .set_column_bloom_filter_enabled(column.clone(), true)
            .set_column_bloom_filter_fpp(column.clone(), share)
            .set_column_bloom_filter_max_ndv(column, rows.clamp(64, ROW_GROUP_ROWS as u64));
    }
    // Bytes of equal place stand together, so that the time in ids of version 7 compresses and what is random costs no more than itself.
    for id in ["id", "trace_id", "span_id", "parent_span_id"] {
        builder = packed(builder, id, Encoding::BYTE_STREAM_SPLIT)
            .set_column_statistics_enabled(ColumnPath::from(id), EnabledStatistics::Chunk);
    }
    for number in ["timestamp", "received_at", "producer_seq", "offset"] {
        builder = packed(builder, number, Encoding::DELTA_BINARY_PACKED);
    }
    let few = ["status", "sse_events", "progress_count"];
    for column in COLUMNS
        .iter()
        .filter(|column| column.kind == Kind::Count && !few.contains(&column.name))
    {
        // In the order of files these are noise: differences would take more room than the numbers.
        builder = packed(builder, column.name, Encoding::BYTE_STREAM_SPLIT);
    }
    builder
}
