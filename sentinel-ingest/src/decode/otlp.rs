//! Spans and log records out of an OTLP body, one at a time.
//!
//! The envelopes around them are walked, not decoded: two bytes of a body can ask for an empty span of three hundred bytes, so decoding
//! a whole body first would let a small one fill the memory. What is decoded is one span, whose bytes are bounded.

use std::borrow::Cow;
use std::time::Duration;

use domain::event::Draft;
use domain::event::otel::{Attribute, METHOD, Signal};
use domain::{EventFault, FaultCode, SpanId, Timestamp, TraceId};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde::de::DeserializeOwned;

use crate::answer::BodyFault;
use crate::body::{Telemetry, Wire};

mod json;
mod wire;

/// What a body holds, in its own bytes.
#[derive(Debug, Default)]
struct Items<'a> {
    /// Each resource, with the spans or records that it reported.
    groups: Vec<(&'a [u8], Vec<&'a [u8]>)>,
    count: usize,
}

impl<'a> Items<'a> {
    fn add(&mut self, resource: &'a [u8], items: Vec<&'a [u8]>, events_max: usize) -> Result<(), BodyFault> {
        self.count += items.len();
        if self.count > events_max {
            return Err(BodyFault::TooManyEvents { events_max });
        }
        if !items.is_empty() {
            self.groups.push((resource, items));
        }
        Ok(())
    }
}

/// Drafts of a body's spans or records, in order; those that are not of MCP are left out. A fault of the envelopes concerns the whole body.
#[derive(Debug)]
pub(super) struct Drafts<'a> {
    items: Items<'a>,
    telemetry: Telemetry,
    wire: Wire,
    item_bytes_max: usize,
}

impl<'a> Drafts<'a> {
    pub(super) fn split(
        body: &'a [u8],
        telemetry: Telemetry,
        wire: Wire,
        events_max: usize,
        item_bytes_max: usize,
    ) -> Result<Self, BodyFault> {
        let items = match wire {
            Wire::Protobuf => wire::items(body, events_max)?,
            Wire::Json => json::items(body, telemetry, events_max)?,
        };
        Ok(Self {
            items,
            telemetry,
            wire,
            item_bytes_max,
        })
    }

    /// Spans or records, of MCP or not.
    pub(super) fn len(&self) -> usize {
        self.items.count
    }

    /// Reads each one, and shows what it is to `see`, with its place.
    pub(super) fn each(self, mut see: impl FnMut(usize, Result<Draft, EventFault>)) {
        let mut index = 0;
        for (resource, items) in &self.items.groups {
            let resource = self.decode::<Resource>(resource, "resource");
            for item in items {
                let draft = match &resource {
                    Ok(resource) => self.draft(resource, item),
                    Err(fault) => Err(fault.clone()),
                };
                if let Some(draft) = draft.transpose() {
                    see(index, draft);
                }
                index += 1;
            }
        }
    }

    fn draft(&self, resource: &Resource, item: &[u8]) -> Result<Option<Draft>, EventFault> {
        match self.telemetry {
            Telemetry::Spans => {
                let span: Span = self.decode(item, "span")?;
                // The server tells of the same call.
                if span.kind == SpanKind::Client as i32 || !is_of_mcp(&span.attributes) {
                    return Ok(None);
                }
                signal_of_span(&span).draft(attributes(&resource.attributes), attributes(&span.attributes))
            }
            Telemetry::Records => {
                let record: LogRecord = self.decode(item, "log record")?;
                if !is_of_mcp(&record.attributes) {
                    return Ok(None);
                }
                signal_of_record(&record).draft(attributes(&resource.attributes), attributes(&record.attributes))
            }
        }
    }

    fn decode<T: Message + Default + DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, EventFault> {
        if bytes.len() > self.item_bytes_max {
            let (bytes, max) = (bytes.len(), self.item_bytes_max);
            return Err(EventFault {
                code: FaultCode::TooLarge,
                message: format!("a {what} has {bytes} bytes, at most {max} are taken"),
            });
        }
        let decoded = match self.wire {
            Wire::Protobuf => T::decode(bytes).map_err(|error| error.to_string()),
            Wire::Json if bytes.is_empty() => Ok(T::default()),
            Wire::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        };
        decoded.map_err(|error| EventFault {
            code: FaultCode::InvalidField,
            message: format!("a {what} is not as OTLP has it: {error}"),
        })
    }
}

fn is_of_mcp(attributes: &[KeyValue]) -> bool {
    attributes.iter().any(|attribute| attribute.key == METHOD)
}

fn signal_of_span(span: &Span) -> Signal {
    let took = span.end_time_unix_nano.checked_sub(span.start_time_unix_nano);
    Signal {
        trace_id: trace_id(&span.trace_id),
        span_id: span_id(&span.span_id),
        parent_span_id: span_id(&span.parent_span_id),
        start: time(span.start_time_unix_nano),
        duration: took.map(Duration::from_nanos),
        failed: span
            .status
            .as_ref()
            .is_some_and(|status| status.code == StatusCode::Error as i32),
    }
}

fn signal_of_record(record: &LogRecord) -> Signal {
    Signal {
        trace_id: trace_id(&record.trace_id),
        span_id: span_id(&record.span_id),
        parent_span_id: None,
        start: time(record.time_unix_nano).or_else(|| time(record.observed_time_unix_nano)),
        duration: None,
        failed: false,
    }
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    TraceId::from_bytes(bytes.try_into().ok()?)
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    SpanId::from_bytes(bytes.try_into().ok()?)
}

/// Zero means that the time is not known.
fn time(nanos: u64) -> Option<Timestamp> {
    let nanos = i64::try_from(nanos).ok()?;
    (nanos > 0).then_some(Timestamp::from_nanos(nanos))
}

fn attributes(list: &[KeyValue]) -> impl Iterator<Item = (&str, Attribute<'_>)> {
    list.iter().filter_map(|KeyValue { key, value, .. }| {
        let value = value.as_ref()?;
        let attribute = match value.value.as_ref()? {
            Value::StringValue(text) => Attribute::Text(Cow::Borrowed(text)),
            Value::IntValue(number) => Attribute::Whole(*number),
            Value::BoolValue(yes) => Attribute::Text(if *yes { "true" } else { "false" }.into()),
            Value::DoubleValue(number) => Attribute::Text(number.to_string().into()),
            // Lists, maps and bytes, in the form that OTLP gives them in JSON.
            _ => Attribute::Text(serde_json::to_string(value).ok()?.into()),
        };
        Some((key.as_str(), attribute))
    })
}

#[cfg(test)]
mod tests;
