//! From tracing events to log records.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{LogLevel, LogRecord, LogStore};
use crate::error::Chain;

/// Longest text of a message or of a field; the rest is cut off and marked.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Most fields of one record; later ones are left out.
const FIELDS_MAX: usize = 64;

/// Feeds a [`LogStore`]; made by [`LogStore::layer`].
#[derive(Debug)]
pub struct LogLayer {
    store: LogStore,
}

impl LogLayer {
    pub(super) fn new(store: LogStore) -> Self {
        Self { store }
    }
}

/// Fields as they are collected from spans and events.
#[derive(Debug, Default)]
struct Fields {
    message: Option<String>,
    named: BTreeMap<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if self.named.len() < FIELDS_MAX || self.named.contains_key(field.name()) {
            self.named.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = Some(bounded(value.to_owned()));
        } else {
            self.put(field, Value::from(bounded(value.to_owned())));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::from(bounded(Chain(value).to_string())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = bounded(format!("{value:?}"));
        if field.name() == "message" {
            self.message = Some(text);
        } else {
            self.put(field, Value::from(text));
        }
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, mut named } = fields;
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.named {
                    if named.len() < FIELDS_MAX && !named.contains_key(name) {
                        named.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        let trace_id = match named.remove("trace_id") {
            Some(Value::String(id)) => Some(id),
            _ => None,
        };
        let target = event.metadata().target();
        let component = target.split_once("::").map_or(target, |(first, _)| first);
        self.store.push(LogRecord {
            timestamp_unix_ns: self.store.unix_ns(),
            level: LogLevel::from(event.metadata().level()),
            component: component.to_owned(),
            message: message.unwrap_or_default(),
            fields: named,
            trace_id,
        });
    }
}
