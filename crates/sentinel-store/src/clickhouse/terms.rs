//! Filters as SQL. Every value is a literal made here; names of columns come from tables of ours, never from who asks.

use domain::{Kind, Timestamp};

use super::link::quoted;
use crate::memory::terms::{Condition, Field, Terms, Wanted};
use crate::query::Scope;

/// From `.0` up to, not including, `.1`; open ends have no bound.
pub(super) type Part = (Option<Timestamp>, Option<Timestamp>);

/// Whether a field is kept as text.
pub(super) fn is_text(field: Field) -> bool {
    match field {
        Field::Column(column) => matches!(column.kind, Kind::Name | Kind::Text),
        Field::Source | Field::EventType => true,
        Field::TraceId | Field::Id => false,
    }
}

/// Scope and conditions on the table `t`, without the window.
pub(super) fn conditions(terms: &Terms) -> String {
    let mut all = vec![scope(&terms.scope)];
    all.extend(terms.conditions.iter().map(condition));
    all.join(" AND ")
}

/// What a caller may see.
pub(super) fn scope(scope: &Scope) -> String {
    match scope {
        Scope::All => "TRUE".to_owned(),
        Scope::Only { namespaces, teams } => {
            let among = |column: &str, names: &[String]| {
                let names: Vec<String> = names
                    .iter()
                    .filter(|name| !name.is_empty())
                    .map(|name| quoted(name))
                    .collect();
                (!names.is_empty()).then(|| format!("{column} IN ({})", names.join(", ")))
            };
            let either: Vec<String> = [among("t.namespace", namespaces), among("t.team_id", teams)]
                .into_iter()
                .flatten()
                .collect();
            if either.is_empty() {
                "FALSE".to_owned()
            } else {
                format!("({})", either.join(" OR "))
            }
        }
    }
}

fn condition(condition: &Condition) -> String {
    let field = condition.field;
    let column = format!("t.`{}`", field.name());
    let one = |wanted: &Wanted| match wanted {
        Wanted::Absent => match field {
            Field::Id => "FALSE".to_owned(),
            Field::TraceId => format!("{column} = toFixedString('', 16)"),
            _ if is_text(field) => format!("{column} = ''"),
            _ => format!("isNull({column})"),
        },
        Wanted::Text(text) => format!("{column} = {}", quoted(text)),
        // A condition is true or false, never unknown.
        Wanted::Count(number) => format!("ifNull({column} = {number}, FALSE)"),
        Wanted::Code(number) => format!("ifNull({column} = {number}, FALSE)"),
        Wanted::Trace(id) => format!("{column} = toFixedString(unhex('{id}'), 16)"),
        Wanted::Id(id) => format!("{column} = toUUID('{id}')"),
    };
    let any: Vec<String> = condition.wanted.iter().map(one).collect();
    if any.is_empty() {
        "FALSE".to_owned()
    } else {
        format!("({})", any.join(" OR "))
    }
}

/// A point in time, of the type of `timestamp`. Times before 1970 are the start of 1970: no event is older.
pub(super) fn time(at: Timestamp) -> String {
    format!("fromUnixTimestamp64Nano({}, 'UTC')", at.nanos().max(0))
}

/// Rows of which the time lies in one of the parts. Rollups keep whole seconds.
pub(super) fn times(column: &str, parts: &[Part], at: fn(Timestamp) -> String) -> String {
    let within = |&(since, until): &Part| {
        let since = since.map(|since| format!("{column} >= {}", at(since)));
        let until = until.map(|until| format!("{column} < {}", at(until)));
        let both: Vec<String> = [since, until].into_iter().flatten().collect();
        if both.is_empty() {
            "TRUE".to_owned()
        } else {
            format!("({})", both.join(" AND "))
        }
    };
    let any: Vec<String> = parts.iter().map(within).collect();
    if any.is_empty() {
        "FALSE".to_owned()
    } else {
        format!("({})", any.join(" OR "))
    }
}

/// A point in time, of the type of a rollup's `bucket`.
pub(super) fn second(at: Timestamp) -> String {
    format!("toDateTime({}, 'UTC')", at.seconds().clamp(0, i64::from(u32::MAX)))
}
