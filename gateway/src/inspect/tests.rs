use super::{InspectFault, Inspected, Message, MessageKind, inspect};

fn one(text: &str) -> Message<'_> {
    match inspect(text.as_bytes()) {
        Ok(Inspected::One(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn kinds_are_told_apart() {
    for (text, kind) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, MessageKind::Request),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            MessageKind::Notification,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"s-1","result":{"role":"user"}}"#,
            MessageKind::Response,
        ),
        (
            r#"{"jsonrpc":"2.0","id":4,"error":{"code":1,"message":"no"}}"#,
            MessageKind::Response,
        ),
    ] {
        assert_eq!(one(text).kind(), kind, "{text}");
    }
}

#[test]
fn a_modern_call_tells_who_and_what() {
    let message = one(concat!(
        r#"{"params":{"arguments":{"name":"decoy","uri":"x","_meta":{}},"name":"to\u006fl","_meta":{"traceparent":"t","#,
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"cli","version":"1"},"#,
        r#""progressToken":0}},"method":"tools/call","id":"a","jsonrpc":"2.0"}"#
    ));
    assert_eq!(message.params.name.as_deref(), Some("tool"));
    assert_eq!(message.params.meta.protocol_version.as_deref(), Some("2026-07-28"));
    assert_eq!(message.params.meta.client.name.as_deref(), Some("cli"));
    assert_eq!(message.id.unwrap().get(), "\"a\"");
}

#[test]
fn other_shapes_of_parameters_say_nothing_and_harm_nothing() {
    for params in [
        "null",
        "[1,[2]]",
        "7",
        "\"x\"",
        "true",
        "{\"name\":5,\"_meta\":[]}",
        "{\"name\":{\"a\":1},\"uri\":null}",
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        assert_eq!(one(&text).params.name, None, "{params}");
    }
}

#[test]
fn what_parsers_could_read_differently_is_unclear() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","Method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","meth\u006fd":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        // Signs that Go folds to `s` and `k`, and a key that ends early for whoever reads to the first zero.
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"param\u017f":{"name":"b"}}"#,
        r#"{"j\u017fonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name\u0000x":"b"}}"#,
        // Numbers, signs and depths that are not read alike.
        r#"{"jsonrpc":"2.0","id":1e400,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1e400}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":"\ud800"}}}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","result":1}"#,
        r#""text""#,
        "[]",
    ] {
        assert!(
            matches!(inspect(text.as_bytes()), Err(InspectFault::Unclear(_))),
            "{text}: {:?}",
            inspect(text.as_bytes())
        );
    }
    for text in ["", "{", "nonsense", "{} {}", "\u{feff}{}"] {
        assert_eq!(inspect(text.as_bytes()).unwrap_err(), InspectFault::NotJson, "{text}");
    }
    assert_eq!(inspect(&[b'"', 0xff, b'"']).unwrap_err(), InspectFault::NotJson);
}

#[test]
fn batches_are_counted() {
    let text = r#" [{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},{"jsonrpc":"2.0","method":"x"}]"#;
    let Ok(Inspected::Batch(messages)) = inspect(text.as_bytes()) else {
        panic!("{:?}", inspect(text.as_bytes()))
    };
    assert_eq!((messages.len(), messages[0].params.name.as_deref()), (2, Some("a")));
    let many = format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"x"}"#; 101].join(","));
    assert!(matches!(inspect(many.as_bytes()), Err(InspectFault::Unclear(_))));
    assert!(matches!(inspect(b"[]"), Err(InspectFault::Unclear(_))));
    assert!(
        matches!(inspect(b"[{}]"), Err(InspectFault::Unclear(_))),
        "each message is checked"
    );
}

#[test]
fn deep_nesting_is_survived() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{}{}}}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    // Whether it is read or refused, the stack holds.
    drop(inspect(deep.as_bytes()));
}

#[test]
fn what_is_no_utf8_is_refused_also_where_nothing_reads_it() {
    let mut body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","extra":"?"}"#.to_vec();
    assert!(inspect(&body).is_ok());
    let place = body.iter().position(|&byte| byte == b'?').unwrap();
    body[place] = 0xe1;
    assert_eq!(inspect(&body).unwrap_err(), InspectFault::NotJson);
}
