//! A person's SQL, confined by the server.
//!
//! What confines it is settings that the query itself cannot change, because the last of them makes the query read-only: each table
//! of the store is read through a condition (`additional_table_filters`) that keeps the rows of others out; its own tables, the
//! system's, and what table functions make (`merge` reads tables without their conditions) are read through one that is never true;
//! and time, memory, threads and rows have bounds. Beside it stands the user that
//! runs it (`sql_account`): it may read the tables of answers, and neither system tables nor table functions.

use std::time::Duration;

use clickhouse::native::DataTypeNode;
use domain::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use super::ClickHouseStore;
use super::link::{Fault, quoted};
use super::terms::scope;
use crate::QueryError;
use crate::query::{Scope, SqlAnswer, SqlQuery};

/// Tables that people may ask, all with the columns that a scope is about.
pub(super) const ASKED: [&str; 6] = [
    "events",
    "calls_hourly",
    "calls_daily",
    "servers_hourly",
    "servers_daily",
    "calls_minutely",
];
/// Tables of the store that nobody asks.
const OWN: [&str; 4] = ["event_ids", "blocks", "watermarks", "migrations"];

/// Longest text of a query.
const TEXT_BYTES_MAX: usize = 16 << 10;
const ADVICE: &str = "ask one SELECT over events, calls_hourly or calls_daily";

impl ClickHouseStore {
    pub(super) async fn answer_sql(&self, query: SqlQuery) -> Result<SqlAnswer, QueryError> {
        let text = query.sql.trim().trim_end_matches(';');
        if text.is_empty() {
            return Err(QueryError::Invalid(format!("there is no statement; {ADVICE}")));
        }
        if text.len() > TEXT_BYTES_MAX {
            let length = text.len();
            return Err(QueryError::Invalid(format!(
                "the SQL has {length} bytes, at most {TEXT_BYTES_MAX} are read; shorten it"
            )));
        }
        // For a better answer than the server's, which refuses all else by being read-only.
        let begins = |word: &str| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        if !(begins("select") || begins("with") || begins("(")) {
            return Err(QueryError::Invalid(format!("only SELECT is answered; {ADVICE}")));
        }
        let horizon = self.horizon_now();
        let asked = self.confined(text, &query);
        let answer = timeout(query.time_max, rows(asked)).await;
        let (columns, mut rows) = answer
            .map_err(|_| Fault::Late(query.time_max))
            .and_then(|answer| answer)
            .map_err(|fault| explain(fault, &query))?;
        let rows_max = usize::try_from(query.rows_max).unwrap_or(usize::MAX);
        let truncated = rows.len() > rows_max;
        rows.truncate(rows_max);
        Ok(SqlAnswer {
            columns,
            rows,
            truncated,
            horizon,
        })
    }

    fn confined(&self, text: &str, query: &SqlQuery) -> clickhouse::query::Query {
        let seconds = query.time_max.as_secs_f64().max(0.1);
        let memory = query.memory_bytes_max.to_string();
        let rows = query.rows_max.saturating_add(1).to_string();
        let settings = [
            ("additional_table_filters", self.filters(&query.scope)),
            ("max_execution_time", format!("{seconds}")),
            ("timeout_overflow_mode", "throw".to_owned()),
            ("max_memory_usage", memory.clone()),
            ("max_bytes_before_external_sort", "0".to_owned()),
            ("max_bytes_before_external_group_by", "0".to_owned()),
            ("max_result_bytes", memory),
            ("max_result_rows", rows),
            ("result_overflow_mode", "break".to_owned()),
            ("max_ast_depth", "200".to_owned()),
            ("max_query_size", (2 * TEXT_BYTES_MAX).to_string()),
            ("max_threads", "2".to_owned()),
            ("allow_introspection_functions", "0".to_owned()),
            ("allow_ddl", "0".to_owned()),
            ("readonly", "1".to_owned()),
        ];
        let database = &self.link.config.database;
        let client = self.link.sql_client().with_database(database);
        settings
            .into_iter()
            .fold(client.query_raw(text), |asked, (name, value)| asked.with_setting(name, value))
    }

    /// Conditions on every table of the store.
    fn filters(&self, of: &Scope) -> String {
        let seen = scope(of).replace("t.", "");
        let entry = |table: String, condition: &str| format!("{}: {}", quoted(&table), quoted(condition));
        let database = &self.link.config.database;
        let both = |table: &str| [format!("{database}.{table}"), format!("{database}.{table}_local")];
        let asked = ASKED.iter().flat_map(|table| both(table)).map(|table| entry(table, &seen));
        let own = OWN.iter().flat_map(|table| both(table)).map(|table| entry(table, "0"));
        let hidden = self.link.hidden.iter().map(|table| entry(table.clone(), "0"));
        let entries: Vec<String> = asked.chain(own).chain(hidden).collect();
        format!("{{{}}}", entries.join(", "))
    }
}

type Rows = (Vec<(String, &'static str)>, Vec<Vec<Value>>);

/// Runs a query and reads its answer as JSON: the server knows best how its types are written.
async fn rows(asked: clickhouse::query::Query) -> Result<Rows, Fault> {
    let bytes = asked.fetch_bytes("JSONCompactEachRowWithNamesAndTypes")?.collect().await?;
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let strange = |_| Fault::Answer("a FORMAT of its own makes an answer that cannot be read; leave it out");
    let mut names = || -> Result<Vec<String>, Fault> {
        let line = lines.next().ok_or(Fault::Answer("columns are not told"))?;
        serde_json::from_slice(line).map_err(strange)
    };
    let (names, types) = (names()?, names()?);
    let words: Vec<&'static str> = types.iter().map(|kind| type_word(kind)).collect();
    let mut rows = Vec::new();
    for line in lines {
        let values: Vec<Value> = serde_json::from_slice(line).map_err(strange)?;
        rows.push(
            values
                .into_iter()
                .zip(&words)
                .map(|(value, word)| shown(value, word))
                .collect(),
        );
    }
    Ok((names.into_iter().zip(words).collect(), rows))
}

fn type_word(kind: &str) -> &'static str {
    fn word(kind: &DataTypeNode) -> &'static str {
        match kind {
            DataTypeNode::Nullable(inner)
            | DataTypeNode::LowCardinality(inner)
            | DataTypeNode::SimpleAggregateFunction(_, inner) => word(inner),
            DataTypeNode::String | DataTypeNode::FixedString(_) | DataTypeNode::UUID | DataTypeNode::Enum(..) => "text",
            DataTypeNode::Bool => "boolean",
            DataTypeNode::UInt8
            | DataTypeNode::UInt16
            | DataTypeNode::UInt32
            | DataTypeNode::UInt64
            | DataTypeNode::Int8
            | DataTypeNode::Int16
            | DataTypeNode::Int32
            | DataTypeNode::Int64 => "integer",
            DataTypeNode::Float32 | DataTypeNode::Float64 | DataTypeNode::Decimal(..) => "number",
            DataTypeNode::DateTime(_) | DataTypeNode::DateTime64(..) => "time",
            _ => "other",
        }
    }
    DataTypeNode::new(kind).map_or("other", |kind| word(&kind))
}

/// A value as answers show it: whole numbers as numbers, times as RFC 3339, what is nested as text.
fn shown(value: Value, word: &str) -> Value {
    match (word, value) {
        ("integer", Value::String(digits)) => digits
            .parse::<u64>()
            .map(Value::from)
            .or_else(|_| digits.parse::<i64>().map(Value::from))
            .unwrap_or(Value::String(digits)),
        ("time", Value::String(text)) => {
            let iso = format!("{}Z", text.replace(' ', "T"));
            Timestamp::parse(&iso).map_or(Value::String(text), |at| Value::String(at.to_string()))
        }
        ("other", value @ (Value::Array(_) | Value::Object(_))) => Value::String(value.to_string()),
        (_, value) => value,
    }
}

/// Faults of the text: the server's words are for who asked.
const INVALID: [u32; 22] = [
    6, 8, 36, 42, 43, 46, 47, 48, 53, 60, 62, 63, 81, 115, 130, 164, 179, 184, 207, 215, 386, 497,
];

/// What went wrong, as a sentence for who asked.
fn explain(fault: Fault, query: &SqlQuery) -> QueryError {
    let too_long = |time: Duration| {
        let seconds = time.as_secs_f64();
        QueryError::OverLimit(format!(
            "the query took longer than {seconds} s; narrow the time range, or ask calls_hourly or calls_daily instead of events"
        ))
    };
    match fault.said() {
        Some((159 | 160, _)) => too_long(query.time_max),
        Some(_) if fault.is_over_limit() => {
            let mebibytes = query.memory_bytes_max >> 20;
            QueryError::OverLimit(format!(
                "the query needs more than {mebibytes} MiB of memory; narrow the time range, select fewer columns or group by fewer \
                 values"
            ))
        }
        Some((164, words)) => QueryError::Invalid(format!("the query may only read: {}; {ADVICE}", sentence(words))),
        Some((497, words)) => QueryError::Invalid(format!(
            "the query asks for what is not answered: {}; {ADVICE}",
            sentence(words)
        )),
        Some((60 | 81, words)) => QueryError::Invalid(format!("{}; {ADVICE}", sentence(words))),
        Some((code, words)) if INVALID.contains(&code) => {
            QueryError::Invalid(format!("the SQL cannot be answered: {}", sentence(words)))
        }
        Some(_) => QueryError::Failed(fault.into()),
        None => match fault {
            Fault::Late(time) => too_long(time),
            Fault::Answer(text) => QueryError::Invalid(text.to_owned()),
            Fault::Refused(_) => QueryError::Failed(fault.into()),
        },
    }
}

/// The server's first sentence, which is about the query; what follows quotes it whole, or is of the server's inside.
fn sentence(words: &str) -> String {
    const CHARS_MAX: usize = 300;
    let line = words.lines().next().unwrap_or_default();
    let line = line.split(" In scope ").next().unwrap_or(line);
    let line = line.split(" (version ").next().unwrap_or(line);
    line.trim_end_matches(['.', ' ', ':']).chars().take(CHARS_MAX).collect()
}
