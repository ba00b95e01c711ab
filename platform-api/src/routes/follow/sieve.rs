//! Whether one event passes a filter: the same meaning that stores give to a filter, for events already at hand.

use domain::{Column, Event, Value};
use sentinel_store::query::{Filter, Scope};

pub(super) fn passes(filter: &Filter, event: &Event) -> bool {
    within(&filter.scope, event)
        && filter.since.is_none_or(|since| event.timestamp >= since)
        && filter.until.is_none_or(|until| event.timestamp < until)
        && filter.equals.iter().all(|(name, values)| has_one(event, name, values))
}

fn within(scope: &Scope, event: &Event) -> bool {
    match scope {
        Scope::All => true,
        Scope::Only { namespaces, teams } => {
            let among = |names: &[String], name: &str| !name.is_empty() && names.iter().any(|known| known == name);
            among(namespaces, event.namespace()) || among(teams, event.payload.team_id.as_deref().unwrap_or_default())
        }
    }
}

fn has_one(event: &Event, name: &str, values: &[String]) -> bool {
    let text = match name {
        "source" => event.source.clone(),
        "event_type" => event.event_type.clone(),
        "id" => event.id.to_string(),
        "trace_id" => event.trace_id.map(|id| id.to_string()).unwrap_or_default(),
        // A name nobody knows is never equal to anything.
        _ => match Column::named(name).map(|column| (column.read)(&event.payload)) {
            None => return false,
            Some(Value::Absent) => String::new(),
            Some(Value::Text(text)) => text.to_owned(),
            Some(Value::Count(count)) => count.to_string(),
            Some(Value::Code(code)) => code.to_string(),
        },
    };
    values.contains(&text)
}

#[cfg(test)]
mod tests;
