use futures::TryStreamExt as _;

use super::*;
use crate::contract;
use crate::query::{Filter, Scope};

#[tokio::test]
async fn the_reference_keeps_the_contract() {
    contract::every_case(|| async { MemoryStore::new() }).await;
}

#[tokio::test]
async fn a_crash_keeps_what_was_flushed_and_the_rest_can_come_again() {
    let store = MemoryStore::new();
    let batches = contract::batches(7, 40);
    store.insert(batches[0].clone().into()).await.unwrap();
    assert_eq!(store.durable_end(batches[0].span.partition), 0);
    store.flush().await.unwrap();
    assert_eq!(store.durable_end(batches[0].span.partition), batches[0].span.end);
    store.insert(batches[1].clone().into()).await.unwrap();

    let store = store.crash();
    assert_eq!(store.storage().await.unwrap().events, batches[0].events.len() as u64);
    for batch in &batches[..2] {
        store.insert(batch.clone().into()).await.unwrap();
    }
    assert_eq!(
        store.storage().await.unwrap().events,
        (batches[0].events.len() + batches[1].events.len()) as u64
    );
}

#[tokio::test]
async fn an_export_is_one_event_a_line_and_other_forms_are_refused_with_the_right_one() {
    let store = MemoryStore::new();
    let batch = contract::batches(3, 600).remove(0);
    store.insert(batch.clone().into()).await.unwrap();
    let query = ExportQuery {
        filter: Filter::all(Scope::All),
        format: ExportFormat::Ndjson,
    };
    let pieces: Vec<Bytes> = store.export(query.clone()).await.unwrap().try_collect().await.unwrap();
    let read: Vec<domain::Event> = pieces
        .concat()
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(read, batch.events.into_iter().map(|(_, event)| event).collect::<Vec<_>>());
    let refused = store
        .export(ExportQuery {
            format: ExportFormat::Csv,
            ..query
        })
        .await
        .err()
        .unwrap();
    assert_eq!(refused.to_string(), "this store exports ndjson only; ask for format=ndjson");
}

#[test]
fn wrong_filters_say_what_would_be_right() {
    let say = |name: &str, value: &str| {
        let filter = Filter {
            equals: vec![(name.to_owned(), vec![value.to_owned()])],
            ..Filter::all(Scope::All)
        };
        Terms::check(&filter).unwrap_err().to_string()
    };
    insta::assert_snapshot!([
        say("tool", "x"),
        say("sever", "x"),
        say("zzzzzzzzzzzzzzzz", "x"),
        say("decision", "denied"),
        say("status", "ok"),
        say("rpc_code", "1.5"),
        say("trace_id", "42"),
        say("id", "42"),
    ].join("\n"), @r#"
    there is no column tool; did you mean tool_name?
    there is no column sever; did you mean server?
    there is no column zzzzzzzzzzzzzzzz
    decision cannot be "denied": expected one of allow, deny, or an empty text for events without one
    status cannot be "ok": expected a whole number that is not negative
    rpc_code cannot be "1.5": expected a whole number
    trace_id cannot be "42": expected 32 hex digits, not all zero
    id cannot be "42": expected a UUID
    "#);
}
