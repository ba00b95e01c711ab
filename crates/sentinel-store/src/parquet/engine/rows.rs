//! A batch of a scan as counting looks at it: events and rollup rows answer the same few questions.

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use datafusion::error::DataFusionError;
use domain::{Decision, Outcome};

use super::count::Sums;
use super::texts::Texts;
use crate::memory::grouping::{Distinct, Grouping};
use crate::parquet::schema::{LAST_SEEN, LATENCY, ROLLUP_SUMS, Table};
use crate::query::counts;
use crate::sketch::{DistinctSketch, LatencySketch, NotASketch};

/// What groupings need of a table.
#[derive(Debug, Clone)]
pub(super) struct Needed {
    table: Table,
    texts: Vec<&'static str>,
    distincts: Vec<Distinct>,
    latencies: bool,
}

impl Needed {
    pub(super) fn of<'a>(table: Table, groupings: impl Iterator<Item = &'a Grouping>) -> Self {
        let mut needed = Self {
            table,
            texts: Vec::new(),
            distincts: Vec::new(),
            latencies: false,
        };
        let mut texts = Vec::new();
        for grouping in groupings {
            needed.latencies |= grouping.latencies;
            texts.extend(grouping.keys.iter().map(|key| key.name()));
            texts.extend(grouping.tools_only.then_some("tool_name"));
            for distinct in grouping.distinct {
                if !needed.distincts.contains(distinct) {
                    needed.distincts.push(*distinct);
                }
                if kept(table, *distinct).is_none() {
                    texts.extend(distinct.columns());
                }
            }
        }
        if table == Table::Events {
            texts.extend(["outcome", "decision"]);
        }
        texts.sort_unstable();
        texts.dedup();
        needed.texts = texts;
        needed
    }

    /// The columns to read, each once.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec![self.table.time_column()];
        columns.extend(&self.texts);
        if self.table == Table::Events {
            columns.extend(["bytes_in", "bytes_out"]);
            columns.extend(self.latencies.then_some("latency_us"));
        } else {
            columns.extend(ROLLUP_SUMS);
            columns.push(LAST_SEEN);
            columns.extend(self.latencies.then_some(LATENCY));
            columns.extend(self.distincts.iter().filter_map(|distinct| kept(self.table, *distinct)));
        }
        columns
    }
}

/// The column of a rollup that has the sketch; `None`: the values themselves are to be counted.
fn kept(table: Table, distinct: Distinct) -> Option<&'static str> {
    let name = match distinct {
        Distinct::Servers | Distinct::Tools => return None,
        Distinct::Humans => "humans",
        Distinct::Agents => "agents",
        Distinct::Sessions => "sessions",
        Distinct::Callers => "callers",
    };
    table.distincts().contains(&name).then_some(name)
}

/// Whether a table can tell how many different values there are.
pub(super) fn can_count(table: Table, distinct: Distinct) -> bool {
    let is_key = |name: &&str| table.keys().contains(name);
    table == Table::Events || kept(table, distinct).is_some() || distinct.columns().iter().all(is_key)
}

/// A batch.
#[derive(Debug)]
pub(super) struct Rows {
    len: usize,
    times: TimestampNanosecondArray,
    texts: Columns,
    distincts: Vec<(Distinct, Values)>,
    counted: Counted,
}

/// The columns of text that were read.
#[derive(Debug)]
struct Columns(Vec<(&'static str, Texts)>);

impl Columns {
    fn named(&self, name: &str) -> Result<&Texts, DataFusionError> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, texts)| texts)
            .ok_or_else(|| DataFusionError::Internal(format!("{name} was not read")))
    }
}

/// What a row counts.
#[derive(Debug)]
enum Counted {
    /// One event.
    Event {
        /// Allowed, denied, failed.
        verdicts: Vec<(bool, bool, bool)>,
        bytes: [UInt64Array; 2],
        latencies: Option<UInt64Array>,
    },
    /// What was added up before.
    Rollup {
        sums: Vec<UInt64Array>,
        last_seen: TimestampNanosecondArray,
        latencies: Option<BinaryArray>,
    },
}

/// Values of which the different ones are counted.
#[derive(Debug)]
pub(super) enum Values {
    /// Hashes; `None`: absent.
    Hashes(Vec<Option<u64>>),
    /// Sketches of values.
    Sketches(BinaryArray),
}

impl Values {
    /// Adds a row's to a sketch.
    pub(super) fn add(&self, row: usize, sketch: &mut DistinctSketch) -> Result<(), DataFusionError> {
        match self {
            Self::Hashes(hashes) => {
                if let Some(hash) = hashes[row] {
                    sketch.insert_hash(hash);
                }
                Ok(())
            }
            Self::Sketches(sketches) if sketches.is_valid(row) => sketch.merge_bytes(sketches.value(row)).map_err(damaged),
            Self::Sketches(_) => Ok(()),
        }
    }
}

fn damaged(error: NotASketch) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl Rows {
    pub(super) fn of(batch: &RecordBatch, needed: &Needed) -> Result<Self, DataFusionError> {
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| DataFusionError::Internal(format!("the rows lack {name}")))
        };
        let times = |name: &str| Ok::<_, DataFusionError>(column(name)?.as_primitive::<TimestampNanosecondType>().clone());
        let numbers = |name: &str| Ok::<_, DataFusionError>(column(name)?.as_primitive::<UInt64Type>().clone());
        let sketches = |name: &str| Ok::<_, DataFusionError>(column(name)?.as_binary::<i32>().clone());
        let texts = needed
            .texts
            .iter()
            .map(|name| Ok((*name, Texts::of(column(name)?)?)))
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        let texts = Columns(texts);
        let counted = if needed.table == Table::Events {
            Counted::Event {
                verdicts: verdicts(&texts)?,
                bytes: [numbers("bytes_in")?, numbers("bytes_out")?],
                latencies: needed.latencies.then(|| numbers("latency_us")).transpose()?,
            }
        } else {
            Counted::Rollup {
                sums: ROLLUP_SUMS.iter().map(|name| numbers(name)).collect::<Result<_, _>>()?,
                last_seen: times(LAST_SEEN)?,
                latencies: needed.latencies.then(|| sketches(LATENCY)).transpose()?,
            }
        };
        let len = batch.num_rows();
        let distinct = |distinct: &Distinct| {
            let values = match kept(needed.table, *distinct) {
                Some(name) => Values::Sketches(sketches(name)?),
                None => Values::Hashes(hashes(&texts, *distinct, len)?),
            };
            Ok((*distinct, values))
        };
        Ok(Self {
            len,
            times: times(needed.table.time_column())?,
            distincts: needed
                .distincts
                .iter()
                .map(distinct)
                .collect::<Result<_, DataFusionError>>()?,
            texts,
            counted,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A row's time in nanoseconds.
    pub(super) fn time(&self, row: usize) -> i64 {
        self.times.value(row)
    }

    pub(super) fn texts(&self, name: &str) -> Result<&Texts, DataFusionError> {
        self.texts.named(name)
    }

    pub(super) fn distinct(&self, distinct: Distinct) -> Result<&Values, DataFusionError> {
        let found = self.distincts.iter().find(|(known, _)| *known == distinct);
        found
            .map(|(_, values)| values)
            .ok_or_else(|| DataFusionError::Internal(format!("{distinct:?} were not read")))
    }

    /// What a row counts.
    pub(super) fn sums(&self, row: usize) -> Sums {
        let number = |array: &UInt64Array| if array.is_valid(row) { array.value(row) } else { 0 };
        match &self.counted {
            Counted::Event { verdicts, bytes, .. } => {
                let (allowed, denied, failed) = verdicts[row];
                let [bytes_in, bytes_out] = bytes.each_ref().map(number);
                Sums {
                    counts: [1, allowed.into(), denied.into(), failed.into(), bytes_in, bytes_out],
                    last_seen: self.time(row),
                }
            }
            Counted::Rollup { sums, last_seen, .. } => Sums {
                counts: std::array::from_fn(|at| sums.get(at).map_or(0, number)),
                last_seen: last_seen.value(row),
            },
        }
    }

    /// Adds a row's latencies to a sketch.
    pub(super) fn add_latency(&self, row: usize, sketch: &mut LatencySketch) -> Result<(), DataFusionError> {
        match &self.counted {
            Counted::Event {
                latencies: Some(latencies),
                ..
            } if latencies.is_valid(row) => sketch.insert(latencies.value(row)),
            Counted::Rollup {
                latencies: Some(latencies),
                ..
            } if latencies.is_valid(row) => sketch.merge_bytes(latencies.value(row)).map_err(damaged)?,
            _ => {}
        }
        Ok(())
    }
}

/// Whether each row is allowed, denied, failed.
fn verdicts(texts: &Columns) -> Result<Vec<(bool, bool, bool)>, DataFusionError> {
    fn words<T: Copy>(texts: &Texts, parse: impl Fn(&str) -> Option<T>) -> Vec<Option<T>> {
        let mut words: Vec<Option<Option<T>>> = vec![None; texts.len()];
        let mut word = |row| {
            let at = texts.place(row)?;
            *words[at].get_or_insert_with(|| parse(texts.text(at)))
        };
        (0..texts.rows()).map(&mut word).collect()
    }
    let outcomes = words(texts.named("outcome")?, Outcome::parse);
    let decisions = words(texts.named("decision")?, Decision::parse);
    let verdict = |(decision, outcome)| counts(decision, outcome);
    Ok(decisions.into_iter().zip(outcomes).map(verdict).collect())
}

fn hashes(texts: &Columns, distinct: Distinct, rows: usize) -> Result<Vec<Option<u64>>, DataFusionError> {
    let columns = distinct
        .columns()
        .iter()
        .map(|name| texts.named(name))
        .collect::<Result<Vec<_>, _>>()?;
    let required = distinct.required().map(|name| texts.named(name)).transpose()?;
    let mut last: Option<(Vec<Option<usize>>, Option<u64>)> = None;
    let mut hash = |row: usize| {
        if required.is_some_and(|texts| texts.place(row).is_none()) {
            return None;
        }
        // Rows of one tool stand together, so what was hashed for the row before often holds.
        let same = |places: &[Option<usize>]| columns.iter().zip(places).all(|(texts, place)| texts.place(row) == *place);
        if let Some((places, hash)) = &last
            && same(places)
        {
            return *hash;
        }
        let hash = DistinctSketch::hash(columns.iter().map(|texts| texts.at(row).as_bytes()));
        let places = last.take().map(|(places, _)| places).unwrap_or_default();
        last = Some((refill(places, columns.iter().map(|texts| texts.place(row))), hash));
        hash
    };
    Ok((0..rows).map(&mut hash).collect())
}

/// The same list with other content, so that none is made per row.
fn refill<T>(mut list: Vec<T>, content: impl Iterator<Item = T>) -> Vec<T> {
    list.clear();
    list.extend(content);
    list
}
