//! A folder as an earlier build has written it, kept in the repository: what is stored must stay readable.
//!
//! A change of the schema adds a folder beside it, written by the ignored test below.

use std::path::PathBuf;
use std::sync::Arc;

use super::events::{Hand, NOON, batch, counted, event, sql, still};
use crate::EventWriter as _;
use crate::parquet::schema::SCHEMA_VERSION;
use crate::parquet::{ParquetStore, to_events};
use crate::query::Scope;

const EVENTS: u64 = 40;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(format!("schema-{SCHEMA_VERSION}"))
}

#[tokio::test]
async fn a_folder_written_by_an_earlier_build_is_read_as_it_was_meant() {
    let store = ParquetStore::open_read_only(still(&folder()), Hand::at(NOON).clock()).unwrap();
    assert_eq!((store.durable_end(0), counted(&store).await), (EVENTS, EVENTS));
    let rows = sql(&store.snapshot(), &Scope::All, "select * from events order by \"offset\"")
        .await
        .unwrap();
    let events = rows
        .iter()
        .flat_map(|rows| to_events(rows).unwrap())
        .map(|stored| stored.event);
    assert!(events.eq((0..EVENTS).map(event)), "every column of every event");
}

#[tokio::test]
#[ignore = "writes the folder; run when the schema changes"]
async fn write_the_folder() {
    std::fs::create_dir_all(folder()).unwrap();
    let store = ParquetStore::open(still(&folder()), Hand::at(NOON).clock()).unwrap();
    store.insert(Arc::new(batch(0, EVENTS))).await.unwrap();
    store.flush().await.unwrap();
    drop(store);
    std::fs::remove_file(folder().join("lock")).unwrap();
}
