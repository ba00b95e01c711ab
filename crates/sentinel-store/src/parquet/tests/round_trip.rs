use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;

use super::events::{batch, counted, event, number, open, sql};
use crate::EventWriter as _;
use crate::parquet::to_events;
use crate::query::Scope;

#[tokio::test]
async fn events_come_back_as_they_went_in_from_memory_and_from_files_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.insert(batch(0, 500).into()).await.unwrap().stored, 500);
    assert_eq!(counted(&store).await, 500);
    assert_eq!(store.durable_end(0), 0);
    store.flush().await.unwrap();
    assert_eq!(store.durable_end(0), 500);
    store.insert(batch(500, 600).into()).await.unwrap();
    assert_eq!(counted(&store).await, 600);
    let rows = sql(&store.snapshot(), &Scope::All, "select * from events order by \"offset\"")
        .await
        .unwrap();
    let events: Vec<_> = rows.iter().flat_map(|batch| to_events(batch).unwrap()).collect();
    assert_eq!(events.len(), 600);
    for (stored, number) in events.iter().zip(0..) {
        assert_eq!((stored.offset, &stored.event), (number, &event(number)));
    }
    drop(store);
    let store = open(folder.path());
    assert_eq!(
        counted(&store).await,
        500,
        "what was not flushed is the queue's to hand out again"
    );
    assert_eq!(store.durable_end(0), 500);
    let again = store.insert(batch(450, 600).into()).await.unwrap();
    assert_eq!((again.stored, again.duplicates), (100, 50));
    assert_eq!(counted(&store).await, 600);
}

#[tokio::test]
async fn a_scope_holds_whatever_the_query_says() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.insert(batch(0, 300).into()).await.unwrap();
    store.flush().await.unwrap();
    store.insert(batch(300, 600).into()).await.unwrap();
    let scope = Scope::Only {
        namespaces: vec!["team-1".to_owned()],
        teams: vec!["owner-0".to_owned()],
    };
    let seen = |row: u64| row % 3 == 1 || row.is_multiple_of(2);
    let expected = i64::try_from((0..600).filter(|row| seen(*row)).count()).unwrap();
    for text in [
        "select count(*) from events",
        "select count(*) from events where namespace is not null or true",
        "select count(server) from (select server from events union all select server from events where false)",
        "select sum(events)::bigint from calls_hourly",
    ] {
        let rows = sql(&store.snapshot(), &scope, text).await.unwrap();
        let count = rows[0].column(0).as_primitive::<Int64Type>().value(0);
        assert_eq!(count, expected, "{text}");
    }
    let nobody = Scope::Only {
        namespaces: Vec::new(),
        teams: Vec::new(),
    };
    let rows = sql(&store.snapshot(), &nobody, "select * from events").await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    assert_eq!(
        number(&store.snapshot(), "select count(*) from events where namespace = 'team-0'").await,
        200
    );
}
