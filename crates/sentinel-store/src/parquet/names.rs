//! Dictionary columns as numbers whose order is the order of their texts: what sorting and grouping work on.

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use arrow::error::ArrowError;

/// One text column of a batch, ranked. Rank 0 is absent; equal texts have equal ranks, also when a dictionary repeats them.
#[derive(Debug)]
pub(super) struct Ranks {
    of_row: Vec<u32>,
    texts: Vec<String>,
}

impl Ranks {
    /// Ranks the column of a name.
    pub(super) fn of(batch: &RecordBatch, name: &str) -> Result<Self, ArrowError> {
        let array = batch
            .column_by_name(name)
            .ok_or_else(|| ArrowError::SchemaError(format!("the rows lack the column {name}")))?;
        let dictionary = array
            .as_any_dictionary_opt()
            .and_then(|any| any.as_any().downcast_ref::<arrow::array::DictionaryArray<Int32Type>>())
            .ok_or_else(|| ArrowError::SchemaError(format!("the column {name} is no dictionary")))?;
        let values = cast(dictionary.values(), &DataType::Utf8)?;
        let values: &StringArray = values.as_string();
        let mut texts: Vec<&str> = values.iter().flatten().collect();
        texts.sort_unstable();
        texts.dedup();
        let rank_of_value: Vec<u32> = values
            .iter()
            .map(|value| {
                value
                    .and_then(|value| texts.binary_search(&value).ok())
                    .map_or(0, |at| u32::try_from(at + 1).unwrap_or(u32::MAX))
            })
            .collect();
        let of_row = dictionary
            .keys()
            .iter()
            .map(|key| {
                key.and_then(|key| rank_of_value.get(usize::try_from(key).ok()?).copied())
                    .unwrap_or(0)
            })
            .collect();
        Ok(Self {
            of_row,
            texts: texts.into_iter().map(str::to_owned).collect(),
        })
    }

    /// Rank of a row's text.
    pub(super) fn rank(&self, row: usize) -> u32 {
        self.of_row[row]
    }

    /// Text of a rank.
    pub(super) fn text(&self, rank: u32) -> Option<&str> {
        (rank as usize)
            .checked_sub(1)
            .and_then(|at| self.texts.get(at))
            .map(String::as_str)
    }

    /// Text of a row; empty when absent.
    pub(super) fn text_of(&self, row: usize) -> &str {
        self.text(self.rank(row)).unwrap_or_default()
    }

    /// How many ranks there are, absent included.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.texts.len() + 1).unwrap_or(u32::MAX)
    }
}
