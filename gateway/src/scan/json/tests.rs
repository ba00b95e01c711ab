use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Found, JsonScan, same_id};

fn scan_pieces(pieces: &[&[u8]]) -> Option<Found> {
    let mut scan = JsonScan::default();
    for piece in pieces {
        scan.feed(piece);
    }
    scan.finish()
}

fn scan(text: &str) -> Option<Found> {
    scan_pieces(&[text.as_bytes()])
}

/// What the scanner must find, by reading the whole with `serde_json`.
fn expected(text: &str) -> Option<Found> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut found = Found::default();
    let Value::Object(message) = value else { return Some(found) };
    found.id = message
        .get("id")
        .filter(|id| !id.is_object() && !id.is_array())
        .map(|id| id.to_string().into_bytes());
    found.method = message.get("method").and_then(Value::as_str).map(str::to_owned);
    if let Some(result) = message.get("result") {
        found.has_result = true;
        found.is_error = result.get("isError") == Some(&json!(true));
        found.result_type = result.get("resultType").and_then(Value::as_str).map(str::to_owned);
        found.protocol_version = result.get("protocolVersion").and_then(Value::as_str).map(str::to_owned);
    }
    if let Some(error) = message.get("error").filter(|error| !error.is_null()) {
        found.has_error = true;
        found.code = error.get("code").and_then(Value::as_i64);
    }
    Some(found)
}

#[test]
fn each_word_of_interest_is_found() {
    let found =
        scan(r#"{"result":{"content":[{"isError":true}],"isError":true,"resultType":"complete"},"jsonrpc":"2.0","id":"a\"b"}"#)
            .unwrap();
    assert!(found.is_answer() && found.is_error);
    assert_eq!(found.id.as_deref(), Some(&br#""a\"b""#[..]));
    assert_eq!(found.result_type.as_deref(), Some("complete"));
    let found = scan(r#"{"jsonrpc":"2.0","id":null,"error":{"message":"x","code":-32602,"data":{"code":1}}}"#).unwrap();
    assert_eq!((found.has_error, found.code), (true, Some(-32_602)));
    let found = scan(r#"{"method":"notifications/progress","params":{"isError":true,"result":{"isError":true}}}"#).unwrap();
    assert!(!found.is_answer() && !found.is_error && !found.has_result);
}

#[test]
fn escaped_keys_are_the_same_keys_and_the_last_of_a_name_counts() {
    assert!(scan(r#"{"res\u0075lt":{"is\u0045rror":true}}"#).unwrap().is_error);
    let found = scan(r#"{"result":{"isError":true},"result":{}}"#).unwrap();
    assert!(found.has_result && !found.is_error);
    assert!(!scan(r#"{"result":{"isError":true,"isError":false}}"#).unwrap().is_error);
}

#[test]
fn what_is_no_json_is_told_apart() {
    for text in [
        "",
        "{",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "[1,]x",
        "tru",
        "<html>",
        "{} {}",
        "{\"a\":1 \"b\":2}",
        "\"open",
        "nul",
    ] {
        assert_eq!(scan(text), None, "{text}");
    }
    for text in ["{}", " [] ", "1", "null", "\"x\"", "[[],{}]", "{\"a\":[1,2,{\"b\":null}]}"] {
        assert!(scan(text).is_some(), "{text}");
    }
}

#[test]
fn long_values_take_no_room() {
    let mut scan = JsonScan::default();
    scan.feed(br#"{"result":{"content":[{"data":""#);
    let piece = vec![b'A'; 100_000];
    for _ in 0..1_000 {
        scan.feed(&piece);
    }
    assert!(scan.kept.capacity() <= 4_096, "{}", scan.kept.capacity());
    scan.feed(br#""}],"isError":true},"id":1}"#);
    assert!(scan.finish().unwrap().is_error);
    let id = "9".repeat(5_000);
    assert_eq!(
        scan_pieces(&[format!("{{\"id\":\"{id}\",\"result\":1}}").as_bytes()])
            .unwrap()
            .id,
        None
    );
}

#[test]
fn nesting_has_a_bound() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(scan(&deep(127)).is_some());
    assert_eq!(scan(&deep(100_000)), None);
}

#[test]
fn ids_are_compared_by_meaning() {
    assert!(same_id(b"1", b"1") && same_id(b"\"a\"", b"\"\\u0061\"") && same_id(b"1", b"1.0"));
    assert!(!same_id(b"1", b"\"1\"") && !same_id(b"1", b"2") && !same_id(b"null", b"0"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("complete")),
        Just(json!(-32_602)),
    ];
    let key = prop_oneof![
        Just("isError".to_owned()),
        Just("resultType".to_owned()),
        Just("protocolVersion".to_owned()),
        Just("code".to_owned()),
        Just("result".to_owned()),
        Just("id".to_owned()),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn any_message() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("id"),
        Just("method"),
        Just("result"),
        Just("error"),
        Just("params"),
        Just("jsonrpc")
    ];
    prop::collection::vec((key, any_value()), 0..6)
        .prop_map(|entries| Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

proptest! {
    #[test]
    fn every_split_finds_what_the_whole_says(message in any_message(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&message).unwrap() } else { message.to_string() };
        let wanted = expected(&text);
        for at in 0..=text.len() {
            let (left, right) = text.as_bytes().split_at(at);
            let found = scan_pieces(&[left, right]);
            prop_assert_eq!(&found, &wanted, "split at {} of {}", at, text);
        }
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(scan_pieces(&bytes), wanted);
    }

    #[test]
    fn cut_off_messages_are_no_messages(message in any_message(), cut in any::<prop::sample::Index>()) {
        let text = message.to_string();
        let cut = &text.as_bytes()[..cut.index(text.len())];
        prop_assert_eq!(scan_pieces(&[cut]), None);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = scan_pieces(&[&bytes]);
        let split: Vec<_> = bytes.chunks(3).collect();
        prop_assert_eq!(scan_pieces(&split), whole);
    }
}
