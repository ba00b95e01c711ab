//! The schema: as rendered for one server and for a cluster, and as applied.

use std::time::Duration;

use domain::COLUMNS;
use sentinel_store::EventReader as _;
use sentinel_store::clickhouse::{ClickHouseStore, Config, MIGRATIONS, OpenError, Placement, apply, plan, render};
use sentinel_store::query::{Scope, SqlQuery};

use crate::engine::{Engine, available};

fn statements(config: &Config) -> String {
    let all = MIGRATIONS.iter().flat_map(|migration| render(*migration, config));
    all.map(|statement| statement + ";\n").collect::<Vec<_>>().join("\n")
}

#[test]
fn migrations_for_one_server() {
    insta::assert_snapshot!(statements(&Config::single("http://localhost:8123")));
}

#[test]
fn migrations_for_a_replicated_cluster() {
    let config = Config {
        placement: Placement::Cluster {
            name: "analytics".to_owned(),
        },
        ..Config::single("http://localhost:8123")
    };
    insta::assert_snapshot!(statements(&config));
}

#[test]
fn a_name_cannot_leave_its_quotes() {
    let config = Config {
        database: "m`; DROP DATABASE x; --".to_owned(),
        ..Config::single("http://localhost:8123")
    };
    assert!(statements(&config).starts_with("CREATE DATABASE IF NOT EXISTS `m\\`; DROP DATABASE x; --`;\n"));
}

#[tokio::test]
async fn migrations_are_planned_then_applied_once_and_hold_every_column() {
    if !available() {
        return;
    }
    let engine = Engine::start().await;
    let config = Config {
        retention: Some(Duration::from_hours(24 * 90)),
        hourly_retention: Some(Duration::from_hours(24 * 400)),
        ..engine.config()
    };
    let missing = ClickHouseStore::open(config.clone()).await;
    assert!(matches!(missing, Err(OpenError::Outdated { applied: 0, .. })), "{missing:?}");
    let planned = plan(&config).await.unwrap();
    assert_eq!(planned.len(), MIGRATIONS.len());
    assert_eq!(plan(&config).await.unwrap(), planned, "planning changes nothing");
    assert_eq!(apply(&config).await.unwrap(), planned);
    assert_eq!(plan(&config).await.unwrap(), []);
    assert_eq!(apply(&config).await.unwrap(), [], "applied migrations are not applied again");

    let store = ClickHouseStore::open(config).await.unwrap();
    let columns: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    let query = SqlQuery {
        scope: Scope::All,
        sql: format!("SELECT {} FROM events", columns.join(", ")),
        time_max: Duration::from_secs(30),
        rows_max: 1,
        memory_bytes_max: 1 << 30,
    };
    let answer = store.sql(query).await.expect("selecting every column that events have");
    assert_eq!(answer.columns.len(), COLUMNS.len());
}
