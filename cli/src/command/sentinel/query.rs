//! `sentinel query`: a person's SQL.

use clap::{Args, ValueEnum};
use domain::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::Output;
use crate::client::Client;
use crate::fault::Fault;
use crate::render::{self, Done};
use crate::text;

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// One SELECT over events, `calls_hourly` or `calls_daily`
    sql: String,
    /// Print comma-separated values with a header line
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values
    Csv,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<serde_json::Value>>,
    #[serde(default)]
    truncated: bool,
    as_of: Timestamp,
    complete_through: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

pub(crate) async fn run(client: &Client, output: Output, args: &QueryArgs) -> Result<Done, Fault> {
    if args.format == Some(Format::Csv) {
        let body = json!({ "sql": args.sql, "format": "csv" });
        render::text(&client.send_for_text(Method::POST, "/api/v1/query", &body).await?)?;
        return Ok(Done::Well);
    }
    let answer: Answer = client
        .send(Method::POST, "/api/v1/query", Some(&json!({ "sql": args.sql })))
        .await?;
    render::document(output, &answer, table)?;
    Ok(Done::Well)
}

fn table(answer: &Answer) -> String {
    let header: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    let rows = answer.rows.iter().map(|row| row.iter().map(cell).collect());
    let count = answer.rows.len();
    let more = if answer.truncated {
        ", more were left out: aggregate, or add a LIMIT"
    } else {
        ""
    };
    format!(
        "{}\n\n{count} rows{more}; complete through {} UTC",
        render::table(&header, rows),
        text::moment(answer.complete_through)
    )
}

fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(value) => text::safe(value),
        other => other.to_string(),
    }
}
