//! Counting: groupings of a filter, each from the coarsest rollup that keeps what it touches, from events otherwise.
//!
//! A window is cut into whole days (from a daily rollup), whole hours (hourly) and what remains at the edges (events). What several
//! groupings need of one part of one table is read once. Parts merge as sketches do, so the cut never shows in an answer; and what
//! files of days gone by add up to is remembered, since neither those files nor the question of a dashboard change.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::prelude::{SessionContext, ident};
use domain::analytics::Served;
use domain::{Kind, Timestamp};
use futures::TryStreamExt as _;
use tokio::task::JoinSet;

use super::cache::Cache;
use super::count::Counter;
use super::rows::{Needed, Rows, can_count};
use super::{Part, Piece, Tables, fault};
use crate::QueryError;
use crate::memory::grouping::Grouping;
use crate::memory::tally::Tallies;
use crate::memory::terms::{Condition, Field, Terms, Wanted};
use crate::parquet::schema::Table;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Rollups by hour and by day, those with fewest rows first.
const ROLLUPS: [(Table, Table); 2] = [(Table::ServersHourly, Table::ServersDaily), (Table::Hourly, Table::Daily)];
/// Rows between two looks at how much memory counting takes.
const WEIGH_ROWS: usize = 1 << 16;

/// Everything one question is asked with.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) context: SessionContext,
    pub(super) tables: Arc<dyn Tables>,
    pub(super) cache: Arc<Cache>,
    /// Groups beyond which the busiest are found in two passes.
    pub(super) groups_max: usize,
}

/// A part of a table, and which of the groupings need it.
#[derive(Debug)]
struct Job {
    table: Table,
    parts: Vec<Part>,
    groupings: Vec<usize>,
}

impl Asking {
    /// Counts groupings, of each at most so many groups; also tells the coarsest table that was used for each.
    pub(super) async fn count(
        &self,
        terms: &Terms,
        wanted: Vec<(Grouping, u32)>,
    ) -> Result<Vec<(Tallies, Served)>, QueryError> {
        let cuts: Vec<_> = wanted.iter().map(|(grouping, _)| cut(terms, grouping)).collect();
        let served: Vec<Served> = cuts.iter().map(|cut| coarsest(cut)).collect();
        let mut jobs: Vec<Job> = Vec::new();
        for (at, cut) in cuts.into_iter().enumerate() {
            for (table, parts) in cut {
                match jobs.iter_mut().find(|job| job.table == table && job.parts == parts) {
                    Some(job) => job.groupings.push(at),
                    None => jobs.push(Job {
                        table,
                        parts,
                        groupings: vec![at],
                    }),
                }
            }
        }
        let empty = wanted
            .into_iter()
            .map(|(grouping, most)| {
                // Where all groups are of interest none can be left out, and memory is the bound.
                let groups_max = if most == u32::MAX { usize::MAX } else { self.groups_max };
                Counter::new(grouping, most, groups_max)
            })
            .collect();
        let mut counters = self.pass(terms, &jobs, empty).await?;
        if !counters.iter().all(Counter::is_exact) {
            for job in &mut jobs {
                job.groupings.retain(|at| !counters[*at].is_exact());
            }
            let candidates = counters.iter().map(|counter| {
                if counter.is_exact() {
                    return Ok(counter.clone());
                }
                counter.candidates().ok_or_else(|| {
                    let text =
                        "there are too many groups of like size to tell the busiest; narrow the time range or the filters";
                    QueryError::OverLimit(text.to_owned())
                })
            });
            let candidates = candidates.collect::<Result<_, _>>()?;
            counters = self.pass(terms, &jobs, candidates).await?;
        }
        let tallies = counters.into_iter().zip(served);
        Ok(tallies.map(|(counter, served)| (counter.into_tallies(), served)).collect())
    }

    /// Does all jobs, each grouping's into a counter like the one given.
    async fn pass(&self, terms: &Terms, jobs: &[Job], mut counters: Vec<Counter>) -> Result<Vec<Counter>, QueryError> {
        let jobs = jobs.iter().filter(|job| !job.groupings.is_empty());
        let done = jobs.map(|job| self.work(terms, job, &counters));
        let done = futures::future::try_join_all(done).await.map_err(fault)?;
        for (at, counter) in done.into_iter().flatten() {
            match Arc::try_unwrap(counter) {
                Ok(counter) if counters[at].is_empty() => counters[at] = counter,
                Ok(counter) => counters[at].merge(&counter),
                Err(counter) => counters[at].merge(&counter),
            }
        }
        Ok(counters)
    }

    /// One grouping, all of its groups.
    pub(super) async fn tally(&self, terms: &Terms, grouping: Grouping) -> Result<(Tallies, Served), QueryError> {
        let counted = self.count(terms, vec![(grouping, u32::MAX)]).await?;
        Ok(counted.into_iter().next().unwrap_or((Tallies::new(), Served::Raw)))
    }

    async fn work(&self, terms: &Terms, job: &Job, like: &[Counter]) -> Result<Vec<(usize, Arc<Counter>)>, DataFusionError> {
        let mut done = Vec::new();
        for piece in self.tables.pieces(job.table, &terms.scope, &job.parts) {
            let name = |like: &Counter| {
                let (files, question) = (piece.settled.as_deref()?, like.name()?);
                let (table, parts, scope, conditions) = (job.table, &job.parts, &terms.scope, &terms.conditions);
                Some(format!("{files} {table:?} {parts:?} {scope:?} {conditions:?} {question}"))
            };
            let mut missing = Vec::new();
            for at in &job.groupings {
                match name(&like[*at]).and_then(|name| self.cache.find(&name)) {
                    Some(counter) => done.push((*at, counter)),
                    None => missing.push(*at),
                }
            }
            if missing.is_empty() {
                continue;
            }
            let like: Vec<&Counter> = missing.iter().map(|at| &like[*at]).collect();
            let counters = self.scan(terms, job, &piece, &like).await?;
            for ((at, counter), like) in missing.into_iter().zip(counters).zip(like) {
                let counter = Arc::new(counter);
                if let Some(name) = name(like).filter(|_| counter.is_exact()) {
                    self.cache.keep(name, &counter);
                }
                done.push((at, counter));
            }
        }
        Ok(done)
    }

    async fn scan(&self, terms: &Terms, job: &Job, piece: &Piece, like: &[&Counter]) -> Result<Vec<Counter>, DataFusionError> {
        let groupings = || like.iter().map(|counter| counter.grouping());
        let needed = Arc::new(Needed::of(job.table, groupings()));
        let mut filter = conditions(&terms.conditions).and(times(job.table, &job.parts));
        if groupings().all(|grouping| grouping.tools_only) {
            filter = filter.and(ident("tool_name").not_eq(lit("")));
        }
        let rows = self
            .context
            .read_table(Arc::clone(&piece.rows))?
            .filter(filter)?
            .select(needed.columns().into_iter().map(ident).collect::<Vec<_>>())?;
        let task = Arc::new(rows.task_ctx());
        let plan = rows.create_physical_plan().await?;
        let pool = &self.context.runtime_env().memory_pool;
        let empty = || like.iter().map(|counter| (*counter).clone()).collect::<Vec<_>>();
        let mut parts = JoinSet::new();
        for stream in execute_stream_partitioned(plan, task)? {
            let memory = MemoryConsumer::new("counting").register(pool);
            parts.spawn(count(stream, Arc::clone(&needed), empty(), memory));
        }
        let mut whole: Option<Vec<Counter>> = None;
        while let Some(part) = parts.join_next().await {
            let part = part.map_err(|error| DataFusionError::External(Box::new(error)))??;
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.iter_mut().zip(&part).for_each(|(whole, part)| whole.merge(part)),
            }
        }
        Ok(whole.unwrap_or_else(empty))
    }
}

async fn count(
    mut stream: SendableRecordBatchStream,
    needed: Arc<Needed>,
    mut counters: Vec<Counter>,
    memory: MemoryReservation,
) -> Result<Vec<Counter>, DataFusionError> {
    let mut since = 0;
    while let Some(batch) = stream.try_next().await? {
        let rows = Rows::of(&batch, &needed)?;
        for counter in &mut counters {
            counter.add(&rows)?;
        }
        since += rows.len();
        // Weighing looks at every group, so it may not be done more often than groups can have come.
        if since >= counters.iter().map(Counter::groups).sum::<usize>().max(WEIGH_ROWS) {
            since = 0;
            memory.try_resize(counters.iter().map(Counter::bytes).sum())?;
        }
    }
    counters.iter_mut().for_each(Counter::finish);
    Ok(counters)
}

/// The coarsest of all: "daily" says that edges came from finer forms.
fn coarsest(cut: &[(Table, Vec<Part>)]) -> Served {
    let steps = cut.iter().filter_map(|(table, _)| table.step());
    match steps.max() {
        None => Served::Raw,
        Some(step) if step < DAY => Served::Hourly,
        Some(_) => Served::Daily,
    }
}

/// The coarsest of two answers.
pub(super) fn coarser(a: Served, b: Served) -> Served {
    match (a, b) {
        (Served::Daily, _) | (_, Served::Daily) => Served::Daily,
        (Served::Hourly, _) | (_, Served::Hourly) => Served::Hourly,
        (Served::Raw, Served::Raw) => Served::Raw,
    }
}

/// Which parts of the window to read from which table.
fn cut(terms: &Terms, grouping: &Grouping) -> Vec<(Table, Vec<Part>)> {
    let (since, until) = (terms.since, terms.until);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Vec::new();
    }
    let whole = |of: Duration| grouping.step.is_none_or(|step| step.as_nanos().is_multiple_of(of.as_nanos()));
    let rollups = ROLLUPS.into_iter().find(|(hourly, _)| answers(*hourly, terms, grouping));
    let Some((hourly, daily)) = rollups.filter(|_| whole(HOUR)) else {
        return vec![(Table::Events, vec![(since, until)])];
    };
    let Some(hours) = inner(since, until, HOUR) else {
        return vec![(Table::Events, vec![(since, until)])];
    };
    let mut tables = vec![(Table::Events, around((since, until), hours))];
    match inner(hours.0, hours.1, DAY).filter(|_| whole(DAY)) {
        Some(days) => tables.extend([(hourly, around(hours, days)), (daily, vec![days])]),
        None => tables.push((hourly, vec![hours])),
    }
    tables.retain(|(_, parts)| !parts.is_empty());
    tables
}

/// Whether a rollup keeps everything that a question touches.
fn answers(rollup: Table, terms: &Terms, grouping: &Grouping) -> bool {
    let kept = |field: Field| rollup.keys().contains(&field.name());
    terms.conditions.iter().all(|condition| kept(condition.field))
        && grouping.keys.iter().all(|&key| kept(key))
        && grouping.distinct.iter().all(|distinct| can_count(rollup, *distinct))
        && (!grouping.tools_only || rollup.keys().contains(&"tool_name"))
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
