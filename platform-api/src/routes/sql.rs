//! A person's SQL: bounded, read-only, and confined by the store to what they may see.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use domain::analytics::Horizon;
use http::header::{self, HeaderName};
use sentinel_store::{SqlAnswer, SqlQuery};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::Problem;
use service_kit::problem::JsonBody;

use super::Call;
use crate::api::{Api, json};

/// Longest SQL, in bytes.
const SQL_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    sql: String,
    #[serde(default)]
    format: Format,
    /// Most rows, at most the bound of the service.
    #[serde(default)]
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

#[derive(Debug, Serialize)]
struct ColumnView<'a> {
    name: &'a str,
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
struct AnswerView<'a> {
    columns: Vec<ColumnView<'a>>,
    rows: &'a [Vec<Value>],
    row_count: usize,
    truncated: bool,
    #[serde(flatten)]
    horizon: Horizon,
}

pub(super) async fn query(
    State(api): State<Api>,
    Extension(call): Extension<Call>,
    JsonBody(question): JsonBody<Question>,
) -> Result<Response, Problem> {
    let config = &api.0.config;
    if question.sql.trim().is_empty() {
        return Err(Problem::unprocessable("`sql` is empty").with_code("invalid_query"));
    }
    if question.sql.len() > SQL_BYTES_MAX {
        return Err(Problem::unprocessable(format!("`sql` is longer than {SQL_BYTES_MAX} bytes")).with_code("invalid_query"));
    }
    if question.limit == Some(0) {
        return Err(Problem::unprocessable("`limit` must be at least 1").with_code("invalid_query"));
    }
    let query = SqlQuery {
        scope: call.caller.scope,
        sql: question.sql,
        // The store gives up a little before we do, for it can say what took so long.
        time_max: config.query_time_max / 10 * 9,
        rows_max: question.limit.unwrap_or(u64::MAX).min(config.sql_rows_max),
        memory_bytes_max: config.sql_memory_bytes_max,
    };
    if question.format == Format::Arrow {
        let answer = api.ask(api.0.reader.sql_arrow(query)).await?;
        let kind = "application/vnd.apache.arrow.stream";
        return Ok((told(kind, answer.truncated, &answer.horizon), answer.stream).into_response());
    }
    let answer = api.ask(api.0.reader.sql(query)).await?;
    match question.format {
        Format::Json | Format::Arrow => Ok(json(AnswerView {
            columns: answer
                .columns
                .iter()
                .map(|(name, kind)| ColumnView { name, r#type: kind })
                .collect(),
            row_count: answer.rows.len(),
            rows: &answer.rows,
            truncated: answer.truncated,
            horizon: answer.horizon,
        })),
        Format::Csv => csv_answer(&answer),
    }
}

fn csv_answer(answer: &SqlAnswer) -> Result<Response, Problem> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(answer.columns.iter().map(|(name, _)| name))
        .map_err(Problem::internal)?;
    for row in &answer.rows {
        writer.write_record(row.iter().map(cell)).map_err(Problem::internal)?;
    }
    let text = writer.into_inner().map_err(|error| Problem::internal(error.into_error()))?;
    let kind = "text/csv; charset=utf-8; header=present";
    Ok((told(kind, answer.truncated, &answer.horizon), text).into_response())
}

/// Only JSON has a place for how current and how complete an answer is; elsewhere it is told in headers.
fn told(kind: &str, truncated: bool, horizon: &Horizon) -> [(HeaderName, String); 4] {
    [
        (header::CONTENT_TYPE, kind.to_owned()),
        (HeaderName::from_static("x-truncated"), truncated.to_string()),
        (HeaderName::from_static("x-as-of"), horizon.as_of.to_string()),
        (
            HeaderName::from_static("x-complete-through"),
            horizon.complete_through.to_string(),
        ),
    ]
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
