//! Events to rows of the `events` table and back.

use std::collections::BTreeMap;

use clickhouse::native::Block;
use domain::analytics::StoredEvent;
use domain::event::WireVersion;
use domain::{COLUMNS, Column, Event, EventId, Kind, Payload, SpanId, Timestamp, TraceId, Value};

use super::link::{Fault, column};
use super::native::BlockBytes;
use crate::sketch::DistinctSketch;

/// Encodes events of one partition as one block.
pub(super) fn encode(partition: u32, rows: &[(u64, &Event)]) -> Vec<u8> {
    let events = || rows.iter().map(|(_, event)| *event);
    let mut block = BlockBytes::new(rows.len());
    block.fixed("id", "UUID", events().map(|event| uuid_bytes(event.id)));
    block.fixed("timestamp", TIME, events().map(|event| event.timestamp.nanos().to_le_bytes()));
    block.fixed(
        "received_at",
        TIME,
        events().map(|event| event.received_at.nanos().to_le_bytes()),
    );
    block.names(
        "received_by",
        events().map(|event| event.received_by.as_deref().unwrap_or_default()),
    );
    block.names("source", events().map(|event| event.source.as_str()));
    block.names("event_type", events().map(|event| event.event_type.as_str()));
    let trace = |id: Option<&TraceId>| id.map_or([0; 16], |id| *id.as_bytes());
    let span = |id: Option<&SpanId>| id.map_or([0; 8], |id| *id.as_bytes());
    block.fixed(
        "trace_id",
        "FixedString(16)",
        events().map(|event| trace(event.trace_id.as_ref())),
    );
    block.fixed(
        "span_id",
        "FixedString(8)",
        events().map(|event| span(event.span_id.as_ref())),
    );
    block.fixed(
        "parent_span_id",
        "FixedString(8)",
        events().map(|event| span(event.parent_span_id.as_ref())),
    );
    block.names(
        "producer",
        events().map(|event| event.producer.as_deref().unwrap_or_default()),
    );
    block.numbers(
        "producer_seq",
        "UInt64",
        events().map(|event| event.producer_seq.map(u64::to_le_bytes)),
    );
    block.fixed("partition", "UInt32", rows.iter().map(|_| partition.to_le_bytes()));
    block.fixed("offset", "UInt64", rows.iter().map(|(offset, _)| offset.to_le_bytes()));
    for column in COLUMNS {
        put_column(&mut block, column, rows);
    }
    block.maps("attributes", events().map(|event| event.payload.attributes.iter()));
    block.hashes("caller", events().map(caller));
    block.finish()
}

const TIME: &str = "DateTime64(9, 'UTC')";

/// The columns of an insert, in order.
pub(super) fn columns() -> String {
    let names: Vec<&str> = ENVELOPE
        .into_iter()
        .chain(COLUMNS.iter().map(|column| column.name))
        .chain(["attributes", "caller"])
        .collect();
    names.join(", ")
}

const ENVELOPE: [&str; 13] = [
    "id",
    "timestamp",
    "received_at",
    "received_by",
    "source",
    "event_type",
    "trace_id",
    "span_id",
    "parent_span_id",
    "producer",
    "producer_seq",
    "partition",
    "offset",
];

/// The server keeps a UUID as two numbers, each with its little end first.
fn uuid_bytes(id: EventId) -> [u8; 16] {
    let mut bytes = *id.as_bytes();
    bytes[..8].reverse();
    bytes[8..].reverse();
    bytes
}

/// The hash by which distinct pairs of person and agent are counted; 0 when neither is known.
fn caller(event: &Event) -> u64 {
    let text = |text: &'_ Option<String>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
    let (human, agent) = (text(&event.payload.human_id), text(&event.payload.agent_id));
    DistinctSketch::hash([human.as_slice(), agent.as_slice()]).unwrap_or_default()
}

fn put_column(block: &mut BlockBytes, column: &Column, rows: &[(u64, &Event)]) {
    let values = rows.iter().map(|(_, event)| (column.read)(&event.payload));
    let text = |value| if let Value::Text(text) = value { text } else { "" };
    match column.kind {
        Kind::Name => block.names(column.name, values.map(text)),
        Kind::Text => block.texts(column.name, values.map(text)),
        Kind::Count => block.numbers(
            column.name,
            "UInt64",
            values.map(|value| {
                if let Value::Count(n) = value {
                    Some(n.to_le_bytes())
                } else {
                    None
                }
            }),
        ),
        Kind::Code => block.numbers(
            column.name,
            "Int64",
            values.map(|value| {
                if let Value::Code(n) = value {
                    Some(n.to_le_bytes())
                } else {
                    None
                }
            }),
        ),
    }
}

/// What to select so that [`decode`] can read it: ids as numbers, times as counts of nanoseconds.
pub(super) fn selection() -> String {
    let special = [
        "reinterpretAsUInt128(UUIDToNum(id)) AS id_bytes",
        "toUnixTimestamp64Nano(timestamp) AS timestamp_nanos",
        "toUnixTimestamp64Nano(received_at) AS received_nanos",
        "reinterpretAsUInt128(trace_id) AS trace_bytes",
        "reinterpretAsUInt64(span_id) AS span_bytes",
        "reinterpretAsUInt64(parent_span_id) AS parent_bytes",
        "received_by, source, event_type, producer, producer_seq, partition, offset, attributes",
    ];
    let names: Vec<&str> = special.into_iter().chain(COLUMNS.iter().map(|column| column.name)).collect();
    names.join(", ")
}

/// Events of rows selected by [`selection`].
pub(super) fn decode(block: &Block) -> Result<Vec<StoredEvent>, Fault> {
    let mut events = envelopes(block)?;
    for known in COLUMNS {
        match known.kind {
            Kind::Name | Kind::Text => {
                for (stored, text) in events.iter_mut().zip(column::<&str>(block, known.name)?) {
                    // A later version may know more words; what this one cannot name is kept as it is.
                    if !text.is_empty() && !(known.write)(&mut stored.event.payload, Value::Text(text)) {
                        let kept = &mut stored.event.payload.attributes;
                        kept.insert(known.name.to_owned(), text.to_owned());
                    }
                }
            }
            Kind::Count => {
                for (stored, count) in events.iter_mut().zip(column::<Option<u64>>(block, known.name)?) {
                    (known.write)(&mut stored.event.payload, count.map_or(Value::Absent, Value::Count));
                }
            }
            Kind::Code => {
                for (stored, code) in events.iter_mut().zip(column::<Option<i64>>(block, known.name)?) {
                    (known.write)(&mut stored.event.payload, code.map_or(Value::Absent, Value::Code));
                }
            }
        }
    }
    Ok(events)
}

fn envelopes(block: &Block) -> Result<Vec<StoredEvent>, Fault> {
    let (ids, traces) = (column::<u128>(block, "id_bytes")?, column::<u128>(block, "trace_bytes")?);
    let (spans, parents) = (column::<u64>(block, "span_bytes")?, column::<u64>(block, "parent_bytes")?);
    let (times, received) = (
        column::<i64>(block, "timestamp_nanos")?,
        column::<i64>(block, "received_nanos")?,
    );
    let (received_by, sources) = (column::<&str>(block, "received_by")?, column::<&str>(block, "source")?);
    let (types, producers) = (column::<&str>(block, "event_type")?, column::<&str>(block, "producer")?);
    let sequence = column::<Option<u64>>(block, "producer_seq")?;
    let (partitions, offsets) = (column::<u32>(block, "partition")?, column::<u64>(block, "offset")?);
    let attributes = column::<BTreeMap<String, String>>(block, "attributes")?;
    let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let event = |(row, attributes): (usize, BTreeMap<String, String>)| StoredEvent {
        partition: partitions[row],
        offset: offsets[row],
        event: Event {
            version: WireVersion,
            id: EventId::from_bytes(ids[row].to_le_bytes()),
            timestamp: Timestamp::from_nanos(times[row]),
            received_at: Timestamp::from_nanos(received[row]),
            received_by: told(received_by[row]),
            source: sources[row].to_owned(),
            event_type: types[row].to_owned(),
            trace_id: TraceId::from_bytes(traces[row].to_le_bytes()),
            span_id: SpanId::from_bytes(spans[row].to_le_bytes()),
            parent_span_id: SpanId::from_bytes(parents[row].to_le_bytes()),
            producer: told(producers[row]),
            producer_seq: sequence[row],
            payload: Box::new(Payload {
                attributes,
                ..Payload::default()
            }),
        },
    };
    Ok(attributes.into_iter().enumerate().map(event).collect())
}

/// What an export selects: the columns in order, ids as text.
pub(super) fn export_selection() -> String {
    let name = |name: &str| match name {
        "id" => "toString(t.id) AS id".to_owned(),
        "trace_id" | "span_id" | "parent_span_id" => {
            format!("if(t.{name} = toFixedString('', length(t.{name})), '', lower(hex(t.{name}))) AS {name}")
        }
        "attributes" => "if(empty(t.attributes), '', toJSONString(t.attributes)) AS attributes".to_owned(),
        name => format!("t.{name}"),
    };
    let names = ENVELOPE
        .into_iter()
        .chain(COLUMNS.iter().map(|column| column.name))
        .chain(["attributes"]);
    names.map(name).collect::<Vec<_>>().join(", ")
}
