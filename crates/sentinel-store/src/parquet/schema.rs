//! The tables as Arrow sees them: in memory, in files and in queries one and the same schema.
//!
//! A later version may add columns at the end of the payload; files written before then lack them and read as null.
//! Nothing is ever renamed or given another type: that is a new table.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use domain::{COLUMNS, Kind};

/// Version of the schemas below, written into every file and the manifest.
pub const SCHEMA_VERSION: u32 = 2;

/// Columns of [`events`] before the payload.
pub const ENVELOPE: usize = 13;

/// Bytes of an id or trace id.
pub const ID_BYTES: i32 = 16;
/// Bytes of a span id.
pub const SPAN_BYTES: i32 = 8;

/// A table that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// One row per event.
    Events,
    /// One or more rows per hour and [`CALL_KEYS`]; rows of equal key are to be added up.
    Hourly,
    /// One or more rows per UTC day and [`CALL_KEYS`]; rows of equal key are to be added up.
    Daily,
    /// One or more rows per hour and [`SERVER_KEYS`]; rows of equal key are to be added up.
    ServersHourly,
    /// One or more rows per UTC day and [`SERVER_KEYS`]; rows of equal key are to be added up.
    ServersDaily,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] = [
        Self::Events,
        Self::Hourly,
        Self::Daily,
        Self::ServersHourly,
        Self::ServersDaily,
    ];

    /// Name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Hourly => "calls_hourly",
            Self::Daily => "calls_daily",
            Self::ServersHourly => "servers_hourly",
            Self::ServersDaily => "servers_daily",
        }
    }

    /// The column with the time of a row.
    pub const fn time_column(self) -> &'static str {
        match self {
            Self::Events => "timestamp",
            _ => "bucket",
        }
    }

    /// Columns by which a rollup groups, after `bucket`, in order.
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Events => &[],
            Self::Hourly | Self::Daily => &CALL_KEYS,
            Self::ServersHourly | Self::ServersDaily => &SERVER_KEYS,
        }
    }

    /// Distinct sketches of a rollup ([`crate::sketch::DistinctSketch`]), in order after the latency. Each stands where it is asked
    /// for: sketches are most of a rollup's bytes.
    pub const fn distincts(self) -> &'static [&'static str] {
        match self {
            Self::Events => &[],
            Self::Hourly | Self::Daily => &["callers"],
            Self::ServersHourly | Self::ServersDaily => &["humans", "agents", "sessions"],
        }
    }

    /// What a row of a rollup covers.
    pub const fn step(self) -> Option<Duration> {
        match self {
            Self::Events => None,
            Self::Hourly | Self::ServersHourly => Some(Duration::from_hours(1)),
            Self::Daily | Self::ServersDaily => Some(Duration::from_hours(24)),
        }
    }

    /// Columns and types.
    pub fn schema(self) -> &'static SchemaRef {
        match self {
            Self::Events => &EVENTS,
            Self::Hourly | Self::Daily => &CALLS,
            Self::ServersHourly | Self::ServersDaily => &SERVERS,
        }
    }
}

/// Columns by which the rollups of calls group.
pub const CALL_KEYS: [&str; 8] = [
    "namespace",
    "server",
    "team_id",
    "tool_name",
    "rpc_method",
    "event_type",
    "outcome",
    "decision",
];
/// Columns by which the rollups of servers group.
pub const SERVER_KEYS: [&str; 3] = ["namespace", "server", "team_id"];
/// Sums of a rollup, in order after the keys.
pub const ROLLUP_SUMS: [&str; 6] = ["events", "allowed", "denied", "errors", "bytes_in", "bytes_out"];
/// Sketch of `latency_us`, a [`crate::sketch::LatencySketch`].
pub const LATENCY: &str = "latency";
/// Greatest `timestamp` of the rows.
pub const LAST_SEEN: &str = "last_seen";

static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new("id", DataType::FixedSizeBinary(ID_BYTES), false),
        Field::new("timestamp", time(), false),
        // Ours, and told to the millisecond: finer it would only be noise that does not compress.
        Field::new(
            "received_at",
            DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())),
            false,
        ),
        Field::new("received_by", name(), true),
        Field::new("source", name(), false),
        Field::new("event_type", name(), false),
        Field::new("trace_id", DataType::FixedSizeBinary(ID_BYTES), true),
        Field::new("span_id", DataType::FixedSizeBinary(SPAN_BYTES), true),
        Field::new("parent_span_id", DataType::FixedSizeBinary(SPAN_BYTES), true),
        Field::new("producer", name(), true),
        Field::new("producer_seq", DataType::UInt64, true),
        Field::new("partition", DataType::UInt32, false),
        Field::new("offset", DataType::UInt64, false),
    ];
    fields.extend(
        COLUMNS
            .iter()
            .map(|column| Field::new(column.name, of_kind(column.kind), true)),
    );
    fields.push(Field::new("attributes", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
});

static CALLS: LazyLock<SchemaRef> = LazyLock::new(|| rollup(Table::Hourly));
static SERVERS: LazyLock<SchemaRef> = LazyLock::new(|| rollup(Table::ServersHourly));

fn rollup(table: Table) -> SchemaRef {
    let mut fields = vec![Field::new("bucket", time(), false)];
    fields.extend(table.keys().iter().map(|key| Field::new(*key, name(), true)));
    fields.extend(ROLLUP_SUMS.iter().map(|sum| Field::new(*sum, DataType::UInt64, false)));
    fields.push(Field::new(LATENCY, DataType::Binary, false));
    fields.extend(
        table
            .distincts()
            .iter()
            .map(|distinct| Field::new(*distinct, DataType::Binary, false)),
    );
    fields.push(Field::new(LAST_SEEN, time(), false));
    Arc::new(Schema::new(fields))
}

/// Nanoseconds in UTC. The offset is spelt in digits because Arrow knows zone names only with the time zone database built in.
pub fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()))
}

/// Text with few distinct values.
pub fn name() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn of_kind(kind: Kind) -> DataType {
    match kind {
        Kind::Name => name(),
        Kind::Text => DataType::Utf8,
        Kind::Count => DataType::UInt64,
        Kind::Code => DataType::Int64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_payload_is_in_the_table_once_and_in_order() {
        let schema = Table::Events.schema();
        assert_eq!(schema.fields().len(), ENVELOPE + COLUMNS.len() + 1);
        for (at, column) in COLUMNS.iter().enumerate() {
            assert_eq!(schema.field(ENVELOPE + at).name(), column.name);
            assert_eq!(
                schema.index_of(column.name).unwrap(),
                ENVELOPE + at,
                "two columns named {}",
                column.name
            );
        }
    }

    #[test]
    fn a_rollup_groups_by_columns_that_events_have_with_the_same_type() {
        for table in Table::ALL {
            for key in table.keys() {
                let (event, rollup) = (Table::Events.schema(), table.schema());
                assert_eq!(
                    event.field_with_name(key).unwrap().data_type(),
                    rollup.field_with_name(key).unwrap().data_type()
                );
            }
        }
    }
}
