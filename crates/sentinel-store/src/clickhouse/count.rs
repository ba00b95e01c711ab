//! Counting: a [`Grouping`] of a filter as one statement, from rollups where both touch only what rollups keep, from events
//! otherwise.
//!
//! A window is cut into whole days (from the daily rollup), whole hours (hourly) and what remains at the edges (events). The parts are
//! added up on the server; sketches merge, so the cut never shows in an answer.

use std::time::Duration;

use clickhouse::native::Block;
use domain::Timestamp;
use domain::analytics::Served;

use super::config::CountsFrom;
use super::link::{Fault, Link, column, quoted};
use super::terms::{Part, conditions, is_text, second, time, times};
use crate::QueryError;
use crate::memory::grouping::{Distinct, Grouping, REST};
use crate::memory::tally::{Tallies, Tally};
use crate::memory::terms::{Field, Terms};
use crate::sketch::{DistinctSketch, LatencySketch};

/// Most groups of one question.
const GROUPS_MAX: usize = 1_000_000;
/// Most servers or tools told apart in one group; beyond, their count is a lower bound.
const NAMES_MAX: usize = 100_000;
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How sketches are made from columns: as in the migration of the rollups, word for word.
pub(super) const SKETCHES: &str = "WITH
    x -> toUInt8(bitShiftRight(reinterpretAsUInt64(toFloat64(x)), 52) - 1022) AS bits,
    x -> if(x < 4294967296, bits(x), bits(bitShiftRight(x, 32)) + 32) AS bit_length,
    x -> if(x < 128, 0, bit_length(x) - 7) AS shift,
    x -> toUInt16(shift(x) * 64 + bitShiftRight(x, shift(x))) AS bucket_of,
    h -> toUInt16(bitShiftRight(h, 48)) AS place_of,
    h -> toUInt8(if(bitShiftLeft(h, 16) = 0, 49, 65 - bits(bitShiftLeft(h, 16)))) AS rank_of";

/// Columns that every row of the rollups of calls, and of servers, is of.
const CALL_KEYS: [&str; 8] = [
    "namespace",
    "server",
    "team_id",
    "tool_name",
    "rpc_method",
    "event_type",
    "outcome",
    "decision",
];
const SERVER_KEYS: [&str; 3] = ["namespace", "server", "team_id"];

/// A rollup that can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rollup {
    Calls,
    Servers,
}

impl Rollup {
    const fn table(self, served: Served) -> &'static str {
        match (self, served) {
            (_, Served::Raw) => "events",
            (Self::Calls, Served::Hourly) => "calls_hourly",
            (Self::Calls, Served::Daily) => "calls_daily",
            (Self::Servers, Served::Hourly) => "servers_hourly",
            (Self::Servers, Served::Daily) => "servers_daily",
        }
    }

    /// The smallest that has everything a question touches.
    fn of(terms: &Terms, grouping: &Grouping) -> Option<Self> {
        let fields = || {
            terms
                .conditions
                .iter()
                .map(|condition| condition.field)
                .chain(grouping.keys.iter().copied())
        };
        let has = |keys: &[&str]| fields().all(|field| keys.contains(&field.name()));
        let counts = |able: &[Distinct]| grouping.distinct.iter().all(|distinct| able.contains(distinct));
        let by_server = [Distinct::Servers, Distinct::Humans, Distinct::Agents, Distinct::Sessions];
        if has(&SERVER_KEYS) && !grouping.tools_only && counts(&by_server) {
            Some(Self::Servers)
        } else if has(&CALL_KEYS) && counts(&[Distinct::Servers, Distinct::Tools, Distinct::Callers]) {
            Some(Self::Calls)
        } else {
            None
        }
    }
}

/// Which parts of the window to read from which form.
fn cut(terms: &Terms, grouping: &Grouping, rollup: Option<Rollup>) -> Vec<(Served, Vec<Part>)> {
    let window = (terms.since, terms.until);
    if window.0.zip(window.1).is_some_and(|(since, until)| since >= until) {
        return Vec::new();
    }
    let whole = |of: Duration| grouping.step.is_none_or(|step| step.as_nanos().is_multiple_of(of.as_nanos()));
    let hours = inner(window, HOUR).filter(|_| rollup.is_some() && whole(HOUR));
    let Some(hours) = hours else {
        return vec![(Served::Raw, vec![window])];
    };
    let mut parts = vec![(Served::Raw, around(window, hours))];
    match inner(hours, DAY).filter(|_| whole(DAY)) {
        Some(days) => parts.extend([(Served::Hourly, around(hours, days)), (Served::Daily, vec![days])]),
        None => parts.push((Served::Hourly, vec![hours])),
    }
    parts.retain(|(_, parts)| !parts.is_empty());
    parts
}

/// The whole steps within a window; `None` when there is none.
fn inner((since, until): Part, step: Duration) -> Option<Part> {
    let up = |at: Timestamp| if at.floor(step) == at { at } else { at.floor(step).plus(step) };
    let (since, until) = (since.map(up), until.map(|until| until.floor(step)));
    (since.zip(until).is_none_or(|(since, until)| since < until)).then_some((since, until))
}

/// What a window has before and after an inner one. Where both are open there is nothing between them.
fn around(outer: Part, inner: Part) -> Vec<Part> {
    let parts = [(outer.0, inner.0), (inner.1, outer.1)];
    let some = |(since, until): &Part| since.zip(*until).is_some_and(|(since, until)| since < until);
    parts.into_iter().filter(some).collect()
}

/// Counts what a grouping asks for; also tells the coarsest form that was used. `limit` is of the busiest groups, when no others are
/// wanted.
pub(super) async fn tally(
    link: &Link,
    terms: &Terms,
    grouping: &Grouping,
    limit: Option<u32>,
) -> Result<(Tallies, Served), QueryError> {
    let (sql, served) = statement(link, terms, grouping, limit);
    let mut tallies = Tallies::new();
    if let Some(sql) = sql {
        for block in link.ask(&sql).await? {
            read(&block, grouping, &mut tallies)?;
        }
    }
    if tallies.len() > GROUPS_MAX {
        return Err(QueryError::OverLimit(format!(
            "the answer has more than {GROUPS_MAX} groups; narrow the time range or the filters"
        )));
    }
    Ok((tallies, served))
}

/// The coarser of two forms: "daily" says that edges came from finer ones.
pub(super) fn coarser(one: Served, other: Served) -> Served {
    match (one, other) {
        (Served::Daily, _) | (_, Served::Daily) => Served::Daily,
        (Served::Hourly, _) | (_, Served::Hourly) => Served::Hourly,
        (Served::Raw, Served::Raw) => Served::Raw,
    }
}

/// The statement that counts; `None` for an empty window.
fn statement(link: &Link, terms: &Terms, grouping: &Grouping, limit: Option<u32>) -> (Option<String>, Served) {
    let rollup = Rollup::of(terms, grouping).filter(|_| link.config.counts_from == CountsFrom::Rollups);
    let cut = cut(terms, grouping, rollup);
    let served = cut.iter().fold(Served::Raw, |served, (part, _)| coarser(served, *part));
    let rollup = rollup.unwrap_or(Rollup::Calls);
    let selects: Vec<String> = cut
        .iter()
        .map(|(from, parts)| select(&link.names.read(rollup.table(*from)), *from, parts, terms, grouping))
        .collect();
    let order = match limit {
        // Ties are settled as they are everywhere: by the keys.
        Some(limit) => {
            let keys = (0..grouping.keys.len()).map(|at| format!("key{at}"));
            let order: Vec<String> = ["events DESC".to_owned()].into_iter().chain(keys).collect();
            format!(" ORDER BY {} LIMIT {limit}", order.join(", "))
        }
        None => format!(" LIMIT {}", GROUPS_MAX + 1),
    };
    let sql = match selects.as_slice() {
        [] => return (None, served),
        [one] => format!("{SKETCHES} {one}{order}"),
        several => format!(
            "{SKETCHES} SELECT {} FROM ({}) AS p{}{order}",
            sums_of_parts(grouping),
            several.join(" UNION ALL "),
            group_by(grouping)
        ),
    };
    (Some(sql), served)
}

fn group_by(grouping: &Grouping) -> String {
    let mut keys: Vec<String> = grouping.step.iter().map(|_| "step".to_owned()).collect();
    keys.extend((0..grouping.keys.len()).map(|at| format!("key{at}")));
    // Without keys there is one group, and none when there is no row.
    if keys.is_empty() {
        " HAVING events > 0".to_owned()
    } else {
        format!(" GROUP BY {}", keys.join(", "))
    }
}

fn select(table: &str, from: Served, parts: &[Part], terms: &Terms, grouping: &Grouping) -> String {
    let raw = from == Served::Raw;
    let mut selected = Vec::new();
    if let Some(step) = grouping.step {
        selected.push(format!("{} AS step", step_of(raw, step)));
    }
    for (at, key) in grouping.keys.iter().enumerate() {
        selected.push(format!("{} AS key{at}", key_of(*key, grouping.keep.as_deref())));
    }
    selected.extend(sums(raw));
    if grouping.latencies {
        selected.push(
            if raw {
                LATENCY_OF_EVENTS
            } else {
                "sumMap(t.latency) AS latency_map"
            }
            .to_owned(),
        );
    }
    for (at, distinct) in grouping.distinct.iter().enumerate() {
        selected.push(format!("{} AS distinct{at}", distinct_of(raw, *distinct)));
    }
    let when = if raw {
        times("t.timestamp", parts, time)
    } else {
        times("t.bucket", parts, second)
    };
    let tools = if grouping.tools_only { " AND t.tool_name != ''" } else { "" };
    let (wanted, keys) = (conditions(terms), group_by(grouping));
    format!(
        "SELECT {} FROM {table} AS t WHERE {when} AND {wanted}{tools}{keys}",
        selected.join(", ")
    )
}

const LATENCY_OF_EVENTS: &str = "sumMap(if(isNull(t.latency_us), [], [bucket_of(assumeNotNull(t.latency_us))]), \
                                 if(isNull(t.latency_us), [], [toUInt64(1)])) AS latency_map";

/// The start of a row's step, in nanoseconds.
fn step_of(raw: bool, step: Duration) -> String {
    let step = step.as_nanos();
    let at = if raw {
        "toUnixTimestamp64Nano(t.timestamp)"
    } else {
        "toInt64(toUnixTimestamp(t.bucket)) * 1000000000"
    };
    format!("toInt64(intDiv({at}, {step}) * {step})")
}

fn key_of(field: Field, keep: Option<&[String]>) -> String {
    let column = format!("t.`{}`", field.name());
    let text = if is_text(field) {
        format!("toString({column})")
    } else {
        format!("ifNull(toString({column}), '')")
    };
    match keep {
        None => text,
        Some([]) => quoted(REST),
        Some(keep) => {
            let keep: Vec<String> = keep.iter().map(|key| quoted(key)).collect();
            format!("if({text} IN ({}), {text}, {})", keep.join(", "), quoted(REST))
        }
    }
}

const COUNTS: [&str; 6] = ["events", "allowed", "denied", "errors", "bytes_in", "bytes_out"];

/// What `query::counts` says, for the engine; rollups have it said already.
fn sums(raw: bool) -> Vec<String> {
    if !raw {
        let mut sums: Vec<String> = COUNTS.iter().map(|name| format!("sum(t.{name}) AS {name}")).collect();
        sums.push("toUnixTimestamp64Nano(max(t.last_seen)) AS last".to_owned());
        return sums;
    }
    [
        "count() AS events",
        "countIf(t.decision = 'allow') AS allowed",
        "countIf(t.outcome = 'denied' OR (t.outcome = '' AND t.decision = 'deny')) AS denied",
        "countIf(t.outcome IN ('tool_error', 'rpc_error', 'transport_error')) AS errors",
        "sum(ifNull(t.bytes_in, 0)) AS bytes_in",
        "sum(ifNull(t.bytes_out, 0)) AS bytes_out",
        "toUnixTimestamp64Nano(max(t.timestamp)) AS last",
    ]
    .map(str::to_owned)
    .into()
}

/// Whether a distinct count is kept as places of hashes; names of servers and tools are few enough to be told one by one.
const fn is_hashed(distinct: Distinct) -> bool {
    matches!(
        distinct,
        Distinct::Humans | Distinct::Agents | Distinct::Sessions | Distinct::Callers
    )
}

fn distinct_of(raw: bool, distinct: Distinct) -> String {
    let kept = |name: &str, hash: &str, present: &str| {
        if raw {
            format!("maxMapIf([place_of({hash})], [rank_of({hash})], {present})")
        } else {
            format!("maxMap(t.{name})")
        }
    };
    match distinct {
        Distinct::Humans => kept("humans", "xxHash64(t.human_id)", "t.human_id != ''"),
        Distinct::Agents => kept("agents", "xxHash64(t.agent_id)", "t.agent_id != ''"),
        Distinct::Sessions => kept("sessions", "xxHash64(t.session_id)", "t.session_id != ''"),
        Distinct::Callers => kept(
            "callers",
            "reinterpretAsUInt64(t.caller)",
            "reinterpretAsUInt64(t.caller) != 0",
        ),
        Distinct::Servers => {
            let (present, names) = (
                "t.namespace != '' OR t.server != ''",
                "toString(t.namespace), toString(t.server), ''",
            );
            format!("groupUniqArrayIf({NAMES_MAX})(({names}), {present})")
        }
        Distinct::Tools => {
            let names = "toString(t.namespace), toString(t.server), toString(t.tool_name)";
            format!("groupUniqArrayIf({NAMES_MAX})(({names}), t.tool_name != '')")
        }
    }
}

/// The same sums over parts that were summed up one by one.
fn sums_of_parts(grouping: &Grouping) -> String {
    let mut sums: Vec<String> = grouping.step.iter().map(|_| "step".to_owned()).collect();
    sums.extend((0..grouping.keys.len()).map(|at| format!("key{at}")));
    sums.extend(COUNTS.iter().map(|name| format!("sum(p.{name}) AS {name}")));
    sums.push("max(p.last) AS last".to_owned());
    if grouping.latencies {
        sums.push("sumMap(p.latency_map) AS latency_map".to_owned());
    }
    for (at, distinct) in grouping.distinct.iter().enumerate() {
        sums.push(if is_hashed(*distinct) {
            format!("maxMap(p.distinct{at}) AS distinct{at}")
        } else {
            format!("groupUniqArrayArray({NAMES_MAX})(p.distinct{at}) AS distinct{at}")
        });
    }
    sums.join(", ")
}

/// Adds the groups of a block.
fn read(block: &Block, grouping: &Grouping, into: &mut Tallies) -> Result<(), Fault> {
    let rows = block.num_rows();
    let counts = COUNTS
        .iter()
        .map(|name| column::<u64>(block, name))
        .collect::<Result<Vec<_>, _>>()?;
    let steps = match grouping.step {
        Some(_) => column::<i64>(block, "step")?,
        None => vec![0; rows],
    };
    let mut keys = vec![Vec::with_capacity(grouping.keys.len()); rows];
    for at in 0..grouping.keys.len() {
        let texts = column::<String>(block, &format!("key{at}"))?;
        keys.iter_mut().zip(texts).for_each(|(keys, text)| keys.push(text));
    }
    let latencies = if grouping.latencies {
        column::<(Vec<u16>, Vec<u64>)>(block, "latency_map")?
    } else {
        Vec::new()
    };
    let mut latencies = latencies.into_iter();
    let mut distinct = vec![Vec::with_capacity(grouping.distinct.len()); rows];
    for (at, kind) in grouping.distinct.iter().enumerate() {
        let sketches = distincts(block, &format!("distinct{at}"), *kind)?;
        distinct.iter_mut().zip(sketches).for_each(|(all, sketch)| all.push(sketch));
    }
    let last = column::<i64>(block, "last")?;
    for (row, (keys, distinct)) in keys.into_iter().zip(distinct).enumerate() {
        let count = |at: usize| counts[at][row];
        let tally = Tally {
            events: count(0),
            allowed: count(1),
            denied: count(2),
            errors: count(3),
            bytes_in: count(4),
            bytes_out: count(5),
            latency: latencies.next().map_or_else(|| Ok(LatencySketch::default()), latency)?,
            distinct,
            last_seen: Timestamp::from_nanos(last[row]),
        };
        let group = (Timestamp::from_nanos(steps[row]), keys);
        into.entry(group).or_default().merge(&tally);
    }
    Ok(())
}

/// A sketch from its buckets and their counts.
fn latency((buckets, counts): (Vec<u16>, Vec<u64>)) -> Result<LatencySketch, Fault> {
    let mut bytes = vec![1];
    let mut before = 0;
    for (bucket, count) in buckets.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        let step = bucket.checked_sub(before).ok_or(Fault::Answer("buckets are not in order"))?;
        super::native::put_varint(&mut bytes, u64::from(step));
        super::native::put_varint(&mut bytes, count);
        before = bucket;
    }
    LatencySketch::from_bytes(&bytes).map_err(|_| Fault::Answer("buckets that cannot be"))
}

fn distincts(block: &Block, name: &str, kind: Distinct) -> Result<Vec<DistinctSketch>, Fault> {
    if is_hashed(kind) {
        let places = column::<(Vec<u16>, Vec<u8>)>(block, name)?;
        return Ok(places.into_iter().map(of_places).collect());
    }
    let names = column::<Vec<(&str, &str, &str)>>(block, name)?;
    let sketch = |names: Vec<(&str, &str, &str)>| {
        let mut sketch = DistinctSketch::default();
        for (namespace, server, tool) in names {
            let parts = [namespace.as_bytes(), server.as_bytes(), tool.as_bytes()];
            sketch.insert_tuple(parts.into_iter().take(kind.columns().len()));
        }
        sketch
    };
    Ok(names.into_iter().map(sketch).collect())
}

/// A sketch from places and their ranks: made of hashes that have them.
fn of_places((places, ranks): (Vec<u16>, Vec<u8>)) -> DistinctSketch {
    let mut sketch = DistinctSketch::default();
    for (place, rank) in places.into_iter().zip(ranks) {
        // A rank of 49 says that no bit follows.
        let follows = 48_u32.checked_sub(u32::from(rank)).map_or(0, |shift| 1_u64 << shift);
        sketch.insert_hash((u64::from(place) << 48) | follows);
    }
    sketch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_as_the_rollups_count_them() {
        let migration = include_str!("migrations/0002_rollups.sql");
        assert_eq!(migration.matches(SKETCHES).count(), 2, "once for calls, once for servers");
    }

    #[test]
    fn a_sketch_from_places_and_ranks_is_the_one_of_their_hashes() {
        let values: Vec<String> = (0..5_000).map(|value| value.to_string()).collect();
        for count in [0, 1, 50, 900, 5_000] {
            let mut expected = DistinctSketch::default();
            let mut places = std::collections::BTreeMap::new();
            for value in &values[..count] {
                let hash = DistinctSketch::hash([value.as_bytes()]).unwrap();
                expected.insert_hash(hash);
                let rank = u8::try_from((hash << 16).leading_zeros().min(48) + 1).unwrap();
                let place = places.entry(u16::try_from(hash >> 48).unwrap()).or_insert(rank);
                *place = rank.max(*place);
            }
            assert_eq!(of_places(places.into_iter().unzip()), expected, "{count} values");
        }
        assert_eq!(of_places((vec![3], vec![49])).estimate(), 1);
    }

    #[test]
    fn a_latency_sketch_from_buckets_is_the_one_of_its_latencies() {
        let mut expected = LatencySketch::default();
        for micros in [0, 5, 127, 128, 70_000] {
            expected.insert(micros);
        }
        // 70 000 has ten bits beyond the seven that a bucket tells apart, and is 68 without them.
        let buckets = vec![0, 5, 127, 128, 10 * 64 + 68];
        assert_eq!(latency((buckets, vec![1; 5])).unwrap(), expected);
        assert!(latency((vec![5, 3], vec![1, 1])).is_err());
    }
}
