//! From hot rows to files: sorted, split by UTC day, with the rollups of the same rows beside them.

use std::ops::Range;

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use arrow::error::ArrowError;
use domain::Timestamp;

use super::disk::Disk;
use super::files::{FileWriter, Origin, WriteError, file_name};
use super::hot::Generation;
use super::manifest::FileEntry;
use super::names::Ranks;
use super::rollup;
use super::schema::Table;

/// Rows handed to the Parquet writer at a time.
const STEP_ROWS: usize = 16_384;
const HOUR_NS: i64 = 3_600_000_000_000;

/// Rows could not be put into files.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Rows could not be sorted or added up.
    #[error("preparing rows")]
    Prepare(#[source] ArrowError),
    /// A file could not be written.
    #[error("writing rows")]
    Write(#[source] WriteError),
    /// The manifest could not be put in place.
    #[error("committing the manifest")]
    Commit(#[source] std::io::Error),
}

/// Writes a generation. On failure, what was written so far is removed.
pub(super) fn write(
    disk: &Disk,
    generation: &Generation,
    number: &mut dyn FnMut() -> u64,
) -> Result<Vec<FileEntry>, FlushError> {
    let pieces = generation.pieces().map_err(FlushError::Prepare)?;
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let rows = pieces
        .iter()
        .map(|piece| piece.rows(Table::Events))
        .collect::<Result<Vec<_>, _>>()
        .map_err(FlushError::Prepare)?;
    let rows = Rows::of(rows).map_err(FlushError::Prepare)?;
    let (order, days) = sorted(&rows.counted).map_err(FlushError::Prepare)?;
    let mut written = Vec::new();
    for (day, range) in days {
        let outcome = write_day(disk, &rows, &order[range], day, number, &mut written);
        if let Err(error) = outcome {
            discard(disk, &written);
            return Err(error);
        }
    }
    Ok(written)
}

/// Removes files that will not be committed.
pub(super) fn discard(disk: &Disk, files: &[FileEntry]) {
    for file in files {
        if let Err(error) = disk.remove(&disk.path(&file.name)) {
            tracing::warn!(file = %file.name, %error, "file left behind; the next start removes it");
        }
    }
}

/// Rows to be written. There is memory for them once: only what sorting and adding up look at is made one batch.
struct Rows<'a> {
    pieces: Vec<&'a RecordBatch>,
    /// Piece and place there of each row of `counted`.
    places: Vec<(usize, usize)>,
    counted: RecordBatch,
}

impl<'a> Rows<'a> {
    fn of(pieces: Vec<&'a RecordBatch>) -> Result<Self, ArrowError> {
        let schema = Table::Events.schema();
        let columns = rollup::COLUMNS
            .iter()
            .map(|name| schema.index_of(name))
            .collect::<Result<Vec<_>, _>>()?;
        let counted = pieces
            .iter()
            .map(|piece| piece.project(&columns))
            .collect::<Result<Vec<_>, _>>()?;
        let places = pieces.iter().enumerate();
        Ok(Self {
            places: places
                .flat_map(|(piece, rows)| (0..rows.num_rows()).map(move |row| (piece, row)))
                .collect(),
            counted: concat_batches(&Arc::new(schema.project(&columns)?), &counted)?,
            pieces,
        })
    }

    /// Those rows, in the order given.
    fn take(&self, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
        let places: Vec<_> = rows.iter().map(|row| self.places[*row as usize]).collect();
        interleave_record_batch(&self.pieces, &places)
    }
}

fn write_day(
    disk: &Disk,
    rows: &Rows<'_>,
    order: &[u32],
    day: i32,
    number: &mut dyn FnMut() -> u64,
    written: &mut Vec<FileEntry>,
) -> Result<(), FlushError> {
    for table in Table::ALL {
        let name = file_name(table, day, number(), Origin::Fresh);
        let mut file = FileWriter::begin(disk, table, day, name, order.len() as u64).map_err(FlushError::Write)?;
        if table == Table::Events {
            for step in order.chunks(STEP_ROWS) {
                file.write(&rows.take(step).map_err(FlushError::Prepare)?)
                    .map_err(FlushError::Write)?;
            }
        } else {
            let rolled =
                rollup::roll(&rows.counted, order.iter().map(|row| *row as usize), table).map_err(FlushError::Prepare)?;
            file.write(&rolled).map_err(FlushError::Write)?;
        }
        written.push(file.finish().map_err(FlushError::Write)?);
    }
    Ok(())
}

/// A UTC day, and where its rows are in the sorted order.
type DayRows = (i32, Range<usize>);

/// The order of rows in files, and which part of it is which day.
fn sorted(rows: &RecordBatch) -> Result<(Vec<u32>, Vec<DayRows>), ArrowError> {
    let times = rows
        .column_by_name("timestamp")
        .ok_or_else(|| ArrowError::SchemaError("the rows lack a time".to_owned()))?;
    let times = times.as_primitive::<TimestampNanosecondType>();
    let (namespace, server, tool) = (
        Ranks::of(rows, "namespace")?,
        Ranks::of(rows, "server")?,
        Ranks::of(rows, "tool_name")?,
    );
    let mut keyed: Vec<_> = (0..u32::try_from(times.len()).unwrap_or(u32::MAX))
        .map(|row| {
            let at = row as usize;
            let time = times.value(at);
            let day = Timestamp::from_nanos(time).day();
            (
                (day, namespace.rank(at), time.div_euclid(HOUR_NS)),
                (server.rank(at), tool.rank(at)),
                time,
                row,
            )
        })
        .collect();
    keyed.sort_unstable();
    let mut days: Vec<(i32, Range<usize>)> = Vec::new();
    for (at, ((day, _, _), ..)) in keyed.iter().enumerate() {
        match days.last_mut() {
            Some((last, range)) if last == day => range.end = at + 1,
            _ => days.push((*day, at..at + 1)),
        }
    }
    Ok((keyed.into_iter().map(|(.., row)| row).collect(), days))
}
