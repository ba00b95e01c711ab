//! A person's SQL: one `SELECT` over the three views, and nothing else in reach.
//!
//! What confines it is what the session has, not what the text says: the only tables are the three, already without the rows of
//! others; there are no table functions, file formats, table factories or information schema; the only statement is a query,
//! checked once as parsed and once as planned. Memory comes from a pool of the query's own, time ends with the caller's wait.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::SchemaError;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{DataFrame, SessionContext, ident};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use domain::Timestamp;
use domain::analytics::Horizon;
use futures::TryStreamExt as _;
use serde_json::Value;

use super::{Engine, MEMORY_UNIT, Tables, run_on, udaf};
use crate::QueryError;
use crate::memory::{now, terms::nearest};
use crate::parquet::schema::{SPAN_BYTES, Table};
use crate::query::{ArrowAnswer, SqlAnswer, SqlQuery};

/// Longest text of a query. Planning recurses, so what nests must end before the stack does.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Deepest nesting of a query.
const DEPTH_MAX: usize = 50;
const ADVICE: &str = "ask one SELECT over events, calls_hourly or calls_daily";

impl Engine {
    pub(in crate::parquet) async fn sql(&self, tables: Arc<dyn Tables>, query: SqlQuery) -> Result<SqlAnswer, QueryError> {
        self.ask_sql(tables, query, |rows, horizon| {
            let mut answer = SqlAnswer {
                columns: rows
                    .schema
                    .fields()
                    .iter()
                    .map(|field| (field.name().clone(), type_word(field.data_type())))
                    .collect(),
                rows: Vec::new(),
                truncated: rows.truncated,
                horizon,
            };
            rows.batches.iter().try_for_each(|batch| append(batch, &mut answer.rows))?;
            Ok(answer)
        })
        .await
    }

    pub(in crate::parquet) async fn sql_arrow(
        &self,
        tables: Arc<dyn Tables>,
        query: SqlQuery,
    ) -> Result<ArrowAnswer, QueryError> {
        self.ask_sql(tables, query, |rows, horizon| {
            let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema)?;
            rows.batches.iter().try_for_each(|batch| writer.write(batch))?;
            Ok(ArrowAnswer {
                stream: writer.into_inner()?.into(),
                truncated: rows.truncated,
                horizon,
            })
        })
        .await
    }

    async fn ask_sql<T: Send + 'static>(
        &self,
        tables: Arc<dyn Tables>,
        query: SqlQuery,
        shape: impl FnOnce(Gathered, Horizon) -> Result<T, DataFusionError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let time_max = query.time_max;
        tokio::time::timeout(time_max, self.sql_in_time(tables, query, shape))
            .await
            .unwrap_or_else(|_| Err(too_long(time_max)))
    }

    async fn sql_in_time<T: Send + 'static>(
        &self,
        tables: Arc<dyn Tables>,
        query: SqlQuery,
        shape: impl FnOnce(Gathered, Horizon) -> Result<T, DataFusionError> + Send + 'static,
    ) -> Result<T, QueryError> {
        if query.sql.len() > TEXT_BYTES_MAX {
            let text = format!(
                "the SQL has {} bytes, at most {TEXT_BYTES_MAX} are read; shorten it",
                query.sql.len()
            );
            return Err(QueryError::Invalid(text));
        }
        let memory = query
            .memory_bytes_max
            .clamp(MEMORY_UNIT, self.settings.memory_bytes_max.max(MEMORY_UNIT));
        let units = u32::try_from(memory / MEMORY_UNIT).unwrap_or(u32::MAX);
        // Others may use the memory: waiting is part of the time allowed.
        let permit = Arc::clone(&self.sql_memory)
            .acquire_many_owned(units)
            .await
            .map_err(|error| QueryError::Failed(error.into()))?;
        let pool = Arc::new(GreedyMemoryPool::new(usize::try_from(memory).unwrap_or(usize::MAX)));
        let environment = self.confined(pool).map_err(|error| QueryError::Failed(error.into()))?;
        let context = SessionContext::new_with_state(self.state(environment));
        let horizon = Horizon {
            as_of: now(),
            complete_through: tables.complete_through(),
        };
        let time_max = query.time_max;
        run_on(&self.sql, async move {
            let answer = async {
                let rows = gather(&context, &*tables, &query).await?;
                shape(rows, horizon).map_err(|error| explain(error, &query))
            };
            // A second clock, on the query's side: a caller that is gone must not leave work behind.
            let answer = tokio::time::timeout(time_max, answer).await;
            drop(permit);
            answer.unwrap_or_else(|_| Err(too_long(time_max)))
        })
        .await
    }
}

/// What a query gave.
#[derive(Debug)]
struct Gathered {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    truncated: bool,
}

fn too_long(time_max: Duration) -> QueryError {
    let seconds = time_max.as_secs_f64();
    QueryError::OverLimit(format!(
        "the query took longer than {seconds} s; narrow the time range, or ask calls_hourly or calls_daily instead of events"
    ))
}

async fn gather(context: &SessionContext, tables: &dyn Tables, query: &SqlQuery) -> Result<Gathered, QueryError> {
    let explained = |error| explain(error, query);
    for table in Table::ALL {
        let rows = context
            .read_table(tables.table(table, &query.scope))
            .and_then(|rows| rows.select(text_columns(table)));
        context
            .register_table(table.name(), rows.map_err(explained)?.into_view())
            .map_err(explained)?;
    }
    let statement = parse(&query.sql).map_err(|error| error.unwrap_or_else(explained))?;
    let plan = context.state().statement_to_plan(statement).await.map_err(explained)?;
    let only_queries = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    only_queries.verify_plan(&plan).map_err(|_| refused())?;
    let rows_max = usize::try_from(query.rows_max).unwrap_or(usize::MAX);
    let rows = DataFrame::new(context.state(), plan)
        .limit(0, Some(rows_max.saturating_add(1)))
        .map_err(explained)?;
    let task = Arc::new(rows.task_ctx());
    let plan = rows.create_physical_plan().await.and_then(yielding).map_err(explained)?;
    let mut gathered = Gathered {
        schema: plan.schema(),
        batches: Vec::new(),
        truncated: false,
    };
    let mut stream = execute_stream(plan, task).map_err(explained)?;
    let (mut bytes, mut left) = (0, rows_max);
    while let Some(batch) = stream.try_next().await.map_err(explained)? {
        bytes += batch.get_array_memory_size();
        if bytes as u64 > query.memory_bytes_max {
            return Err(too_much(query));
        }
        gathered.truncated |= batch.num_rows() > left;
        let taken = batch.num_rows().min(left);
        left -= taken;
        gathered.batches.push(batch.slice(0, taken));
    }
    Ok(gathered)
}

/// The plan, made to pause wherever rows multiply. The engine's own pauses are at the scans, and a join of few rows with few rows
/// may run for hours on what one scan gave: it could not be stopped.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let paused = plan.transform_up(|node| {
        Ok(if node.children().len() > 1 {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    });
    paused.map(|paused| paused.data)
}

/// One query. `Err(Ok(_))` is an answer for who asked, `Err(Err(_))` what the parser says.
fn parse(sql: &str) -> Result<Statement, Result<QueryError, DataFusionError>> {
    let mut parser = DFParserBuilder::new(sql)
        .with_recursion_limit(DEPTH_MAX)
        .build()
        .map_err(Err)?;
    let mut statements = parser.parse_statements().map_err(Err)?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(Statement::Statement(statement)), true) if matches!(*statement, ast::Statement::Query(_)) => {
            Ok(Statement::Statement(statement))
        }
        (Some(_), false) => Err(Ok(QueryError::Invalid(format!("there is more than one statement; {ADVICE}")))),
        (None, _) => Err(Ok(QueryError::Invalid(format!("there is no statement; {ADVICE}")))),
        (Some(_), true) => Err(Ok(refused())),
    }
}

fn refused() -> QueryError {
    QueryError::Invalid(format!("only SELECT is answered; {ADVICE}"))
}

fn too_much(query: &SqlQuery) -> QueryError {
    let mebibytes = query.memory_bytes_max >> 20;
    QueryError::OverLimit(format!(
        "the query needs more than {mebibytes} MiB of memory; narrow the time range, select fewer columns or group by fewer values"
    ))
}

/// What went wrong, as a sentence for who asked.
fn explain(error: DataFusionError, query: &SqlQuery) -> QueryError {
    let said = |text: &str| first_sentence(text);
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => too_much(query),
        DataFusionError::SQL(fault, _) => QueryError::Invalid(format!("the SQL cannot be read: {}", said(&fault.to_string()))),
        DataFusionError::SchemaError(fault, _) => QueryError::Invalid(schema_sentence(fault)),
        DataFusionError::Plan(text) => QueryError::Invalid(plan_sentence(text)),
        DataFusionError::NotImplemented(text) => {
            QueryError::Invalid(format!("the query asks for what is not answered: {}; {ADVICE}", said(text)))
        }
        DataFusionError::Execution(text) => QueryError::Invalid(format!("the query failed on a value: {}", said(text))),
        DataFusionError::ArrowError(fault, _) => {
            QueryError::Invalid(format!("the query failed on a value: {}", said(&fault.to_string())))
        }
        _ => QueryError::Failed(Box::new(error)),
    }
}

fn schema_sentence(fault: &SchemaError) -> String {
    match fault {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let hint = nearest(&field.name, valid_fields.iter().map(|field| field.name.as_str()));
            match hint {
                Some(near) => format!("there is no column {}; did you mean {near}?", field.name),
                None => format!("there is no column {} here", field.name),
            }
        }
        SchemaError::AmbiguousReference { field } => format!(
            "the column {} is in more than one table; write table.{}",
            field.name, field.name
        ),
        other => first_sentence(&other.to_string()),
    }
}

fn plan_sentence(text: &str) -> String {
    if let Some(table) = text.strip_prefix("table '").and_then(|rest| rest.split('\'').next()) {
        let table = table.strip_prefix("mcp.").unwrap_or(table);
        let table = table.strip_prefix("public.").unwrap_or(table);
        return format!("there is no table {table}; {ADVICE}");
    }
    if let Some(function) = text.strip_prefix("table function '").and_then(|rest| rest.split('\'').next()) {
        return format!("there is no table function {function}; {ADVICE}");
    }
    if let Some(function) = text
        .strip_prefix("Invalid function '")
        .and_then(|rest| rest.split('\'').next())
    {
        let near = text.split("Did you mean '").nth(1).and_then(|rest| rest.split('\'').next());
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        return format!("there is no function {function}{hint}");
    }
    format!("the query does not fit together: {}", first_sentence(text))
}

/// The first line in words of people, without a full stop: what follows it is of the engine's inside.
fn first_sentence(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    const WORDS: [(&str, &str); 4] = [
        ("sql parser error: ", ""),
        ("Dictionary(Int32, Utf8)", "text"),
        ("Utf8", "text"),
        ("Int64", "integer"),
    ];
    let line = text.lines().next().unwrap_or_default().to_owned();
    let line = WORDS.iter().fold(line, |line, (engine, person)| line.replace(engine, person));
    line.trim_end_matches('.').chars().take(CHARS_MAX).collect()
}

/// The columns of a table for people: ids as text.
pub(super) fn text_columns(table: Table) -> Vec<Expr> {
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let name = field.name();
        match field.data_type() {
            DataType::FixedSizeBinary(_) if name == "id" => udaf::uuid_text().call(vec![ident(name)]).alias(name),
            DataType::FixedSizeBinary(SPAN_BYTES | 16) => udaf::hex_text().call(vec![ident(name)]).alias(name),
            _ => ident(name),
        }
    };
    table.schema().fields().iter().map(column).collect()
}

fn type_word(of: &DataType) -> &'static str {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Dictionary(_, values) => type_word(values),
        DataType::Boolean => "boolean",
        DataType::Timestamp(..) => "time",
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "number",
        of if of.is_integer() => "integer",
        _ => "other",
    }
}

/// Appends the rows of a batch as JSON values.
fn append(batch: &RecordBatch, rows: &mut Vec<Vec<Value>>) -> Result<(), DataFusionError> {
    let columns: Vec<Vec<Value>> = batch.columns().iter().map(json).collect::<Result<_, _>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    rows.extend((0..batch.num_rows()).map(|_| {
        columns
            .iter_mut()
            .map(|column| column.next().unwrap_or(Value::Null))
            .collect()
    }));
    Ok(())
}

/// A column as JSON values. Numbers that JSON has no form for (not finite) become `null`, times RFC 3339, all else text.
fn json(array: &ArrayRef) -> Result<Vec<Value>, DataFusionError> {
    let word = type_word(array.data_type());
    Ok(match (word, array.data_type()) {
        ("boolean", _) => array.as_boolean().iter().map(Value::from).collect(),
        ("integer", DataType::UInt64) => array.as_primitive::<UInt64Type>().iter().map(Value::from).collect(),
        ("integer", _) => cast(array, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .map(Value::from)
            .collect(),
        ("number", _) => cast(array, &DataType::Float64)?
            .as_primitive::<Float64Type>()
            .iter()
            .map(Value::from)
            .collect(),
        ("text", _) => cast(array, &DataType::Utf8)?
            .as_string::<i32>()
            .iter()
            .map(Value::from)
            .collect(),
        ("time", DataType::Timestamp(unit, _)) => times(array, *unit),
        _ => {
            let options = FormatOptions::default().with_null("");
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let value = |row: usize| {
                if array.is_null(row) {
                    Value::Null
                } else {
                    Value::String(formatter.value(row).to_string())
                }
            };
            (0..array.len()).map(value).collect()
        }
    })
}

fn times(array: &ArrayRef, unit: TimeUnit) -> Vec<Value> {
    let text = |time: Option<Timestamp>| time.map_or(Value::Null, |time| Value::String(time.to_string()));
    match unit {
        TimeUnit::Second => array
            .as_primitive::<TimestampSecondType>()
            .iter()
            .map(|at| text(at.map(Timestamp::from_seconds)))
            .collect(),
        TimeUnit::Millisecond => array
            .as_primitive::<TimestampMillisecondType>()
            .iter()
            .map(|at| text(at.map(Timestamp::from_millis)))
            .collect(),
        TimeUnit::Microsecond => array
            .as_primitive::<TimestampMicrosecondType>()
            .iter()
            .map(|at| text(at.map(Timestamp::from_micros)))
            .collect(),
        TimeUnit::Nanosecond => array
            .as_primitive::<TimestampNanosecondType>()
            .iter()
            .map(|at| text(at.map(Timestamp::from_nanos)))
            .collect(),
    }
}
