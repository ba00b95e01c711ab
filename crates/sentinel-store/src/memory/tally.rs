//! How counts become answers: shared by every store, so that they can only differ in how they find the events.
//!
//! A store fills [`Tallies`] for a [`Grouping`]: by looking at events one by one, or by merging what it has counted before. The
//! rest (order, most rows, gaps, `other`, percentiles) happens here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use domain::analytics::{
    ActorUsage, CallCounts, DecisionUsage, Series, ServerUsage, ToolRow, ToolUsage, UsageBucket, UsageTotals, ValueCount,
};
use domain::{Event, Timestamp};

use super::grouping::{Grouping, REST, quantile_of};
use crate::QueryError;
use crate::query::{Dimension, Metric, counts};
use crate::sketch::{DistinctSketch, LatencySketch};

/// Most steps of a series.
pub(crate) const STEPS_MAX: u64 = 10_000;
/// The key of the series made of that group.
const OTHER: &str = "other";
/// The key of a series that is not split.
const ALL: &str = "all";
/// The decision of events without one.
const UNKNOWN: &str = "unknown";

/// A group: its step (the epoch when not counted over time) and the texts of its keys, absent ones empty.
pub(crate) type Group = (Timestamp, Vec<String>);

/// Counts of every group that has events.
pub(crate) type Tallies = HashMap<Group, Tally>;

/// Counts of one group. Merging is adding: the order never matters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    pub(crate) errors: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) latency: LatencySketch,
    pub(crate) distinct: Vec<DistinctSketch>,
    pub(crate) last_seen: Timestamp,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            events: 0,
            allowed: 0,
            denied: 0,
            errors: 0,
            bytes_in: 0,
            bytes_out: 0,
            latency: LatencySketch::default(),
            distinct: Vec::new(),
            last_seen: Timestamp::MIN,
        }
    }
}

impl Tally {
    /// Adds everything counted in another of the same grouping.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.errors += other.errors;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.latency.merge(&other.latency);
        self.distinct
            .resize_with(other.distinct.len().max(self.distinct.len()), DistinctSketch::default);
        self.distinct
            .iter_mut()
            .zip(&other.distinct)
            .for_each(|(mine, theirs)| mine.merge(theirs));
        self.last_seen = self.last_seen.max(other.last_seen);
    }

    fn distinct(&self, at: usize) -> u64 {
        self.distinct.get(at).map_or(0, DistinctSketch::estimate)
    }

    fn call_counts(&self) -> CallCounts {
        CallCounts {
            events: self.events,
            allowed: self.allowed,
            denied: self.denied,
            errors: self.errors,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            latency_p50_us: self.latency.quantile(0.5),
            latency_p95_us: self.latency.quantile(0.95),
            latency_p99_us: self.latency.quantile(0.99),
        }
    }
}

/// Counts one event.
pub(crate) fn count(tallies: &mut Tallies, grouping: &Grouping, event: &Event) {
    if grouping.tools_only && event.payload.tool_name.as_deref().unwrap_or_default().is_empty() {
        return;
    }
    let step = grouping.step.map_or(Timestamp::default(), |step| event.timestamp.floor(step));
    let mut keys: Vec<String> = grouping.keys.iter().map(|field| field.text(event)).collect();
    if let (Some(keep), [key]) = (&grouping.keep, keys.as_mut_slice())
        && !keep.contains(key)
    {
        REST.clone_into(key);
    }
    let tally = tallies.entry((step, keys)).or_default();
    let payload = &event.payload;
    let (allowed, denied, error) = counts(payload.decision, payload.outcome);
    tally.events += 1;
    tally.allowed += u64::from(allowed);
    tally.denied += u64::from(denied);
    tally.errors += u64::from(error);
    tally.bytes_in = tally.bytes_in.saturating_add(payload.bytes_in.unwrap_or(0));
    tally.bytes_out = tally.bytes_out.saturating_add(payload.bytes_out.unwrap_or(0));
    if grouping.latencies
        && let Some(latency) = payload.latency_us
    {
        tally.latency.insert(latency);
    }
    tally.distinct.resize_with(grouping.distinct.len(), DistinctSketch::default);
    for (distinct, sketch) in grouping.distinct.iter().zip(&mut tally.distinct) {
        distinct.insert(sketch, event);
    }
    tally.last_seen = tally.last_seen.max(event.timestamp);
}

/// Groups with most events first, those with as many in order of their keys.
fn busiest(tallies: Tallies, limit: u32) -> impl Iterator<Item = (Vec<String>, Tally)> {
    let mut groups: Vec<_> = tallies.into_iter().map(|((_, keys), tally)| (keys, tally)).collect();
    groups.sort_unstable_by(|(a_keys, a), (b_keys, b)| b.events.cmp(&a.events).then_with(|| a_keys.cmp(b_keys)));
    groups.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    groups.into_iter()
}

/// The keys of a group, by name. A store that answers with fewer keys than asked for gives empty ones.
fn named<const N: usize>(keys: Vec<String>) -> [String; N] {
    let mut keys = keys.into_iter();
    std::array::from_fn(|_| keys.next().unwrap_or_default())
}

pub(crate) fn totals(tallies: Tallies) -> UsageTotals {
    let tally = tallies.into_values().next().unwrap_or_default();
    UsageTotals {
        calls: tally.call_counts(),
        unique_servers: tally.distinct(0),
        unique_humans: tally.distinct(1),
        unique_agents: tally.distinct(2),
        unique_sessions: tally.distinct(3),
    }
}

pub(crate) fn servers(tallies: Tallies, limit: u32) -> Vec<ServerUsage> {
    let row = |(keys, tally): (_, Tally)| {
        let [server, namespace, team_id] = named(keys);
        let (calls, unique_humans, unique_agents) = (tally.call_counts(), tally.distinct(0), tally.distinct(1));
        let team_id = (!team_id.is_empty()).then_some(team_id);
        ServerUsage {
            server,
            namespace,
            team_id,
            calls,
            unique_humans,
            unique_agents,
            last_seen: tally.last_seen,
        }
    };
    busiest(tallies, limit).map(row).collect()
}

pub(crate) fn actors(tallies: Tallies, limit: u32) -> Vec<ActorUsage> {
    let row = |(keys, tally): (_, Tally)| {
        let [human_id, agent_id] = named(keys);
        let (unique_servers, unique_tools) = (tally.distinct(0), tally.distinct(1));
        let Tally {
            events,
            denied,
            last_seen,
            ..
        } = tally;
        ActorUsage {
            human_id,
            agent_id,
            events,
            denied,
            unique_servers,
            unique_tools,
            last_seen,
        }
    };
    busiest(tallies, limit).map(row).collect()
}

pub(crate) fn tool_usage(tallies: Tallies, limit: u32) -> Vec<ToolUsage> {
    let row = |(keys, tally): (_, Tally)| {
        let [namespace, server, tool_name, human_id, team_id, agent_id] = named(keys);
        let Tally {
            events,
            denied,
            last_seen,
            ..
        } = tally;
        ToolUsage {
            namespace,
            server,
            tool_name,
            human_id,
            team_id,
            agent_id,
            events,
            denied,
            last_seen,
        }
    };
    busiest(tallies, limit).map(row).collect()
}

pub(crate) fn decisions(tallies: Tallies) -> Vec<DecisionUsage> {
    let row = |(keys, tally): (_, Tally)| {
        let [decision] = named(keys);
        DecisionUsage {
            decision: if decision.is_empty() { UNKNOWN.to_owned() } else { decision },
            events: tally.events,
        }
    };
    busiest(tallies, u32::MAX).map(row).collect()
}

pub(crate) fn usage_series(mut tallies: Tallies, steps: &[Timestamp]) -> Vec<UsageBucket> {
    let bucket = |&bucket: &Timestamp| {
        let Tally {
            events, allowed, denied, ..
        } = tallies.remove(&(bucket, Vec::new())).unwrap_or_default();
        UsageBucket {
            bucket,
            events,
            allowed,
            denied,
        }
    };
    steps.iter().map(bucket).collect()
}

pub(crate) fn values(tallies: Tallies, limit: u32) -> Vec<ValueCount> {
    let row = |(keys, tally): (_, Tally)| {
        let [value] = named(keys);
        ValueCount {
            value,
            count: tally.events,
        }
    };
    busiest(tallies, limit).map(row).collect()
}

/// Tools in a window, with `before` counted in the window of the same length before it.
pub(crate) fn tool_rows(tallies: Tallies, before: &Tallies, limit: u32) -> Vec<ToolRow> {
    let row = |(keys, tally): (Vec<String>, Tally)| {
        let previous_calls = before
            .get(&(Timestamp::default(), keys.clone()))
            .map_or(0, |tally| tally.events);
        let [namespace, server, tool_name] = named(keys);
        let calls = tally.call_counts();
        let (error_rate, deny_rate) = (calls.error_rate(), calls.deny_rate());
        let (unique_callers, last_seen) = (tally.distinct(0), tally.last_seen);
        ToolRow {
            namespace,
            server,
            tool_name,
            calls,
            error_rate,
            deny_rate,
            unique_callers,
            last_seen,
            previous_calls,
        }
    };
    busiest(tallies, limit).map(row).collect()
}

/// The busiest keys of a dimension.
pub(crate) fn top_keys(tallies: Tallies, top: u32) -> Vec<String> {
    busiest(tallies, top)
        .filter_map(|(keys, _)| keys.into_iter().next())
        .collect()
}

/// One list of values per key, in the order of `top`; what remains as [`OTHER`], the whole as `all` when not split.
pub(crate) fn series(tallies: Tallies, top: Vec<String>, by: Dimension, metric: Metric, steps: &[Timestamp]) -> Vec<Series> {
    let known: HashSet<&String> = top.iter().collect();
    let mut keys: BTreeMap<String, HashMap<Timestamp, Tally>> = BTreeMap::new();
    let mut rest: HashMap<Timestamp, Tally> = HashMap::new();
    for ((step, group), tally) in tallies {
        match group.into_iter().next().filter(|key| known.contains(key)) {
            Some(key) => drop(keys.entry(key).or_default().insert(step, tally)),
            None => rest.entry(step).or_default().merge(&tally),
        }
    }
    let values = |at: &HashMap<Timestamp, Tally>| steps.iter().map(|step| value(metric, at.get(step))).collect();
    let mut series: Vec<Series> = Vec::with_capacity(top.len() + 1);
    for key in top {
        let values = keys.get(&key).map_or_else(|| values(&HashMap::new()), values);
        series.push(Series { key, values });
    }
    if by == Dimension::None {
        series.push(Series {
            key: ALL.to_owned(),
            values: values(&rest),
        });
    } else if !rest.is_empty() {
        series.push(Series {
            key: OTHER.to_owned(),
            values: values(&rest),
        });
    }
    series
}

/// The value of a metric; without events 0 for counts and none for latencies.
#[expect(clippy::cast_precision_loss, reason = "charts need no more than 52 bits")]
fn value(metric: Metric, tally: Option<&Tally>) -> Option<f64> {
    let number = |read: fn(&Tally) -> u64| Some(tally.map_or(0, read) as f64);
    match metric {
        Metric::Calls => number(|tally| tally.events),
        Metric::Errors => number(|tally| tally.errors),
        Metric::Denied => number(|tally| tally.denied),
        Metric::Bytes => number(|tally| tally.bytes_in.saturating_add(tally.bytes_out)),
        Metric::LatencyP50 | Metric::LatencyP95 | Metric::LatencyP99 => {
            let latency = tally?.latency.quantile(quantile_of(metric)?)?;
            Some(latency as f64)
        }
    }
}

/// Starts of the steps that have a part in `[since, until)`; the first may begin before `since`.
pub(crate) fn steps(since: Timestamp, until: Timestamp, step: Duration) -> Result<Vec<Timestamp>, QueryError> {
    if step < Duration::from_secs(1) {
        return Err(QueryError::Invalid("the step must be at least 1 s".to_owned()));
    }
    let first = since.floor(step);
    let count = until.since(first).as_nanos().div_ceil(step.as_nanos());
    if count > u128::from(STEPS_MAX) {
        let seconds = step.as_secs();
        return Err(QueryError::Invalid(format!(
            "the window has {count} steps of {seconds} s, at most {STEPS_MAX} are answered; ask for a longer step or a shorter window"
        )));
    }
    Ok(std::iter::successors(Some(first), |&at| Some(at.plus(step)))
        .take_while(|&at| since < until && at < until)
        .collect())
}
