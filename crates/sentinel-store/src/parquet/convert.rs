//! Events to rows of the `events` table and back.

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, StringBuilder,
    StringDictionaryBuilder, TimestampMillisecondArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int32Type, Int64Type, TimestampMillisecondType, TimestampNanosecondType, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use std::sync::Arc;

use domain::analytics::StoredEvent;
use domain::event::WireVersion;
use domain::{COLUMNS, Column, Event, EventId, Kind, Payload, SpanId, Timestamp, TraceId, Value};

use super::schema::{ID_BYTES, SPAN_BYTES, Table};

/// An event and its place in the queue.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Partition it arrived by.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// What happened.
    pub event: &'a Event,
}

/// Rows of the `events` table, in the order given.
pub fn to_batch(rows: &[Row<'_>]) -> Result<RecordBatch, ArrowError> {
    let events = || rows.iter().map(|row| row.event);
    let mut columns: Vec<ArrayRef> = vec![
        fixed(events().map(|event| Some(event.id.as_bytes().as_slice())), ID_BYTES)?,
        times(events().map(|event| event.timestamp)),
        Arc::new(
            TimestampMillisecondArray::from_iter_values(events().map(|event| event.received_at.millis()))
                .with_timezone("+00:00"),
        ),
        names(events().map(|event| event.received_by.as_deref())),
        names(events().map(|event| Some(event.source.as_str()))),
        names(events().map(|event| Some(event.event_type.as_str()))),
        fixed(
            events().map(|event| event.trace_id.as_ref().map(|id| id.as_bytes().as_slice())),
            ID_BYTES,
        )?,
        fixed(
            events().map(|event| event.span_id.as_ref().map(|id| id.as_bytes().as_slice())),
            SPAN_BYTES,
        )?,
        fixed(
            events().map(|event| event.parent_span_id.as_ref().map(|id| id.as_bytes().as_slice())),
            SPAN_BYTES,
        )?,
        names(events().map(|event| event.producer.as_deref())),
        Arc::new(events().map(|event| event.producer_seq).collect::<UInt64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.partition)).collect::<UInt32Array>()),
        Arc::new(rows.iter().map(|row| Some(row.offset)).collect::<UInt64Array>()),
    ];
    for column in COLUMNS {
        columns.push(payload_column(column, rows));
    }
    columns.push(attributes(rows));
    RecordBatch::try_new(Arc::clone(Table::Events.schema()), columns)
}

/// Events of rows of the `events` table. Columns that the batch lacks are absent from the events.
pub fn to_events(batch: &RecordBatch) -> Result<Vec<StoredEvent>, ArrowError> {
    let mut events = envelopes(batch)?;
    for column in COLUMNS {
        if let Some(array) = batch.column_by_name(column.name) {
            read_column(column, array, &mut events)?;
        }
    }
    if let Some(array) = batch.column_by_name("attributes") {
        let array = texts(array)?;
        for (stored, text) in events.iter_mut().zip(&array) {
            if let Some(text) = text {
                let kept: std::collections::BTreeMap<String, String> =
                    serde_json::from_str(text).map_err(|error| ArrowError::JsonError(error.to_string()))?;
                stored.event.payload.attributes.extend(kept);
            }
        }
    }
    Ok(events)
}

fn fixed<'a>(values: impl Iterator<Item = Option<&'a [u8]>>, width: i32) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, width)?))
}

fn times(values: impl Iterator<Item = Timestamp>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from_iter_values(values.map(Timestamp::nanos)).with_timezone("+00:00"))
}

pub(super) fn names<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for value in values {
        builder.append_option(value);
    }
    Arc::new(builder.finish())
}

fn payload_column(column: &Column, rows: &[Row<'_>]) -> ArrayRef {
    let values = rows.iter().map(|row| (column.read)(&row.event.payload));
    let text = |value| if let Value::Text(text) = value { Some(text) } else { None };
    match column.kind {
        Kind::Name => names(values.map(text)),
        Kind::Text => Arc::new(values.map(text).collect::<StringArray>()),
        Kind::Count => Arc::new(
            values
                .map(|value| if let Value::Count(n) = value { Some(n) } else { None })
                .collect::<UInt64Array>(),
        ),
        Kind::Code => Arc::new(
            values
                .map(|value| if let Value::Code(n) = value { Some(n) } else { None })
                .collect::<Int64Array>(),
        ),
    }
}

fn attributes(rows: &[Row<'_>]) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for row in rows {
        let kept = &row.event.payload.attributes;
        // A map of texts always has a JSON form.
        builder.append_option((!kept.is_empty()).then(|| serde_json::to_string(kept).unwrap_or_default()));
    }
    Arc::new(builder.finish())
}

fn envelopes(batch: &RecordBatch) -> Result<Vec<StoredEvent>, ArrowError> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| ArrowError::SchemaError(format!("the rows lack the column {name}")))
    };
    let text = |name: &str| texts(column(name)?);
    let (ids, traces) = (
        column("id")?.as_fixed_size_binary(),
        column("trace_id")?.as_fixed_size_binary(),
    );
    let (spans, parents) = (
        column("span_id")?.as_fixed_size_binary(),
        column("parent_span_id")?.as_fixed_size_binary(),
    );
    let timestamps = column("timestamp")?.as_primitive::<TimestampNanosecondType>();
    let received = column("received_at")?.as_primitive::<TimestampMillisecondType>();
    let (received_by, sources, types, producers) =
        (text("received_by")?, text("source")?, text("event_type")?, text("producer")?);
    let sequence = column("producer_seq")?.as_primitive::<UInt64Type>();
    let partitions = column("partition")?.as_primitive::<UInt32Type>();
    let offsets = column("offset")?.as_primitive::<UInt64Type>();
    let owned = |array: &StringArray, row: usize| array.is_valid(row).then(|| array.value(row).to_owned());
    let bytes = |array: &FixedSizeBinaryArray, row: usize| array.is_valid(row).then(|| array.value(row).to_vec());
    let span =
        |array: &FixedSizeBinaryArray, row: usize| bytes(array, row).and_then(|id| SpanId::from_bytes(id.try_into().ok()?));
    (0..batch.num_rows())
        .map(|row| {
            let id = bytes(ids, row).and_then(|id| id.try_into().ok()).map(EventId::from_bytes);
            Ok(StoredEvent {
                partition: partitions.value(row),
                offset: offsets.value(row),
                event: Event {
                    version: WireVersion,
                    id: id.ok_or_else(|| ArrowError::SchemaError("an id is not of 16 bytes".to_owned()))?,
                    timestamp: Timestamp::from_nanos(timestamps.value(row)),
                    received_at: Timestamp::from_millis(received.value(row)),
                    received_by: owned(&received_by, row),
                    source: owned(&sources, row).unwrap_or_default(),
                    event_type: owned(&types, row).unwrap_or_default(),
                    trace_id: bytes(traces, row).and_then(|id| TraceId::from_bytes(id.try_into().ok()?)),
                    span_id: span(spans, row),
                    parent_span_id: span(parents, row),
                    producer: owned(&producers, row),
                    producer_seq: sequence.is_valid(row).then(|| sequence.value(row)),
                    payload: Box::<Payload>::default(),
                },
            })
        })
        .collect()
}

/// Text of any of Arrow's forms as plain text.
fn texts(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn read_column(column: &'static Column, array: &ArrayRef, events: &mut [StoredEvent]) -> Result<(), ArrowError> {
    match column.kind {
        Kind::Name | Kind::Text => {
            let array = texts(array)?;
            for (stored, text) in events.iter_mut().zip(&array) {
                let Some(text) = text else { continue };
                // A later version may know more words; what this one cannot name is kept as it is.
                if !(column.write)(&mut stored.event.payload, Value::Text(text)) {
                    stored
                        .event
                        .payload
                        .attributes
                        .insert(column.name.to_owned(), text.to_owned());
                }
            }
        }
        Kind::Count => {
            for (stored, count) in events.iter_mut().zip(array.as_primitive::<UInt64Type>()) {
                (column.write)(&mut stored.event.payload, count.map_or(Value::Absent, Value::Count));
            }
        }
        Kind::Code => {
            for (stored, code) in events.iter_mut().zip(array.as_primitive::<Int64Type>()) {
                (column.write)(&mut stored.event.payload, code.map_or(Value::Absent, Value::Code));
            }
        }
    }
    Ok(())
}
