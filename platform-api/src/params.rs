//! Parameters after `?`, read strictly: a name nobody knows, a value outside its set and a value given twice are faults that say
//! what would be right. What a parameter may be is declared once, for the check and for the `OpenAPI` document.

use std::time::Duration;

use domain::{COLUMNS, Column, EventId, Payload, Timestamp, TraceId, Value};
use sentinel_store::query::{Filter, Scope};
use service_kit::{Problem, parse_duration};

use crate::access::Caller;
use crate::routes::{Filters, Route};

/// Most parameters of one request.
const PARAMS_MAX: usize = 128;
/// Longest value of a parameter, in bytes. A URI of a resource is the longest text that is stored.
const VALUE_BYTES_MAX: usize = 4_096;
/// Names further apart than this share of letters are not offered as what was meant.
const SIMILARITY_MIN: f64 = 0.8;

/// What a parameter may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// RFC 3339, or a duration before now such as `15m`, or `now`.
    Time,
    /// Such as `5m`, from the first to the second number of seconds.
    Duration(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
}

/// A parameter of a route.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    /// The value when it is not given; empty when there is none.
    pub default: &'static str,
    pub help: &'static str,
}

/// Columns of an event outside its payload that can be filtered by, with what each is.
pub(crate) const ENVELOPE_FILTERS: [(&str, &str); 4] = [
    ("source", "Who sent the event, such as `payments-gateway`"),
    ("event_type", "What kind of fact it is, such as `mcp.request`"),
    ("trace_id", "W3C trace the call belongs to: 32 hex digits"),
    ("id", "Id of the event: a UUID"),
];

/// The predecessor's other names of parameters.
const ALIASES: [(&str, &str); 1] = [("tool", "tool_name")];

/// The parameters of one request, each known to its route and of its kind.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    route: &'static Route,
    pairs: Vec<(String, String)>,
    now: Timestamp,
}

impl Params {
    /// Reads and checks what follows `?`.
    pub(crate) fn read(route: &'static Route, query: Option<&str>, now: Timestamp) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let name = ALIASES
                .iter()
                .find(|(alias, _)| *alias == name)
                .map_or(&*name, |(_, meant)| meant);
            if pairs.len() == PARAMS_MAX {
                return Err(invalid(format!("more than {PARAMS_MAX} parameters were given")));
            }
            if value.len() > VALUE_BYTES_MAX {
                return Err(invalid(format!(
                    "`{name}` has {} bytes, at most {VALUE_BYTES_MAX} are read",
                    value.len()
                )));
            }
            let value = check(route, name, &value, &pairs)?;
            pairs.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(Self { route, pairs, now })
    }

    /// The value of a parameter, or its default.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let default = || {
            self.route
                .param(name)
                .map(|param| param.default)
                .filter(|default| !default.is_empty())
        };
        self.given(name).or_else(default)
    }

    /// The value of a parameter that must be given.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Problem> {
        self.text(name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| invalid(format!("`{name}` is missing")))
    }

    /// The number of a parameter that has a default.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// As [`number`](Self::number), for those whose bound is small.
    pub(crate) fn count(&self, name: &str) -> u32 {
        u32::try_from(self.number(name)).unwrap_or(u32::MAX)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(|text| parse_duration(text).ok())
    }

    pub(crate) fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name).and_then(|text| time(text, self.now))
    }

    /// `since` and `until`, each where given.
    pub(crate) fn open_window(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let (since, until) = (self.time("since"), self.time("until"));
        match (since, until) {
            (Some(since), Some(until)) if since >= until => Err(invalid(format!(
                "the time range is empty: `since` is {since} and `until` is {until}"
            ))
            .with_hint("let `since` be before `until`")),
            (Some(since), None) if since > self.now => Err(invalid(format!("`since` is {since}, which has not come yet"))
                .with_hint("give a time in the past, or a duration such as `15m`")),
            window => Ok(window),
        }
    }

    /// `since` and `until`; without them, the time `length` up to now.
    pub(crate) fn window(&self, length: Duration) -> Result<(Timestamp, Timestamp), Problem> {
        let (since, until) = self.open_window()?;
        let until = until.unwrap_or(self.now);
        Ok((since.unwrap_or_else(|| until.minus(length)), until))
    }

    /// Which events the request is about, as far as the caller may see them.
    pub(crate) fn filter(&self, caller: &Caller) -> Result<Filter, Problem> {
        let (since, until) = self.open_window()?;
        let mut equals: Vec<(String, Vec<String>)> = Vec::new();
        for (name, value) in self.pairs.iter().filter(|(name, _)| self.is_filter(name)) {
            match equals.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value.clone()),
                None => equals.push((name.clone(), vec![value.clone()])),
            }
        }
        check_namespaces(caller, &equals)?;
        Ok(Filter {
            scope: caller.scope.clone(),
            since,
            until,
            equals,
        })
    }

    /// The parameters that make the question, in a form that is the same for the same question: all but the page.
    pub(crate) fn question(&self) -> String {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "cursor" | "limit"))
            .collect();
        pairs.sort();
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    /// The same request at another cursor.
    pub(crate) fn link(&self, path: &str, cursor_name: &str, cursor: &str) -> String {
        let kept = self.pairs.iter().filter(|(name, _)| name != cursor_name);
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair(cursor_name, cursor)
            .finish();
        format!("{path}?{query}")
    }

    /// Every value given for a filter.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The names of the filters given, each once.
    pub(crate) fn filter_names(&self) -> impl Iterator<Item = &str> {
        let first = |(at, pair): (usize, &(String, String))| !self.pairs.iter().take(at).any(|(name, _)| *name == pair.0);
        let firsts = self.pairs.iter().enumerate().filter(move |(at, pair)| first((*at, pair)));
        firsts.map(|(_, (name, _))| name.as_str()).filter(|name| self.is_filter(name))
    }

    fn given(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn is_filter(&self, name: &str) -> bool {
        self.route.param(name).is_none()
    }
}

/// The normal form of a value; `None` when an empty text says that the parameter is not given.
fn check(route: &Route, name: &str, value: &str, before: &[(String, String)]) -> Result<Option<String>, Problem> {
    if let Some(param) = route.param(name) {
        if value.is_empty() {
            return Ok(None);
        }
        if before.iter().any(|(known, _)| known == name) {
            return Err(invalid(format!("`{name}` is given twice")));
        }
        return normal(param.kind, value)
            .map(Some)
            .map_err(|expected| expects(name, &expected, value));
    }
    let is_filter = route.filters == Filters::All
        && (Column::named(name).is_some() || ENVELOPE_FILTERS.iter().any(|(known, _)| *known == name));
    if is_filter {
        return filter_value(name, value)
            .map(Some)
            .map_err(|expected| expects(name, &expected, value));
    }
    Err(unknown(route, name))
}

fn normal(kind: Kind, value: &str) -> Result<String, String> {
    let fits =
        match kind {
            Kind::Text => true,
            Kind::Number(min, max) => match value.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => return Ok(number.to_string()),
                _ => return Err(format!("a whole number from {min} to {max}")),
            },
            // A `+` of an offset that was not escaped arrives as a blank.
            Kind::Time if value.contains(' ') => return normal(kind, &value.replace(' ', "+")),
            Kind::Time if time(value, Timestamp::default()).is_some() => true,
            Kind::Time => return Err(
                "an RFC 3339 time such as `2026-11-22T15:04:05Z`, a duration before now such as `15m`, `2h` or `7d`, or `now`"
                    .to_owned(),
            ),
            Kind::Duration(min, max) => match parse_duration(value) {
                Ok(duration) if (min..=max).contains(&duration.as_secs()) => true,
                _ => return Err(format!("a duration such as `5m`, from {min}s to {max}s")),
            },
            Kind::Word(words) if words.contains(&value) => true,
            Kind::Word(words) => return Err(format!("one of {}", words.join(", "))),
            Kind::Flag if matches!(value, "true" | "false") => true,
            Kind::Flag => return Err("`true` or `false`".to_owned()),
        };
    debug_assert!(fits, "every refusal returns above");
    Ok(value.to_owned())
}

/// The normal form of a value that events are compared with. An empty text means absent.
fn filter_value(name: &str, value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    match name {
        "source" | "event_type" => return Ok(value.to_owned()),
        "trace_id" => {
            return value
                .parse::<TraceId>()
                .map(|id| id.to_string())
                .map_err(|_| "32 hex digits, not all zero".to_owned());
        }
        "id" => {
            return value
                .parse::<EventId>()
                .map(|id| id.to_string())
                .map_err(|_| "a UUID".to_owned());
        }
        _ => {}
    }
    let Some(column) = Column::named(name) else {
        return Err("another name".to_owned());
    };
    let mut payload = Payload::default();
    let number = "a whole number".to_owned();
    match column.kind {
        domain::Kind::Name | domain::Kind::Text if (column.write)(&mut payload, Value::Text(value)) => Ok(value.to_owned()),
        domain::Kind::Name | domain::Kind::Text => {
            Err(words_of(name).map_or_else(|| "another text".to_owned(), |words| format!("one of {}", words.join(", "))))
        }
        domain::Kind::Count => match value.parse() {
            Ok(count) if (column.write)(&mut payload, Value::Count(count)) => Ok(count.to_string()),
            _ => Err(number),
        },
        domain::Kind::Code => match value.parse() {
            Ok(code) if (column.write)(&mut payload, Value::Code(code)) => Ok(code.to_string()),
            _ => Err(number),
        },
    }
}

/// The closed set of words of a column, if it has one.
pub(crate) fn words_of(column: &str) -> Option<Vec<&'static str>> {
    let words = match column {
        "outcome" => domain::Outcome::ALL.iter().map(|word| word.as_str()).collect(),
        "decision" => domain::Decision::ALL.iter().map(|word| word.as_str()).collect(),
        "identity" => domain::Identity::ALL.iter().map(|word| word.as_str()).collect(),
        "era" => domain::Era::ALL.iter().map(|word| word.as_str()).collect(),
        "response_kind" => domain::ResponseKind::ALL.iter().map(|word| word.as_str()).collect(),
        _ => return None,
    };
    Some(words)
}

fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    // A bare number could mean seconds ago or since the epoch, so it means neither.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Timestamp::parse(text)
        .ok()
        .or_else(|| parse_duration(text).ok().map(|ago| now.minus(ago)))
}

/// A caller who may see some namespaces and names another is told so, rather than shown an empty list. Whoever owns servers through
/// teams may have them in any namespace.
fn check_namespaces(caller: &Caller, equals: &[(String, Vec<String>)]) -> Result<(), Problem> {
    let Scope::Only { namespaces, teams } = &caller.scope else {
        return Ok(());
    };
    let named = equals
        .iter()
        .filter(|(name, _)| name == "namespace")
        .flat_map(|(_, values)| values);
    let foreign = named
        .into_iter()
        .find(|name| !name.is_empty() && teams.is_empty() && !namespaces.contains(name));
    foreign.map_or(Ok(()), |name| {
        Err(Problem::forbidden(format!("the namespace `{name}` is not one of yours"))
            .with_code("forbidden_namespace")
            .with_hint("leave `namespace` out to see everything that you may see"))
    })
}

pub(crate) fn invalid(message: String) -> Problem {
    Problem::bad_request(message).with_code("invalid_query_param")
}

fn expects(name: &str, expected: &str, value: &str) -> Problem {
    const SHOWN_CHARS_MAX: usize = 80;
    let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    invalid(format!("`{name}` expects {expected}; got `{shown}`"))
}

fn unknown(route: &Route, name: &str) -> Problem {
    let columns = COLUMNS
        .iter()
        .map(|column| column.name)
        .chain(ENVELOPE_FILTERS.iter().map(|(name, _)| *name));
    let filters = columns.filter(|_| route.filters == Filters::All);
    let names = route
        .params
        .iter()
        .flat_map(|group| group.iter())
        .map(|param| param.name)
        .chain(filters);
    let scored = names.map(|known| (strsim::jaro_winkler(known, name), known));
    let nearest = scored
        .filter(|(score, _)| *score >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let shown: String = name.chars().take(64).collect();
    let problem = invalid(format!("there is no parameter `{shown}` here"));
    match nearest {
        Some((_, known)) => problem.with_hint(format!("did you mean `{known}`?")),
        None => problem.with_hint("the parameters of each path are in /api/v1/openapi.json"),
    }
}

#[cfg(test)]
mod tests;
