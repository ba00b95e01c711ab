//! Columns of text as they come: plain or as a dictionary.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use arrow::error::ArrowError;

/// A column as texts. An absent value and an empty text are the same.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    /// What the texts were made of: the same array means the same texts.
    source: ArrayRef,
    values: StringArray,
    /// Place of each row's text in `values`; absent: its own.
    keys: Option<Int32Array>,
}

impl Texts {
    pub(super) fn of(array: &ArrayRef) -> Result<Self, ArrowError> {
        let dictionary = array.as_dictionary_opt::<Int32Type>();
        let source = dictionary.map_or(array, |dictionary| dictionary.values());
        Ok(Self {
            source: Arc::clone(source),
            values: cast(source, &DataType::Utf8)?.as_string().clone(),
            keys: dictionary.map(|dictionary| dictionary.keys().clone()),
        })
    }

    /// Place of a row's text among [`Self::len`]; `None` when it is absent or empty.
    pub(super) fn place(&self, row: usize) -> Option<usize> {
        let at = match &self.keys {
            None => row,
            Some(keys) if keys.is_valid(row) => usize::try_from(keys.value(row)).ok()?,
            Some(_) => return None,
        };
        (self.values.is_valid(at) && self.values.value_length(at) > 0).then_some(at)
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.keys.as_ref().map_or(self.values.len(), Int32Array::len)
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The text at a place.
    pub(super) fn text(&self, place: usize) -> &str {
        self.values.value(place)
    }

    /// A row's text.
    pub(super) fn at(&self, row: usize) -> &str {
        self.place(row).map_or("", |at| self.text(at))
    }

    /// What tells whether two columns have the same texts at the same places.
    pub(super) fn source(&self) -> &ArrayRef {
        &self.source
    }
}
