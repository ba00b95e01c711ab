//! People's SQL: what it sees, what it is refused, where it ends.

use super::*;

fn ask(sql: &str) -> SqlQuery {
    SqlQuery {
        scope: Scope::All,
        sql: sql.to_owned(),
        time_max: Duration::from_secs(20),
        rows_max: 1_000,
        memory_bytes_max: 64 << 20,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_over_files_and_hot_rows_sees_the_scope_alone() {
    let folder = Folder::new();
    let mut batches = contract::batches(3, 100).into_iter();
    for batch in batches.by_ref().take(6) {
        folder.insert(batch.into()).await.unwrap();
    }
    folder.flush().await.unwrap();
    for batch in batches {
        folder.insert(batch.into()).await.unwrap();
    }
    for table in ["events", "calls_hourly", "calls_daily"] {
        let sql = format!("SELECT DISTINCT namespace FROM {table} WHERE server <> 'x' OR server IS NULL OR true");
        let answer = folder
            .sql(SqlQuery {
                scope: globex(),
                ..ask(&sql)
            })
            .await
            .unwrap();
        assert_eq!(answer.rows, [["globex"]], "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_sees_the_scope_alone_whatever_it_says() {
    let bench = Bench::with_events().await;
    for sql in [
        "SELECT DISTINCT namespace FROM events",
        "SELECT DISTINCT namespace FROM calls_hourly",
        "SELECT DISTINCT namespace FROM calls_daily WHERE namespace <> 'globex' OR true",
        "SELECT a.namespace FROM events a, events b WHERE a.id = b.id GROUP BY 1",
        "WITH e AS (SELECT * FROM events) SELECT namespace FROM e UNION SELECT namespace FROM calls_daily",
        "SELECT DISTINCT (SELECT max(namespace) FROM events) AS n FROM events",
        "SELECT DISTINCT \"namespace\" FROM mcp.public.events",
    ] {
        let answer = bench
            .sql(SqlQuery {
                scope: globex(),
                ..ask(sql)
            })
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(answer.rows, [["globex"]], "{sql}");
    }
    let nothing = Scope::Only {
        namespaces: Vec::new(),
        teams: Vec::new(),
    };
    let answer = bench
        .sql(SqlQuery {
            scope: nothing,
            ..ask("SELECT count(*) FROM events")
        })
        .await
        .unwrap();
    assert_eq!(answer.rows, [[0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_or_wrong_sql_is_refused_with_a_sentence() {
    let bench = Bench::with_events().await;
    let mut said = Vec::new();
    let deep = format!("SELECT {}1{}", "(".repeat(3_000), ")".repeat(3_000));
    let long = format!("SELECT 1{}", "+1".repeat(10_000));
    for sql in [
        "INSERT INTO events SELECT * FROM events",
        "DELETE FROM events",
        "UPDATE events SET server = 'x'",
        "DROP TABLE events",
        "CREATE TABLE t AS SELECT * FROM events",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "CREATE VIEW v AS SELECT 1",
        "COPY events TO '/tmp/stolen.parquet'",
        "COPY (SELECT 1) TO 'x.csv'",
        "SET datafusion.execution.target_partitions = 1000",
        "SHOW TABLES",
        "EXPLAIN ANALYZE SELECT * FROM events",
        "DESCRIBE events",
        "PREPARE p AS SELECT 1",
        "SELECT * INTO t FROM events",
        "SELECT 1; DROP TABLE events",
        "",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'https://example.com/x.parquet'",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT repeat('x', 2000000000)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT tol_name FROM events",
        "SELECT sever FROM calls_hourly",
        "SELECT * FROM event",
        "SELECT cuont(*) FROM events",
        "SELEC 1",
        "SELECT server FROM events WHERE",
        "SELECT CAST('x' AS INT)",
        "SELECT server, count(*) FROM events",
        "SELECT server + 1 FROM events",
        &deep,
        &long,
    ] {
        let shown: String = sql.chars().take(72).collect();
        let error = match bench.sql(ask(sql)).await {
            Err(QueryError::Failed(error)) => panic!("{sql}: {error}"),
            Err(error) => error.to_string(),
            Ok(answer) => panic!("{sql} was answered: {:?}", answer.rows),
        };
        said.push(format!("{shown}\n    {error}"));
    }
    insta::assert_snapshot!("refusals", said.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_that_nests_as_deep_as_its_length_allows_does_not_take_the_process_along() {
    let bench = Bench::with_events().await;
    for sql in [
        format!("SELECT 1{}", "+1".repeat(8_000)),
        format!("SELECT 1 WHERE {}true", "NOT ".repeat(4_000)),
        format!("SELECT 1 WHERE true{}", " OR true".repeat(2_000)),
        format!("SELECT {}1", "-".to_string() + &"- ".repeat(7_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(800)),
        format!("SELECT 'a'{}", "||'a'".repeat(3_000)),
    ] {
        // Answered or refused: either is right.
        drop(bench.sql(ask(&sql)).await);
    }
    assert_eq!(bench.sql(ask("SELECT 1 AS one")).await.unwrap().rows, [[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_ends_at_its_limits_and_says_which() {
    let bench = Bench::with_events().await;
    let answer = bench
        .sql(SqlQuery {
            rows_max: 5,
            ..ask("SELECT id FROM events")
        })
        .await
        .unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (5, true));
    let answer = bench
        .sql(SqlQuery {
            rows_max: 5,
            ..ask("SELECT id FROM events LIMIT 5")
        })
        .await
        .unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (5, false));

    let endless = "SELECT count(*) FROM events a, events b, events c, events d WHERE a.latency_us + b.latency_us + c.latency_us > d.latency_us";
    let error = bench
        .sql(SqlQuery {
            time_max: Duration::from_millis(300),
            ..ask(endless)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::OverLimit(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the query took longer than 0.3 s; narrow the time range, or ask calls_hourly or calls_daily instead of events"
    );

    let greedy = "SELECT length(string_agg(a.source, ',')) FROM events a, events b";
    let error = bench
        .sql(SqlQuery {
            memory_bytes_max: 4 << 20,
            ..ask(greedy)
        })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the query needs more than 4 MiB of memory; narrow the time range, select fewer columns or group by fewer values"
    );
    assert_eq!(
        bench.sql(ask("SELECT 1 AS one")).await.unwrap().rows,
        [[1]],
        "later queries are answered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_answers_in_json_with_types_in_words_and_reads_sketches() {
    let bench = Bench::with_events().await;
    let all = bench.usage(UsageQuery {
        filter: Filter {
            since: Some(Timestamp::MIN),
            until: Some(Timestamp::MIN.plus(Duration::from_secs(9))),
            ..Filter::all(Scope::All)
        },
        limit: 1,
        step: Duration::from_hours(1),
    });
    assert_eq!(
        all.await.unwrap().totals.calls.events,
        0,
        "the earliest times that can be told are no fault"
    );
    let answer = bench
        .sql(ask("SELECT id, trace_id, timestamp, server, status, latency_us / 2.0 AS half, status = 200 AS fine FROM events ORDER BY id LIMIT 1"))
        .await
        .unwrap();
    let types: Vec<_> = answer.columns.iter().map(|(name, of)| format!("{name} {of}")).collect();
    assert_eq!(
        types,
        [
            "id text",
            "trace_id text",
            "timestamp time",
            "server text",
            "status integer",
            "half number",
            "fine boolean"
        ]
    );
    let first = &answer.rows[0];
    assert_eq!(first[0].as_str().unwrap().len(), 36);
    assert!(first[2].as_str().unwrap().starts_with("2026-11-01T"), "{first:?}");

    let of = |table: &str, latency: &str, distinct: &str| {
        format!(
            "SELECT latency_at({latency}, 0.95) AS p95, distinct_count({distinct}) AS different FROM {table} WHERE server = 'mail'"
        )
    };
    let asked = async |table: &str, latency: &str, distinct: &str| bench.sql(ask(&of(table, latency, distinct))).await.unwrap();
    let callers = asked("events", "latency_sketch(latency_us)", "distinct_sketch(human_id, agent_id)").await;
    let rolled = asked("calls_daily", "sketch_merge(latency)", "distinct_merge(callers)").await;
    assert_eq!(callers.rows, rolled.rows);
    let raw = asked("events", "latency_sketch(latency_us)", "distinct_sketch(human_id)").await;
    let daily = asked("servers_daily", "sketch_merge(latency)", "distinct_merge(humans)").await;
    assert_eq!(raw.rows, daily.rows);
    assert!(
        raw.rows[0][0].as_u64().unwrap() > 0 && raw.rows[0][1].as_u64().unwrap() > 0,
        "{:?}",
        raw.rows
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_answers_in_columns_with_the_same_rows_and_bounds() {
    let bench = Bench::with_events().await;
    let question = "SELECT id, server, latency_us FROM events WHERE server = 'mail' ORDER BY id";
    for (rows_max, truncated) in [(1_000, false), (3, true)] {
        let question = SqlQuery {
            rows_max,
            scope: globex(),
            ..ask(question)
        };
        let answer = bench.engine.sql_arrow(bench.tables(), question.clone()).await.unwrap();
        let told = bench.sql(question).await.unwrap();
        assert_eq!((answer.truncated, told.truncated), (truncated, truncated));
        let reader = arrow::ipc::reader::StreamReader::try_new(answer.stream.as_ref(), None).unwrap();
        let names: Vec<_> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["id", "server", "latency_us"]);
        let ids = reader.flat_map(|batch| {
            let texts = arrow::compute::cast(batch.unwrap().column(0), &arrow::datatypes::DataType::Utf8).unwrap();
            arrow::array::AsArray::as_string::<i32>(&texts)
                .iter()
                .map(|id| id.unwrap().to_owned())
                .collect::<Vec<_>>()
        });
        let theirs = told.rows.iter().map(|row| row[0].as_str().unwrap().to_owned());
        assert_eq!(ids.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
    }
}
