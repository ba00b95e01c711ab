//! Whatever a person or a peer can send wrong: a clear answer, nothing valid beside it lost, and a process that goes on.

mod bodies;
mod keys;
mod queries;
mod sizes;

use serde_json::json;

use crate::harness::{Answer, Standalone, event};

/// A valid event sent after something wrong is taken, and the process is still ready.
async fn a_neighbour_is_taken(standalone: &Standalone, after: &str) {
    let answer = standalone
        .ask(standalone.ingest("application/json", json!([event("neighbour")]).to_string()))
        .await;
    assert_eq!(answer.taken(), Some((1, 0)), "a valid event after {after}: {answer:?}");
    standalone.is_ready().await;
}

/// The refusal has this status and code, and words for people.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{what}: {answer:?}");
    if let Err(fault) = answer.is_clear_refusal() {
        panic!("{what}: {fault}");
    }
}
