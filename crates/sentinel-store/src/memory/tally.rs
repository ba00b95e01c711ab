//! What is counted, by what, and how counts become answers: shared by every store, so that they can only differ in how they find
//! the events.
//!
//! A store fills [`Tallies`] for a [`Grouping`]: by looking at events one by one, or by merging what it has counted before. The
//! rest (order, most rows, gaps, `other`, percentiles) happens here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use domain::analytics::{
    ActorUsage, CallCounts, DecisionUsage, Series, ServerUsage, ToolRow, ToolUsage, UsageBucket, UsageTotals, ValueCount,
};
use domain::{Event, Timestamp};

use super::terms::Field;
use crate::QueryError;
use crate::query::{Dimension, Metric, counts};
use crate::sketch::{DistinctSketch, LatencySketch};

/// Most steps of a series.
pub(crate) const STEPS_MAX: u64 = 10_000;
/// The key of the group of what is not among the top: no sender's text, as `other` might be.
pub(crate) const REST: &str = "\u{1}rest";
/// The key of the series made of that group.
const OTHER: &str = "other";
/// The key of a series that is not split.
const ALL: &str = "all";
/// The decision of events without one.
const UNKNOWN: &str = "unknown";

/// Distinct values to count in each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distinct {
    /// Servers; same-named ones of two namespaces are two.
    Servers,
    /// People.
    Humans,
    /// Agents.
    Agents,
    /// Sessions.
    Sessions,
    /// Tools, of events that name one.
    Tools,
    /// Pairs of person and agent; not counted when neither is known.
    Callers,
}

impl Distinct {
    /// The columns whose values together are one value.
    pub(crate) const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Servers => &["namespace", "server"],
            Self::Humans => &["human_id"],
            Self::Agents => &["agent_id"],
            Self::Sessions => &["session_id"],
            Self::Tools => &["namespace", "server", "tool_name"],
            Self::Callers => &["human_id", "agent_id"],
        }
    }

    fn insert(self, sketch: &mut DistinctSketch, event: &Event) {
        let payload = &event.payload;
        let bytes = |text: &'_ Option<String>| -> Vec<u8> { text.as_deref().unwrap_or_default().into() };
        match self {
            Self::Servers => sketch.insert_tuple([event.namespace().as_bytes(), event.server().as_bytes()]),
            Self::Humans => sketch.insert(&bytes(&payload.human_id)),
            Self::Agents => sketch.insert(&bytes(&payload.agent_id)),
            Self::Sessions => sketch.insert(&bytes(&payload.session_id)),
            Self::Callers => sketch.insert_tuple([bytes(&payload.human_id).as_slice(), &bytes(&payload.agent_id)]),
            Self::Tools => {
                if let Some(tool) = payload.tool_name.as_deref().filter(|tool| !tool.is_empty()) {
                    sketch.insert_tuple([event.namespace().as_bytes(), event.server().as_bytes(), tool.as_bytes()]);
                }
            }
        }
    }
}

/// What to count by.
#[derive(Debug, Clone)]
pub(crate) struct Grouping {
    /// Steps of time, when counted over time.
    pub(crate) step: Option<Duration>,
    /// One group per combination of their values.
    pub(crate) keys: Vec<Field>,
    /// Values of the only key that keep a group of their own; the others share the group [`REST`]. Absent: all do.
    pub(crate) keep: Option<Vec<String>>,
    /// Distinct values counted in each group.
    pub(crate) distinct: &'static [Distinct],
    /// Whether only events that name a tool are counted.
    pub(crate) tools_only: bool,
    /// Whether latencies are counted: they cost the most.
    pub(crate) latencies: bool,
}

impl Grouping {
    fn by(names: &[&str]) -> Result<Self, QueryError> {
        let keys = names.iter().map(|name| Field::named(name)).collect::<Result<_, _>>()?;
        Ok(Self {
            step: None,
            keys,
            keep: None,
            distinct: &[],
            tools_only: false,
            latencies: false,
        })
    }

    /// For [`totals`].
    pub(crate) fn totals() -> Result<Self, QueryError> {
        let distinct = &[Distinct::Servers, Distinct::Humans, Distinct::Agents, Distinct::Sessions];
        Ok(Self {
            distinct,
            latencies: true,
            ..Self::by(&[])?
        })
    }

    /// For [`servers`].
    pub(crate) fn servers() -> Result<Self, QueryError> {
        Ok(Self {
            distinct: &[Distinct::Humans, Distinct::Agents],
            latencies: true,
            ..Self::by(&["server", "namespace", "team_id"])?
        })
    }

    /// For [`actors`].
    pub(crate) fn actors() -> Result<Self, QueryError> {
        Ok(Self {
            distinct: &[Distinct::Servers, Distinct::Tools],
            ..Self::by(&["human_id", "agent_id"])?
        })
    }

    /// For [`tool_usage`].
    pub(crate) fn tool_usage() -> Result<Self, QueryError> {
        let keys = ["namespace", "server", "tool_name", "human_id", "team_id", "agent_id"];
        Ok(Self {
            tools_only: true,
            ..Self::by(&keys)?
        })
    }

    /// For [`decisions`].
    pub(crate) fn decisions() -> Result<Self, QueryError> {
        Self::by(&["decision"])
    }

    /// For [`usage_series`].
    pub(crate) fn usage_series(step: Duration) -> Result<Self, QueryError> {
        Ok(Self {
            step: Some(step),
            ..Self::by(&[])?
        })
    }

    /// For [`top_keys`]: how many events each key has.
    pub(crate) fn keys(by: Dimension) -> Result<Self, QueryError> {
        Self::by(dimension_column(by).as_slice())
    }

    /// For [`series`]: the keys to keep come from [`top_keys`].
    pub(crate) fn series(by: Dimension, metric: Metric, step: Duration, keep: Vec<String>) -> Result<Self, QueryError> {
        Ok(Self {
            step: Some(step),
            keep: Some(keep),
            latencies: quantile_of(metric).is_some(),
            ..Self::keys(by)?
        })
    }

    /// For [`tool_rows`].
    pub(crate) fn tool_rows() -> Result<Self, QueryError> {
        let keys = ["namespace", "server", "tool_name"];
        Ok(Self {
            distinct: &[Distinct::Callers],
            tools_only: true,
            latencies: true,
            ..Self::by(&keys)?
        })
    }

    /// For the calls of [`tool_rows`] in the window before.
    pub(crate) fn tool_calls() -> Result<Self, QueryError> {
        Ok(Self {
            tools_only: true,
            ..Self::by(&["namespace", "server", "tool_name"])?
        })
    }

    /// For [`values`].
    pub(crate) fn values(column: &str) -> Result<Self, QueryError> {
        match Field::named(column)? {
            Field::Id | Field::TraceId => Err(QueryError::Invalid(format!(
                "{column} is different for every call; ask for events instead"
            ))),
            field => Ok(Self {
                keys: vec![field],
                ..Self::by(&[])?
            }),
        }
    }
}

fn dimension_column(by: Dimension) -> Option<&'static str> {
    match by {
        Dimension::None => None,
        Dimension::Server => Some("server"),
        Dimension::Tool => Some("tool_name"),
        Dimension::Agent => Some("agent_id"),
        Dimension::Human => Some("human_id"),
        Dimension::Namespace => Some("namespace"),
        Dimension::Outcome => Some("outcome"),
    }
}

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

fn quantile_of(metric: Metric) -> Option<f64> {
    match metric {
        Metric::LatencyP50 => Some(0.5),
        Metric::LatencyP95 => Some(0.95),
        Metric::LatencyP99 => Some(0.99),
        Metric::Calls | Metric::Errors | Metric::Denied | Metric::Bytes => None,
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
