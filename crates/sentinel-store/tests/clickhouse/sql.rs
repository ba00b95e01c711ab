//! People's SQL sees what its scope allows, and can neither widen it nor write nor run away.

use std::sync::Arc;
use std::time::Duration;

use sentinel_store::clickhouse::ClickHouseStore;
use sentinel_store::query::{Scope, SqlAnswer, SqlQuery};
use sentinel_store::{EventReader as _, EventWriter as _, QueryError, contract};

use crate::engine::{Engine, available};

fn acme() -> Scope {
    Scope::Only {
        namespaces: vec!["acme".to_owned()],
        teams: Vec::new(),
    }
}

fn asked(scope: Scope, sql: &str) -> SqlQuery {
    SqlQuery {
        scope,
        sql: sql.to_owned(),
        time_max: Duration::from_secs(30),
        rows_max: 1_000,
        memory_bytes_max: 1 << 30,
    }
}

async fn filled(engine: &Engine) -> ClickHouseStore {
    let store = engine.store().await;
    for batch in contract::batches(3, 200).into_iter().take(4) {
        store.insert(Arc::new(batch)).await.unwrap();
    }
    store
}

async fn text(store: &ClickHouseStore, scope: Scope, sql: &str) -> String {
    match store.sql(asked(scope, sql)).await {
        Ok(SqlAnswer { rows, .. }) => serde_json::to_string(&rows).unwrap(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_query_sees_its_scope_and_nothing_else() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let store = filled(&engine).await;
    // Not the minutes: they are kept for a week, and these events are older.
    for table in ["events", "calls_hourly", "calls_daily", "servers_hourly", "servers_daily"] {
        let sql = format!("SELECT DISTINCT namespace FROM {table} ORDER BY namespace");
        assert_eq!(text(&store, acme(), &sql).await, r#"[["acme"]]"#, "{table}");
        assert_eq!(
            text(&store, Scope::All, &sql).await,
            r#"[["acme"],["globex"],["initech"]]"#,
            "{table}"
        );
        let nobody = Scope::Only {
            namespaces: Vec::new(),
            teams: Vec::new(),
        };
        assert_eq!(text(&store, nobody, &sql).await, "[]", "{table}");
    }
    let around = [
        "SELECT count() FROM (SELECT * FROM events) WHERE namespace != 'acme'",
        "SELECT count() FROM events AS a JOIN events AS b USING (trace_id) WHERE b.namespace != 'acme'",
        "WITH e AS (SELECT namespace FROM events UNION ALL SELECT namespace FROM calls_daily) SELECT count() FROM e WHERE namespace != 'acme'",
        "SELECT count() FROM blocks",
        "SELECT count() FROM event_ids",
        "SELECT countIf(namespace != 'acme') FROM merge(currentDatabase(), 'events')",
        "SELECT countIf(namespace != 'acme') FROM merge(currentDatabase(), 'events') AS events",
        "SELECT count() FROM system.processes",
    ];
    for sql in around {
        // A condition that is never true leaves a count of nothing, or no row to count in.
        let said = text(&store, acme(), sql).await;
        assert!(said == "[[0]]" || said == "[]", "{sql}: {said}");
    }
}

#[tokio::test]
async fn a_query_without_a_table_is_answered() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let store = filled(&engine).await;
    let asked = [
        ("SELECT 1 AS one", "[[1]]"),
        (
            "SELECT (SELECT count() FROM events WHERE namespace != 'acme') AS others",
            "[[0]]",
        ),
        (
            "SELECT (SELECT count() FROM events) = (SELECT sum(events) FROM calls_daily) AS same",
            "[[1]]",
        ),
        ("SELECT number FROM numbers(3) ORDER BY number", "[[0],[1],[2]]"),
        (
            "SELECT (SELECT count() FROM blocks) AS blocks, (SELECT count() FROM system.tables) AS tables",
            "[[0,0]]",
        ),
    ];
    for (sql, answer) in asked {
        assert_eq!(text(&store, acme(), sql).await, answer, "{sql}");
    }
    let own = text(&store, acme(), "SELECT (SELECT count() FROM events) > 0 AS own").await;
    assert_eq!(own, "[[1]]");
}

#[tokio::test]
async fn what_is_not_a_question_is_refused_with_a_reason() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let store = filled(&engine).await;
    let refused = [
        "",
        "INSERT INTO events (id) VALUES (generateUUIDv4())",
        "DROP TABLE events",
        "SET readonly = 0",
        "SELECT 1; DROP TABLE events",
        "SELECT * FROM events SETTINGS additional_table_filters = {}",
        "SELECT * FROM (SELECT * FROM events SETTINGS additional_table_filters = {})",
        "SELECT * FROM events SETTINGS readonly = 0",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/x', 'CSV', 'a String')",
        "SELECT tol_name FROM events",
        "SELECT * FROM event",
        "SELECT cuont(*) FROM events",
        "SELECT server FROM events WHERE",
        "SELECT server, count() FROM events",
    ];
    let mut said = Vec::new();
    for sql in refused {
        let error = store.sql(asked(acme(), sql)).await.expect_err(sql);
        assert!(matches!(error, QueryError::Invalid(_)), "{sql}: {error:?}");
        said.push(format!("{sql}\n    {error}"));
    }
    let said = said.join("\n");
    assert!(!said.contains("globex"), "{said}");
    assert!(said.contains("may only read"), "{said}");
    assert!(said.contains("there is no statement"), "{said}");
}

#[tokio::test]
async fn rows_time_and_memory_of_a_query_are_bounded() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let store = filled(&engine).await;
    let few = SqlQuery {
        rows_max: 7,
        ..asked(
            Scope::All,
            "SELECT id, timestamp, latency_us, server FROM events ORDER BY timestamp",
        )
    };
    let answer = store.sql(few).await.unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (7, true));
    let types: Vec<&str> = answer.columns.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(types, ["text", "time", "integer", "text"]);

    let long = SqlQuery {
        time_max: Duration::from_millis(300),
        ..asked(
            Scope::All,
            "SELECT count() FROM events AS a, events AS b, events AS c WHERE sipHash64(a.id, b.id, c.id) = 0",
        )
    };
    let error = store.sql(long).await.unwrap_err();
    assert!(
        matches!(&error, QueryError::OverLimit(text) if text.contains("longer than 0.3 s")),
        "{error:?}"
    );
    let wide = SqlQuery {
        memory_bytes_max: 8 << 20,
        ..asked(
            Scope::All,
            "SELECT groupArray(concat(toString(a.id), toString(b.id))) FROM events AS a, events AS b",
        )
    };
    let error = store.sql(wide).await.unwrap_err();
    assert!(
        matches!(&error, QueryError::OverLimit(text) if text.contains("8 MiB")),
        "{error:?}"
    );
}
