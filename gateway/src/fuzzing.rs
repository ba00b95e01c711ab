//! Entry points for fuzzers. Each takes any bytes and panics when a promise of this crate does not hold for them.

use std::sync::Arc;

use domain::Timestamp;
use domain::policy::Document;
use serde_json::Value;

use crate::identify::Caller;
use crate::inspect::{Inspected, Message, inspect};
use crate::list::{ListFilter, Shape, Unreadable};
use crate::policy::Policy;
use crate::scan::{Found, JsonScan, SseScan};

/// A request's body: what is judged is what a general parser reads.
pub fn request(body: &[u8]) {
    let Ok(inspected) = inspect(body) else { return };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        // Half of a surrogate pair in what nothing here reads: parsers differ on whether that is JSON, not on what else it says.
        assert!(memchr::memmem::find(body, b"\\u").is_some(), "a body that is judged is JSON");
        return;
    };
    match (&inspected, &value) {
        (Inspected::One(message), Value::Object(_)) => same_request(message, &value),
        (Inspected::Batch(messages), Value::Array(values)) => {
            assert_eq!(messages.len(), values.len());
            for (message, value) in messages.iter().zip(values) {
                same_request(message, value);
            }
        }
        _ => unreachable!("{inspected:?} was read from {value}"),
    }
}

fn same_request(message: &Message<'_>, value: &Value) {
    assert_eq!(message.method.as_deref(), value["method"].as_str());
    let params = &value["params"];
    assert_eq!(message.params.name.as_deref(), params["name"].as_str());
    assert_eq!(message.params.uri.as_deref(), params["uri"].as_str());
    if let Some(raw) = message.params.arguments {
        let arguments: Value = serde_json::from_str(raw.get()).expect("arguments are JSON");
        assert_eq!(arguments, params["arguments"]);
    }
}

/// A message of an answer, after a byte that says where to cut it: cuts change nothing, and what is JSON is read as such.
pub fn answer(bytes: &[u8]) {
    let Some((&step, text)) = bytes.split_first() else { return };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut scan = JsonScan::default();
        pieces.for_each(|piece| scan.feed(piece));
        scan.finish()
    };
    let whole = read(&mut std::iter::once(text));
    assert_eq!(whole, read(&mut text.chunks(usize::from(step) + 1)));
    if let Ok(value) = serde_json::from_slice::<Value>(text) {
        let found = whole.expect("what is JSON is read");
        if value.is_object() {
            same_answer(&found, &value);
        }
    }
}

fn same_answer(found: &Found, value: &Value) {
    assert_eq!(found.has_result, value.get("result").is_some());
    assert_eq!(found.has_error, value.get("error").is_some());
    assert_eq!(found.is_error, value["result"]["isError"] == Value::Bool(true));
    // Of a number beyond 64 bits the two keep different things.
    if let Some(code) = value["error"]["code"].as_i64() {
        assert_eq!(found.code, Some(code));
    }
}

/// A stream of events, after a byte that says where to cut it: cuts change nothing.
pub fn stream(bytes: &[u8]) {
    let Some((&step, text)) = bytes.split_first() else { return };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut scan, mut messages) = (SseScan::default(), Vec::new());
        pieces.for_each(|piece| scan.feed(piece, |message| messages.push(message)));
        (messages, scan.events(), scan.ids_seen(), scan.at_boundary())
    };
    assert_eq!(
        read(&mut std::iter::once(text)),
        read(&mut text.chunks(usize::from(step) + 1))
    );
}

/// The list that a server offers, after two bytes for its shape and where to cut it: cuts change nothing, and nothing that a policy without
/// grants denies is handed out.
pub fn list(bytes: &[u8]) {
    let [shape, step, text @ ..] = bytes else { return };
    let shape = if shape % 2 == 0 { Shape::Json } else { Shape::Sse };
    let policy = Arc::new(Policy::of(&Document::default()));
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let caller = Caller::default();
        let mut filter = ListFilter::new(shape, Arc::clone(&policy), caller, Timestamp::from_seconds(0), false);
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend_from_slice(&filter.feed(piece)?);
        }
        passed.extend_from_slice(&filter.end()?);
        // Where a line ends in two bytes, a cut between them only moves the second one.
        passed.retain(|&byte| byte != b'\n');
        Ok::<_, Unreadable>(passed)
    };
    let whole = read(&mut std::iter::once(text));
    let pieces = read(&mut text.chunks(usize::from(*step) + 1));
    assert_eq!(whole, pieces);
    if let (Shape::Json, Ok(passed)) = (shape, whole)
        && let Ok(value) = serde_json::from_slice::<Value>(&passed)
        && let Some(tools) = value["result"]["tools"].as_array()
    {
        assert!(tools.is_empty(), "no grant, no tool: {tools:?}");
    }
}
