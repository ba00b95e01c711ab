//! Looking for ids in files: ranges first, then bloom filters, then the ids themselves.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use arrow::array::{AsArray, RecordBatchReader};
use domain::EventId;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::files::DataFile;
use super::schema::Table;
use super::view::View;

/// Looking for an id failed for now.
#[derive(Debug, thiserror::Error)]
#[error("looking for ids in {name}")]
pub(super) struct LookupError {
    name: String,
    #[source]
    source: io::Error,
}

/// Which of the ids stand in a file. A file that is gone or damaged has no rows to repeat; it is remembered as faulty.
pub(super) fn stored(view: &View, ids: &HashSet<EventId>) -> Result<HashSet<EventId>, LookupError> {
    let mut found = HashSet::new();
    for file in view.files_of(Table::Events) {
        let candidates: Vec<EventId> = ids.iter().filter(|id| may_hold(file, **id)).copied().collect();
        if candidates.is_empty() || file.fault().is_some() {
            continue;
        }
        match find(file, &candidates, &mut found) {
            Ok(()) => {}
            Err(ParquetError::External(source)) if source.downcast_ref::<io::Error>().is_some_and(passing) => {
                let source = source.downcast::<io::Error>().map_or_else(io::Error::other, |error| *error);
                return Err(LookupError {
                    name: file.entry.name.clone(),
                    source,
                });
            }
            Err(error) => file.mark(&format!("cannot be read ({error})")),
        }
    }
    Ok(found)
}

fn passing(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

fn may_hold(file: &DataFile, id: EventId) -> bool {
    let range = if id.made_at_millis().is_some() {
        file.entry.made_ids
    } else {
        file.entry.other_ids
    };
    range.is_some_and(|(min, max)| (min..=max).contains(&id))
}

fn find(file: &DataFile, ids: &[EventId], found: &mut HashSet<EventId>) -> Result<(), ParquetError> {
    let open = || ParquetRecordBatchReaderBuilder::try_new(File::open(&file.path)?);
    let builder = open()?;
    let groups: Vec<usize> = (0..builder.metadata().num_row_groups())
        .filter_map(|group| match builder.get_row_group_column_bloom_filter(group, 0) {
            Ok(Some(bloom)) => ids
                .iter()
                .any(|id| bloom.check(id.as_bytes().as_slice()))
                .then_some(Ok(group)),
            Ok(None) => Some(Ok(group)),
            Err(error) => Some(Err(error)),
        })
        .collect::<Result<_, _>>()?;
    if groups.is_empty() {
        return Ok(());
    }
    let ids: HashSet<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), [0]);
    let reader = builder.with_row_groups(groups).with_projection(mask).build()?;
    debug_assert_eq!(reader.schema().field(0).name(), "id");
    for batch in reader {
        for id in batch?
            .column(0)
            .as_fixed_size_binary()
            .iter()
            .flatten()
            .filter(|id| ids.contains(id))
        {
            found.extend(id.try_into().map(EventId::from_bytes));
        }
    }
    Ok(())
}
