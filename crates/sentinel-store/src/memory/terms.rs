//! Filters, checked: what every store makes of a [`Filter`] before it looks at an event.
//!
//! An absent column and an empty text are the same everywhere. A filter on a column that does not exist, or with a value that the
//! column can never have, is a fault of who asks: an empty answer would hide the slip.

use domain::{
    COLUMNS, Column, Decision, Era, Event, EventId, Identity, Kind, Outcome, Payload, ResponseKind, Timestamp, TraceId, Value,
};

use crate::QueryError;
use crate::query::{Filter, Scope};

/// A column that a filter, a grouping or a list of values may name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field {
    /// Of the payload.
    Column(&'static Column),
    /// `source`.
    Source,
    /// `event_type`.
    EventType,
    /// `trace_id`.
    TraceId,
    /// `id`.
    Id,
}

/// A value that a filter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No value.
    Absent,
    /// A text.
    Text(String),
    /// A count.
    Count(u64),
    /// A code.
    Code(i64),
    /// A trace.
    Trace(TraceId),
    /// An event.
    Id(EventId),
}

/// One condition: the field has one of the values.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    /// Which field.
    pub(crate) field: Field,
    /// One of these. None: nothing matches.
    pub(crate) wanted: Vec<Wanted>,
}

/// A filter whose columns exist and whose values are of their columns' kinds.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// What the caller may see.
    pub(crate) scope: Scope,
    /// First time asked about.
    pub(crate) since: Option<Timestamp>,
    /// First time no longer asked about.
    pub(crate) until: Option<Timestamp>,
    /// All of these hold.
    pub(crate) conditions: Vec<Condition>,
}

impl Terms {
    /// Checks a filter.
    pub(crate) fn check(filter: &Filter) -> Result<Self, QueryError> {
        let conditions = filter.equals.iter().map(|(name, values)| {
            let field = Field::named(name)?;
            let wanted = values.iter().map(|value| field.wanted(value)).collect::<Result<_, _>>()?;
            Ok(Condition { field, wanted })
        });
        Ok(Self {
            scope: filter.scope.clone(),
            since: filter.since,
            until: filter.until,
            conditions: conditions.collect::<Result<_, QueryError>>()?,
        })
    }

    /// The window, for questions that need one.
    pub(crate) fn window(&self) -> Result<(Timestamp, Timestamp), QueryError> {
        self.since
            .zip(self.until)
            .ok_or_else(|| QueryError::Invalid("this question needs both since and until".to_owned()))
    }

    /// The same question about the window of the same length that ends where this one begins.
    pub(crate) fn window_before(&self) -> Result<Self, QueryError> {
        let (since, until) = self.window()?;
        Ok(Self {
            since: Some(since.minus(until.since(since))),
            until: Some(since),
            ..self.clone()
        })
    }

    /// Whether an event is asked about.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.timestamp >= since)
            && self.until.is_none_or(|until| event.timestamp < until)
            && permits(&self.scope, event)
            && self.conditions.iter().all(|condition| condition.matches(event))
    }
}

/// Whether a caller may see an event.
fn permits(scope: &Scope, event: &Event) -> bool {
    let among = |names: &[String], name: Option<&str>| {
        name.is_some_and(|name| !name.is_empty() && names.iter().any(|known| known == name))
    };
    match scope {
        Scope::All => true,
        Scope::Only { namespaces, teams } => {
            among(namespaces, event.payload.namespace.as_deref()) || among(teams, event.payload.team_id.as_deref())
        }
    }
}

impl Condition {
    fn matches(&self, event: &Event) -> bool {
        self.wanted.iter().any(|wanted| match (wanted, self.field) {
            (Wanted::Trace(wanted), _) => event.trace_id == Some(*wanted),
            (Wanted::Id(wanted), _) => event.id == *wanted,
            (Wanted::Absent, Field::TraceId) => event.trace_id.is_none(),
            (Wanted::Absent, Field::Id) => false,
            (Wanted::Absent, field) => matches!(field.read(event), Value::Absent | Value::Text("")),
            (Wanted::Text(wanted), field) => field.read(event) == Value::Text(wanted),
            (Wanted::Count(wanted), field) => field.read(event) == Value::Count(*wanted),
            (Wanted::Code(wanted), field) => field.read(event) == Value::Code(*wanted),
        })
    }
}

impl Field {
    /// The field of a name.
    pub(crate) fn named(name: &str) -> Result<Self, QueryError> {
        match name {
            "source" => Ok(Self::Source),
            "event_type" => Ok(Self::EventType),
            "trace_id" => Ok(Self::TraceId),
            "id" => Ok(Self::Id),
            _ => Column::named(name).map(Self::Column).ok_or_else(|| {
                let names = COLUMNS
                    .iter()
                    .map(|column| column.name)
                    .chain(["source", "event_type", "trace_id", "id"]);
                let hint = nearest(name, names)
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                QueryError::Invalid(format!("there is no column {name}{hint}"))
            }),
        }
    }

    /// Its name in the store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Column(column) => column.name,
            Self::Source => "source",
            Self::EventType => "event_type",
            Self::TraceId => "trace_id",
            Self::Id => "id",
        }
    }

    /// Its value in an event. Ids have none here: nothing groups by them.
    pub(crate) fn read(self, event: &Event) -> Value<'_> {
        match self {
            Self::Column(column) => (column.read)(&event.payload),
            Self::Source => Value::Text(&event.source),
            Self::EventType => Value::Text(&event.event_type),
            Self::TraceId | Self::Id => Value::Absent,
        }
    }

    /// Its value as text; absent as empty.
    pub(crate) fn text(self, event: &Event) -> String {
        match self.read(event) {
            Value::Absent => String::new(),
            Value::Text(text) => text.to_owned(),
            Value::Count(count) => count.to_string(),
            Value::Code(code) => code.to_string(),
        }
    }

    /// Reads a value asked for.
    fn wanted(self, text: &str) -> Result<Wanted, QueryError> {
        if text.is_empty() {
            return Ok(Wanted::Absent);
        }
        let name = self.name();
        let wrong = |right: &str| QueryError::Invalid(format!("{name} cannot be {}: expected {right}", shown(text)));
        match self {
            Self::Id => text.parse().map(Wanted::Id).map_err(|_| wrong("a UUID")),
            Self::TraceId => text
                .parse()
                .map(Wanted::Trace)
                .map_err(|_| wrong("32 hex digits, not all zero")),
            Self::Source | Self::EventType => Ok(Wanted::Text(text.to_owned())),
            Self::Column(column) => match column.kind {
                Kind::Count => text
                    .parse()
                    .map(Wanted::Count)
                    .map_err(|_| wrong("a whole number that is not negative")),
                Kind::Code => text.parse().map(Wanted::Code).map_err(|_| wrong("a whole number")),
                Kind::Name | Kind::Text if (column.write)(&mut Payload::default(), Value::Text(text)) => {
                    Ok(Wanted::Text(text.to_owned()))
                }
                Kind::Name | Kind::Text => Err(wrong(&format!(
                    "one of {}, or an empty text for events without one",
                    words(column.name)
                ))),
            },
        }
    }
}

/// The words of a column that has a closed set of them.
fn words(column: &str) -> String {
    fn join<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> String {
        all.iter().map(|&value| word(value)).collect::<Vec<_>>().join(", ")
    }
    match column {
        "decision" => join(Decision::ALL, Decision::as_str),
        "outcome" => join(Outcome::ALL, Outcome::as_str),
        "identity" => join(Identity::ALL, Identity::as_str),
        "era" => join(Era::ALL, Era::as_str),
        _ => join(ResponseKind::ALL, ResponseKind::as_str),
    }
}

/// A text as shown in a message: quoted, and cut when long.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    let mut cut: String = text.chars().take(CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// The name that is nearest to a misspelt one, when any is near.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = name.chars().count() / 3 + 1;
    // A name that is the other's beginning is near, however much is missing: `tool` means `tool_name`.
    let far = |known: &str| {
        if name.len() > 2 && known.starts_with(name) {
            0
        } else {
            distance(name, known)
        }
    };
    names
        .into_iter()
        .map(|known| (far(known), known))
        .filter(|&(far, _)| far <= bound)
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be added, removed or changed to make one text of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (at, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, other) in to.chars().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
