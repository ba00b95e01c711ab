//! Rollups: what calls add up to, per hour or UTC day and key.
//!
//! Rows of equal key may stand in several files and in memory: whoever asks adds them up, and sketches merge. Sums and sketches
//! do not depend on the order of adding, so a rollup says exactly what its events say.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use arrow::error::ArrowError;
use domain::{Decision, Outcome, Timestamp};

use super::convert::names;
use super::names::Ranks;
use super::schema::{CALL_KEYS, LAST_SEEN, LATENCY, ROLLUP_SUMS, Table};
use crate::query::counts;
use crate::sketch::{DistinctSketch, LatencySketch};

/// Columns of events that rollups are made of.
pub(super) const COLUMNS: [&str; 15] = [
    "timestamp",
    "namespace",
    "server",
    "team_id",
    "tool_name",
    "rpc_method",
    "event_type",
    "outcome",
    "decision",
    "human_id",
    "agent_id",
    "session_id",
    "latency_us",
    "bytes_in",
    "bytes_out",
];

/// Ranks of the key columns, in their order; what a table has fewer of is 0.
type Key = [u32; CALL_KEYS.len()];

#[derive(Debug)]
struct Sums {
    counts: [u64; ROLLUP_SUMS.len()],
    latency: LatencySketch,
    distinct: Vec<DistinctSketch>,
    last_seen: i64,
}

/// Groups of one step, with the names of their keys.
struct Groups {
    table: Table,
    keys: Vec<Ranks>,
    sums: HashMap<(i64, Key), Sums>,
}

/// Rolls up those `rows` of a batch of events.
pub(super) fn roll(events: &RecordBatch, rows: impl Iterator<Item = usize>, table: Table) -> Result<RecordBatch, ArrowError> {
    let step = table.step().unwrap_or_default();
    let mut groups = Groups::of(events, table)?;
    let input = Input::of(events)?;
    let outcomes: Vec<_> = words(&input.outcome, Outcome::parse);
    let decisions: Vec<_> = words(&input.decision, Decision::parse);
    for row in rows {
        let at = input.timestamp.value(row);
        let key = groups.key(row);
        let (allowed, denied, failed) = counts(
            decisions[input.decision.rank(row) as usize],
            outcomes[input.outcome.rank(row) as usize],
        );
        let sums = groups.entry(Timestamp::from_nanos(at).floor(step).nanos(), key);
        let count = |array: &UInt64Array| if array.is_valid(row) { array.value(row) } else { 0 };
        let added = [
            1,
            u64::from(allowed),
            u64::from(denied),
            u64::from(failed),
            count(input.bytes_in),
            count(input.bytes_out),
        ];
        for (sum, more) in sums.counts.iter_mut().zip(added) {
            *sum = sum.saturating_add(more);
        }
        if input.latency.is_valid(row) {
            sums.latency.insert(input.latency.value(row));
        }
        let (human, agent) = (input.human.text_of(row).as_bytes(), input.agent.text_of(row).as_bytes());
        match sums.distinct.as_mut_slice() {
            [callers] => callers.insert_tuple([human, agent]),
            [humans, agents, sessions] => {
                humans.insert(human);
                agents.insert(agent);
                if input.session.is_valid(row) {
                    sessions.insert(input.session.value(row).as_bytes());
                }
            }
            _ => {}
        }
        sums.last_seen = sums.last_seen.max(at);
    }
    groups.into_batch()
}

/// Adds up rollup rows of equal bucket and key.
pub(super) fn merge(rollup: &RecordBatch, table: Table) -> Result<RecordBatch, ArrowError> {
    let mut groups = Groups::of(rollup, table)?;
    let lacks = || ArrowError::SchemaError("the rows are no rollup".to_owned());
    let column = |name: &str| rollup.column_by_name(name).ok_or_else(lacks);
    let binary = |name: &str| column(name)?.as_binary_opt::<i32>().ok_or_else(lacks);
    let bucket = column("bucket")?.as_primitive::<TimestampNanosecondType>();
    let last_seen = column(LAST_SEEN)?.as_primitive::<TimestampNanosecondType>();
    let sums: Vec<_> = ROLLUP_SUMS
        .iter()
        .map(|name| Ok(column(name)?.as_primitive::<UInt64Type>()))
        .collect::<Result<_, ArrowError>>()?;
    let latency = binary(LATENCY)?;
    let distinct: Vec<_> = table
        .distincts()
        .iter()
        .map(|name| binary(name))
        .collect::<Result<_, ArrowError>>()?;
    let damaged = |error: crate::sketch::NotASketch| ArrowError::ExternalError(Box::new(error));
    for row in 0..rollup.num_rows() {
        let key = groups.key(row);
        let into = groups.entry(bucket.value(row), key);
        for (sum, more) in into.counts.iter_mut().zip(&sums) {
            *sum = sum.saturating_add(more.value(row));
        }
        into.latency.merge_bytes(latency.value(row)).map_err(damaged)?;
        for (sketch, more) in into.distinct.iter_mut().zip(&distinct) {
            sketch.merge_bytes(more.value(row)).map_err(damaged)?;
        }
        into.last_seen = into.last_seen.max(last_seen.value(row));
    }
    groups.into_batch()
}

impl Groups {
    fn of(batch: &RecordBatch, table: Table) -> Result<Self, ArrowError> {
        let keys = table
            .keys()
            .iter()
            .map(|name| Ranks::of(batch, name))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            table,
            keys,
            sums: HashMap::new(),
        })
    }

    fn key(&self, row: usize) -> Key {
        std::array::from_fn(|column| self.keys.get(column).map_or(0, |ranks| ranks.rank(row)))
    }

    fn entry(&mut self, bucket: i64, key: Key) -> &mut Sums {
        let distincts = self.table.distincts().len();
        self.sums.entry((bucket, key)).or_insert_with(|| Sums {
            counts: [0; ROLLUP_SUMS.len()],
            latency: LatencySketch::default(),
            distinct: vec![DistinctSketch::default(); distincts],
            last_seen: i64::MIN,
        })
    }

    /// The groups as rows, in order of namespace, bucket and the other keys.
    fn into_batch(self) -> Result<RecordBatch, ArrowError> {
        let mut rows: Vec<_> = self.sums.into_iter().collect();
        rows.sort_unstable_by_key(|((bucket, key), _)| (key[0], *bucket, *key));
        let time = |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(values).with_timezone("+00:00")) };
        let mut columns = vec![time(rows.iter().map(|((bucket, _), _)| *bucket).collect())];
        for (at, ranks) in self.keys.iter().enumerate() {
            columns.push(names(rows.iter().map(|((_, key), _)| ranks.text(key[at]))));
        }
        for at in 0..ROLLUP_SUMS.len() {
            columns.push(Arc::new(UInt64Array::from_iter_values(
                rows.iter().map(|(_, sums)| sums.counts[at]),
            )));
        }
        columns.push(Arc::new(BinaryArray::from_iter_values(
            rows.iter().map(|(_, sums)| sums.latency.to_bytes()),
        )));
        for at in 0..self.table.distincts().len() {
            columns.push(Arc::new(BinaryArray::from_iter_values(
                rows.iter().map(|(_, sums)| sums.distinct[at].to_bytes()),
            )));
        }
        columns.push(time(rows.iter().map(|(_, sums)| sums.last_seen).collect()));
        RecordBatch::try_new(Arc::clone(self.table.schema()), columns)
    }
}

/// What rollups need of events besides the keys.
struct Input<'a> {
    timestamp: &'a TimestampNanosecondArray,
    bytes_in: &'a UInt64Array,
    bytes_out: &'a UInt64Array,
    latency: &'a UInt64Array,
    session: &'a StringArray,
    outcome: Ranks,
    decision: Ranks,
    human: Ranks,
    agent: Ranks,
}

impl<'a> Input<'a> {
    fn of(events: &'a RecordBatch) -> Result<Self, ArrowError> {
        let column = |name: &str| {
            events
                .column_by_name(name)
                .ok_or_else(|| ArrowError::SchemaError(format!("the rows lack the column {name}")))
        };
        Ok(Self {
            timestamp: column("timestamp")?.as_primitive(),
            bytes_in: column("bytes_in")?.as_primitive(),
            bytes_out: column("bytes_out")?.as_primitive(),
            latency: column("latency_us")?.as_primitive(),
            session: column("session_id")?.as_string(),
            outcome: Ranks::of(events, "outcome")?,
            decision: Ranks::of(events, "decision")?,
            human: Ranks::of(events, "human_id")?,
            agent: Ranks::of(events, "agent_id")?,
        })
    }
}

fn words<T>(ranks: &Ranks, parse: impl Fn(&str) -> Option<T>) -> Vec<Option<T>> {
    (0..ranks.len()).map(|rank| ranks.text(rank).and_then(&parse)).collect()
}
