//! Counting: a [`Grouping`] of a filter, from rollups where both touch only what rollups keep, from events otherwise.
//!
//! A window is cut into whole days (from the daily rollup), whole hours (hourly) and what remains at the edges (events). Each part
//! is counted by one query; the parts merge as sketches do, so the cut never shows in an answer.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::expr_fn::{count, max, sum};
use datafusion::logical_expr::{Expr, ExprFunctionExt as _, ExprSchemable as _, lit, when};
use datafusion::prelude::{SessionContext, cast as cast_to, ident};
use domain::analytics::Served;
use domain::{Decision, Kind, Outcome, Timestamp};
use futures::TryStreamExt as _;

use super::{Tables, fault, udaf};
use crate::QueryError;
use crate::memory::tally::{Distinct, Grouping, REST, Tallies, Tally};
use crate::memory::terms::{Condition, Field, Terms, Wanted};
use crate::parquet::schema::{LAST_SEEN, LATENCY, ROLLUP_KEYS, Table};
use crate::sketch::{DistinctSketch, LatencySketch};

/// Most groups of one question.
const GROUPS_MAX: usize = 1_000_000;
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// From `.0` up to, not including, `.1`; open ends have no bound.
type Part = (Option<Timestamp>, Option<Timestamp>);

/// Counts what a grouping asks for; also tells the coarsest table that was used.
pub(super) async fn tally(
    context: &SessionContext,
    tables: &dyn Tables,
    terms: &Terms,
    grouping: &Grouping,
) -> Result<(Tallies, Served), QueryError> {
    let mut tallies = Tallies::new();
    let mut served = Served::Raw;
    for (table, parts) in cut(terms, grouping) {
        served = match (served, table) {
            (Served::Daily, _) | (_, Table::Daily) => Served::Daily,
            (Served::Hourly, _) | (_, Table::Hourly) => Served::Hourly,
            (Served::Raw, Table::Events) => Served::Raw,
        };
        add(context, tables, terms, grouping, table, &parts, &mut tallies).await?;
    }
    Ok((tallies, served))
}

/// Which parts of the window to read from which table.
fn cut(terms: &Terms, grouping: &Grouping) -> Vec<(Table, Vec<Part>)> {
    let (since, until) = (terms.since, terms.until);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Vec::new();
    }
    let Some(finest) = coarsest_step(terms, grouping) else {
        return vec![(Table::Events, vec![(since, until)])];
    };
    let hours = inner(since, until, HOUR);
    let days = if finest == DAY {
        hours.and_then(|(since, until)| inner(since, until, DAY))
    } else {
        None
    };
    let Some(hours) = hours else {
        return vec![(Table::Events, vec![(since, until)])];
    };
    let mut tables = vec![(Table::Events, around((since, until), hours))];
    match days {
        Some(days) => tables.extend([(Table::Hourly, around(hours, days)), (Table::Daily, vec![days])]),
        None => tables.push((Table::Hourly, vec![hours])),
    }
    tables.retain(|(_, parts)| !parts.is_empty());
    tables
}

/// The coarsest rollup that can answer; `None` when only events can.
fn coarsest_step(terms: &Terms, grouping: &Grouping) -> Option<Duration> {
    let kept = |field: Field| ROLLUP_KEYS.contains(&field.name());
    let answers = terms.conditions.iter().all(|condition| kept(condition.field)) && grouping.keys.iter().all(|&key| kept(key));
    let whole = |of: Duration| grouping.step.is_none_or(|step| step.as_nanos().is_multiple_of(of.as_nanos()));
    [DAY, HOUR].into_iter().find(|&of| answers && whole(of))
}

/// The whole steps within a window; `None` when there is none.
fn inner(since: Option<Timestamp>, until: Option<Timestamp>, step: Duration) -> Option<Part> {
    let since = since.map(|since| {
        if since.floor(step) == since {
            since
        } else {
            since.floor(step).plus(step)
        }
    });
    let until = until.map(|until| until.floor(step));
    (since.zip(until).is_none_or(|(since, until)| since < until)).then_some((since, until))
}

/// What a window has before and after an inner one.
fn around(outer: Part, inner: Part) -> Vec<Part> {
    let parts = [(outer.0, inner.0), (inner.1, outer.1)];
    // Where both are open there is nothing between them.
    parts
        .into_iter()
        .filter(|(since, until)| since.zip(*until).is_some_and(|(since, until)| since < until))
        .collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "all of them change from call to call but the first three"
)]
async fn add(
    context: &SessionContext,
    tables: &dyn Tables,
    terms: &Terms,
    grouping: &Grouping,
    table: Table,
    parts: &[Part],
    into: &mut Tallies,
) -> Result<(), QueryError> {
    let rows = context.read_table(tables.table(table, &terms.scope)).map_err(fault)?;
    let mut wanted = conditions(&terms.conditions).and(times(table, parts));
    if grouping.tools_only {
        wanted = wanted.and(ident("tool_name").not_eq(lit("")));
    }
    let schema = rows.schema().clone();
    let mut keys = Vec::new();
    if let Some(step) = grouping.step {
        keys.push(step_of(table, step).alias("step"));
    }
    for (at, key) in grouping.keys.iter().enumerate() {
        let text = cast_to(ident(key.name()), DataType::Utf8);
        let key = match &grouping.keep {
            None => ident(key.name()),
            Some(keep) => kept(&text, keep).map_err(fault)?,
        };
        // Groups by what is there: an absent value and an empty text become one when they are read.
        debug_assert!(key.get_type(&schema).is_ok());
        keys.push(key.alias(format!("key{at}")));
    }
    let counted = rows
        .filter(wanted)
        .and_then(|rows| rows.aggregate(keys, sums(table, grouping)?))
        .map_err(fault)?;
    let mut batches = counted.execute_stream().await.map_err(fault)?;
    while let Some(batch) = batches.try_next().await.map_err(fault)? {
        read(&batch, grouping, into).map_err(fault)?;
        if into.len() > GROUPS_MAX {
            let text = format!("the answer has more than {GROUPS_MAX} groups; narrow the time range or the filters");
            return Err(QueryError::OverLimit(text));
        }
    }
    Ok(())
}

/// The key when it is kept, the common one otherwise.
fn kept(text: &Expr, keep: &[String]) -> Result<Expr, DataFusionError> {
    let text = when(text.clone().is_null(), lit("")).otherwise(text.clone())?;
    if keep.is_empty() {
        return Ok(lit(REST));
    }
    when(
        text.clone()
            .in_list(keep.iter().map(|key| lit(key.as_str())).collect(), false),
        text,
    )
    .otherwise(lit(REST))
}

/// Conditions of a filter as one expression.
pub(super) fn conditions(conditions: &[Condition]) -> Expr {
    conditions.iter().map(condition).fold(lit(true), Expr::and)
}

fn condition(condition: &Condition) -> Expr {
    let column = || ident(condition.field.name());
    let text = match condition.field {
        Field::Column(column) => matches!(column.kind, Kind::Name | Kind::Text),
        Field::Source | Field::EventType => true,
        Field::TraceId | Field::Id => false,
    };
    let one = |wanted: &Wanted| match wanted {
        Wanted::Absent if text => column().is_null().or(column().eq(lit(""))),
        Wanted::Absent => column().is_null(),
        Wanted::Text(text) => column().eq(lit(text.as_str())),
        Wanted::Count(count) => column().eq(lit(*count)),
        Wanted::Code(code) => column().eq(lit(*code)),
        Wanted::Trace(trace) => column().eq(lit(ScalarValue::FixedSizeBinary(16, Some(trace.as_bytes().to_vec())))),
        Wanted::Id(id) => column().eq(lit(ScalarValue::FixedSizeBinary(16, Some(id.as_bytes().to_vec())))),
    };
    condition
        .wanted
        .iter()
        .map(one)
        .reduce(Expr::or)
        .unwrap_or_else(|| lit(false))
}

/// A point in time as a literal of the tables' type.
pub(super) fn time(at: Timestamp) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(at.nanos()), Some("+00:00".into())))
}

/// Rows of which the time lies in one of the parts.
pub(super) fn times(table: Table, parts: &[Part]) -> Expr {
    let column = || ident(table.time_column());
    let within = |&(since, until): &Part| {
        let since = since.map_or_else(|| lit(true), |since| column().gt_eq(time(since)));
        since.and(until.map_or_else(|| lit(true), |until| column().lt(time(until))))
    };
    parts.iter().map(within).reduce(Expr::or).unwrap_or_else(|| lit(false))
}

/// The start of a row's step, in nanoseconds.
fn step_of(table: Table, step: Duration) -> Expr {
    let step = || lit(i64::try_from(step.as_nanos()).unwrap_or(i64::MAX));
    let at = || cast_to(ident(table.time_column()), DataType::Int64);
    // The remainder of a negative number is negative, hence twice.
    at() - (at() % step() + step()) % step()
}

/// The sums of a tally, each under its name.
fn sums(table: Table, grouping: &Grouping) -> Result<Vec<Expr>, DataFusionError> {
    let mut sums = match table {
        Table::Events => raw_sums()?,
        Table::Hourly | Table::Daily => ["events", "allowed", "denied", "errors", "bytes_in", "bytes_out"]
            .map(|name| sum(ident(name)).alias(name))
            .into_iter()
            .chain([max(ident(LAST_SEEN)).alias(LAST_SEEN)])
            .collect(),
    };
    if grouping.latencies {
        let latency = if table == Table::Events {
            udaf::latency_sketch().call(vec![ident("latency_us")])
        } else {
            udaf::sketch_merge().call(vec![ident(LATENCY)])
        };
        sums.push(latency.alias(LATENCY));
    }
    for (at, distinct) in grouping.distinct.iter().enumerate() {
        sums.push(distinct_of(table, *distinct)?.alias(format!("distinct{at}")));
    }
    Ok(sums)
}

/// What `query::counts` says, for the engine.
fn raw_sums() -> Result<Vec<Expr>, DataFusionError> {
    let outcome = |outcome: Outcome| ident("outcome").eq(lit(outcome.as_str()));
    let decision = |decision: Decision| ident("decision").eq(lit(decision.as_str()));
    let denied = outcome(Outcome::Denied).or(ident("outcome").is_null().and(decision(Decision::Deny)));
    let errors = Outcome::ALL
        .iter()
        .filter(|outcome| outcome.is_error())
        .map(|&error| outcome(error))
        .reduce(Expr::or);
    let rows = || count(lit(1_i64));
    Ok(vec![
        rows().alias("events"),
        rows().filter(decision(Decision::Allow)).build()?.alias("allowed"),
        rows().filter(denied).build()?.alias("denied"),
        rows().filter(errors.unwrap_or_else(|| lit(false))).build()?.alias("errors"),
        sum(ident("bytes_in")).alias("bytes_in"),
        sum(ident("bytes_out")).alias("bytes_out"),
        max(ident("timestamp")).alias(LAST_SEEN),
    ])
}

fn distinct_of(table: Table, distinct: Distinct) -> Result<Expr, DataFusionError> {
    let kept = match (table, distinct) {
        (Table::Events, _) | (_, Distinct::Servers | Distinct::Tools) => None,
        (_, Distinct::Humans) => Some("humans"),
        (_, Distinct::Agents) => Some("agents"),
        (_, Distinct::Sessions) => Some("sessions"),
        (_, Distinct::Callers) => Some("callers"),
    };
    if let Some(kept) = kept {
        return Ok(udaf::distinct_merge().call(vec![ident(kept)]));
    }
    let sketch = udaf::distinct_sketch().call(distinct.columns().iter().map(|name| ident(*name)).collect());
    if distinct == Distinct::Tools {
        sketch.filter(ident("tool_name").not_eq(lit(""))).build()
    } else {
        Ok(sketch)
    }
}

/// Adds the groups of a batch.
fn read(batch: &RecordBatch, grouping: &Grouping, into: &mut Tallies) -> Result<(), DataFusionError> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| DataFusionError::Internal(format!("the answer lacks {name}")))
    };
    let number = |name: &str| Ok::<_, DataFusionError>(cast(column(name)?, &DataType::UInt64)?);
    let counts: Vec<ArrayRef> = ["events", "allowed", "denied", "errors", "bytes_in", "bytes_out"]
        .into_iter()
        .map(number)
        .collect::<Result<_, _>>()?;
    let keys: Vec<ArrayRef> = (0..grouping.keys.len())
        .map(|at| Ok(cast(column(&format!("key{at}"))?, &DataType::Utf8)?))
        .collect::<Result<_, DataFusionError>>()?;
    let steps = grouping.step.map(|_| column("step")).transpose()?;
    let latency = grouping.latencies.then(|| column(LATENCY)).transpose()?;
    let distinct: Vec<&ArrayRef> = (0..grouping.distinct.len())
        .map(|at| column(&format!("distinct{at}")))
        .collect::<Result<_, _>>()?;
    let last_seen = column(LAST_SEEN)?.as_primitive::<TimestampNanosecondType>();
    let damaged = |error| DataFusionError::External(Box::new(error));
    for row in 0..batch.num_rows() {
        let count = |at: usize| {
            let counts = counts[at].as_primitive::<UInt64Type>();
            if counts.is_valid(row) { counts.value(row) } else { 0 }
        };
        if count(0) == 0 {
            continue;
        }
        let key = |array: &ArrayRef| {
            if array.is_valid(row) {
                array.as_string::<i32>().value(row).to_owned()
            } else {
                String::new()
            }
        };
        let step = steps.map_or(Timestamp::default(), |steps| {
            Timestamp::from_nanos(steps.as_primitive::<Int64Type>().value(row))
        });
        let bytes = |array: &ArrayRef| array.is_valid(row).then(|| array.as_binary::<i32>().value(row).to_vec());
        let sketch =
            |array: &ArrayRef| bytes(array).map_or(Ok(DistinctSketch::default()), |bytes| DistinctSketch::from_bytes(&bytes));
        let tally = Tally {
            events: count(0),
            allowed: count(1),
            denied: count(2),
            errors: count(3),
            bytes_in: count(4),
            bytes_out: count(5),
            latency: latency
                .and_then(bytes)
                .map_or(Ok(LatencySketch::default()), |bytes| LatencySketch::from_bytes(&bytes))
                .map_err(damaged)?,
            distinct: distinct
                .iter()
                .map(|array| sketch(array))
                .collect::<Result<_, _>>()
                .map_err(damaged)?,
            last_seen: Timestamp::from_nanos(last_seen.value(row)),
        };
        into.entry((step, keys.iter().map(key).collect())).or_default().merge(&tally);
    }
    Ok(())
}

/// Everything one question is asked with.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) context: SessionContext,
    pub(super) tables: Arc<dyn Tables>,
}

impl Asking {
    pub(super) async fn tally(&self, terms: &Terms, grouping: Grouping, served: &mut Served) -> Result<Tallies, QueryError> {
        let (tallies, from) = tally(&self.context, &*self.tables, terms, &grouping).await?;
        // The coarsest of all: "daily" says that edges came from finer forms.
        *served = match (*served, from) {
            (Served::Daily, _) | (_, Served::Daily) => Served::Daily,
            (Served::Hourly, _) | (_, Served::Hourly) => Served::Hourly,
            (Served::Raw, Served::Raw) => Served::Raw,
        };
        Ok(tallies)
    }
}
