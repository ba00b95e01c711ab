//! The sketches as functions of queries.
//!
//! Aggregates: `latency_sketch(latency_us)` and `distinct_sketch(column, …)` make a sketch of rows, `sketch_merge(latency)` and
//! `distinct_merge(humans)` make one of sketches. Functions: `latency_at(sketch, 0.95)` and `distinct_count(sketch)` read one.
//! A sketch is a binary value, the same bytes as in the files. `uuid_text(id)` and `hex_text(trace_id)` show ids as people write them.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::texts::Texts;
use crate::sketch::{DistinctSketch, LatencySketch, NotASketch};

/// Every aggregate of this file.
pub(super) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![latency_sketch(), sketch_merge(), distinct_sketch(), distinct_merge()]
}

/// Every scalar function of this file.
pub(super) fn scalars() -> Vec<Arc<ScalarUDF>> {
    [Read::LatencyAt, Read::DistinctCount, Read::UuidText, Read::HexText]
        .map(Reading::function)
        .into()
}

/// The sixteen bytes of an id as the text of a UUID.
pub(super) fn uuid_text() -> Arc<ScalarUDF> {
    Reading::function(Read::UuidText)
}

/// Bytes as hex digits.
pub(super) fn hex_text() -> Arc<ScalarUDF> {
    Reading::function(Read::HexText)
}

/// Latencies to a sketch.
pub(super) fn latency_sketch() -> Arc<AggregateUDF> {
    Sketching::aggregate(Make::Latency)
}

/// Latency sketches to one.
pub(super) fn sketch_merge() -> Arc<AggregateUDF> {
    Sketching::aggregate(Make::LatencyMerge)
}

/// Values of one or several columns to a sketch.
pub(super) fn distinct_sketch() -> Arc<AggregateUDF> {
    Sketching::aggregate(Make::Distinct)
}

/// Distinct sketches to one.
pub(super) fn distinct_merge() -> Arc<AggregateUDF> {
    Sketching::aggregate(Make::DistinctMerge)
}

/// What an aggregate makes of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Make {
    Latency,
    LatencyMerge,
    Distinct,
    DistinctMerge,
}

/// One of the aggregates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sketching {
    make: Make,
    signature: Signature,
}

impl Sketching {
    fn aggregate(make: Make) -> Arc<AggregateUDF> {
        let signature = match make {
            Make::Distinct => Signature::variadic_any(Volatility::Immutable),
            Make::Latency => Signature::exact(vec![DataType::UInt64], Volatility::Immutable),
            Make::LatencyMerge | Make::DistinctMerge => Signature::exact(vec![DataType::Binary], Volatility::Immutable),
        };
        Arc::new(AggregateUDF::new_from_impl(Self { make, signature }))
    }

    fn groups(&self) -> Box<dyn Grouped> {
        match self.make {
            Make::Latency => Box::new(Groups::<LatencySketch>::new(add_latencies)),
            Make::LatencyMerge => Box::new(Groups::<LatencySketch>::new(add_sketches)),
            Make::Distinct => Box::new(Groups::<DistinctSketch>::new(add_values)),
            Make::DistinctMerge => Box::new(Groups::<DistinctSketch>::new(add_sketches)),
        }
    }
}

impl AggregateUDFImpl for Sketching {
    fn name(&self) -> &str {
        match self.make {
            Make::Latency => "latency_sketch",
            Make::LatencyMerge => "sketch_merge",
            Make::Distinct => "distinct_sketch",
            Make::DistinctMerge => "distinct_merge",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single(self.groups())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(self.groups().into_groups())
    }
}

/// A sketch, as aggregates see it.
trait Sketch: Default + Debug + Send + 'static {
    fn write(&self) -> Vec<u8>;
    fn add(&mut self, bytes: &[u8]) -> Result<(), NotASketch>;
    fn heap(&self) -> usize;
}

impl Sketch for LatencySketch {
    fn write(&self) -> Vec<u8> {
        self.to_bytes()
    }
    fn add(&mut self, bytes: &[u8]) -> Result<(), NotASketch> {
        self.merge_bytes(bytes)
    }
    fn heap(&self) -> usize {
        self.heap_bytes()
    }
}

impl Sketch for DistinctSketch {
    fn write(&self) -> Vec<u8> {
        self.to_bytes()
    }
    fn add(&mut self, bytes: &[u8]) -> Result<(), NotASketch> {
        self.merge_bytes(bytes)
    }
    fn heap(&self) -> usize {
        self.heap_bytes()
    }
}

/// A sketch per group.
#[derive(Debug)]
struct Groups<S> {
    sketches: Vec<S>,
    add: Add<S>,
    /// Of all sketches. Adding to a sketch changes it by little, so it is counted when it is asked for, not on the way.
    counted: usize,
}

/// Adds the rows of a batch for which the filter holds to the sketches of their groups.
type Add<S> = fn(&mut [S], &[ArrayRef], Rows<'_>) -> Result<()>;

/// Which rows go into which group.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    groups: &'a [usize],
    filter: Option<&'a BooleanArray>,
}

impl Rows<'_> {
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let counts = |row: usize| self.filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        self.groups.iter().copied().enumerate().filter(move |&(row, _)| counts(row))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the other ways of adding fail, and all have one type")]
fn add_latencies(sketches: &mut [LatencySketch], values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
    let values = values[0].as_primitive::<UInt64Type>();
    for (row, group) in rows.iter() {
        if values.is_valid(row) {
            sketches[group].insert(values.value(row));
        }
    }
    Ok(())
}

fn add_values(sketches: &mut [DistinctSketch], values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
    let texts = values.iter().map(Texts::of).collect::<Result<Vec<_>, _>>()?;
    for (row, group) in rows.iter() {
        sketches[group].insert_tuple(texts.iter().map(|texts| texts.at(row).as_bytes()));
    }
    Ok(())
}

fn add_sketches<S: Sketch>(sketches: &mut [S], values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
    let values = values[0].as_binary::<i32>();
    for (row, group) in rows.iter() {
        if values.is_valid(row) {
            sketches[group].add(values.value(row)).map_err(external)?;
        }
    }
    Ok(())
}

fn external(error: NotASketch) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Groups whose kind of sketch is not told.
trait Grouped: GroupsAccumulator + Debug + Sync {
    fn into_groups(self: Box<Self>) -> Box<dyn GroupsAccumulator>;
}

impl<S: Sketch + Sync> Grouped for Groups<S> {
    fn into_groups(self: Box<Self>) -> Box<dyn GroupsAccumulator> {
        self
    }
}

impl<S: Sketch> Groups<S> {
    fn new(add: Add<S>) -> Self {
        Self {
            sketches: Vec::new(),
            add,
            counted: 0,
        }
    }

    fn with(&mut self, total: usize, add: Add<S>, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.sketches.resize_with(total.max(self.sketches.len()), S::default);
        add(&mut self.sketches, values, rows)?;
        self.counted = self.sketches.capacity() * size_of::<S>() + self.sketches.iter().map(S::heap).sum::<usize>();
        Ok(())
    }
}

impl<S: Sketch> GroupsAccumulator for Groups<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.with(total, self.add, values, Rows { groups, filter })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sketches = emit_to.take_needed(&mut self.sketches);
        Ok(Arc::new(BinaryArray::from_iter_values(sketches.iter().map(S::write))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.with(total, add_sketches, values, Rows { groups, filter: None })
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let Some(first) = values.first() else {
            return exec_err!("a sketch needs a column");
        };
        let groups: Vec<usize> = (0..first.len()).collect();
        let mut own = Self::new(self.add);
        own.update_batch(values, &groups, filter, groups.len())?;
        own.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.counted
    }
}

/// All rows as one group.
#[derive(Debug)]
struct Single(Box<dyn Grouped>);

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, Array::len);
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sketch = self.0.evaluate(EmitTo::All)?;
        // Without a row there is no group yet.
        if sketch.is_empty() {
            Ok(ScalarValue::Binary(None))
        } else {
            ScalarValue::try_from_array(&sketch, 0)
        }
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, Array::len);
        self.0.merge_batch(states, &vec![0; rows], 1)
    }
}

/// What a function reads from a sketch or an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Read {
    LatencyAt,
    DistinctCount,
    UuidText,
    HexText,
}

impl Read {
    fn signature(self) -> Signature {
        let types = match self {
            Self::LatencyAt => TypeSignature::Exact(vec![DataType::Binary, DataType::Float64]),
            Self::DistinctCount => TypeSignature::Exact(vec![DataType::Binary]),
            Self::UuidText | Self::HexText => TypeSignature::Any(1),
        };
        Signature::new(types, Volatility::Immutable)
    }
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Reading {
    read: Read,
    signature: Signature,
}

impl Reading {
    fn function(read: Read) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self {
            read,
            signature: read.signature(),
        }))
    }
}

impl ScalarUDFImpl for Reading {
    fn name(&self) -> &str {
        match self.read {
            Read::LatencyAt => "latency_at",
            Read::DistinctCount => "distinct_count",
            Read::UuidText => "uuid_text",
            Read::HexText => "hex_text",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.read {
            Read::LatencyAt | Read::DistinctCount => DataType::UInt64,
            Read::UuidText | Read::HexText => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        if let Read::UuidText | Read::HexText = self.read {
            return Ok(ColumnarValue::Array(Arc::new(id_texts(&arrays[0], self.read)?)));
        }
        let sketches = arrays[0].as_binary::<i32>().iter();
        let numbers: Vec<Option<u64>> = if self.read == Read::DistinctCount {
            sketches
                .map(|bytes| {
                    bytes
                        .map(|bytes| DistinctSketch::from_bytes(bytes).map(|sketch| sketch.estimate()))
                        .transpose()
                        .map_err(external)
                })
                .collect::<Result<_>>()?
        } else {
            let quantiles = arrays[1].as_primitive::<Float64Type>().iter();
            sketches
                .zip(quantiles)
                .map(|(bytes, quantile)| {
                    let Some((bytes, quantile)) = bytes.zip(quantile) else {
                        return Ok(None);
                    };
                    Ok(LatencySketch::from_bytes(bytes).map_err(external)?.quantile(quantile))
                })
                .collect::<Result<_>>()?
        };
        Ok(ColumnarValue::Array(Arc::new(UInt64Array::from(numbers))))
    }
}

fn hex_of(id: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    id.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn id_texts(ids: &ArrayRef, read: Read) -> Result<StringArray> {
    let Some(ids) = ids.as_fixed_size_binary_opt() else {
        return exec_err!("an id has a fixed size");
    };
    let text = |id: &[u8]| match (read, <[u8; 16]>::try_from(id)) {
        (Read::UuidText, Ok(id)) => domain::EventId::from_bytes(id).to_string(),
        _ => hex_of(id),
    };
    Ok(ids.iter().map(|id| id.map(text)).collect())
}
