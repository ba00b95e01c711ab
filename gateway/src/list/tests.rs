use std::sync::Arc;

use domain::Timestamp;
use domain::policy::Document;
use domain::policy::document::{Grant, Rule, Server, Tool};
use domain::policy::{SideEffect, Trust};

use super::{ListFilter, Shape, Unreadable};
use crate::identify::Caller;
use crate::policy::Policy;

/// Alice may read with tool `a` only.
fn policy() -> Arc<Policy> {
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        side_effect: Some(SideEffect::Read),
        ..Tool::default()
    };
    let document = Document {
        server: Server {
            name: "payments".to_owned(),
            namespace: "acme".to_owned(),
            ..Server::default()
        },
        tools: vec![tool("a"), tool("b")],
        grants: vec![Grant {
            name: "alice".to_owned(),
            human_id: "alice".to_owned(),
            max_trust: Some(Trust::High),
            allowed_side_effects: vec![SideEffect::Read],
            tool_rules: vec![Rule {
                name: "a".to_owned(),
                ..Rule::default()
            }],
            ..Grant::default()
        }],
        ..Document::default()
    };
    Arc::new(Policy::of(&document))
}

fn filter(shape: Shape, has_cache: bool) -> ListFilter {
    let caller = Caller {
        human: Some("alice".to_owned()),
        ..Caller::default()
    };
    ListFilter::new(shape, policy(), caller, Timestamp::from_seconds(1_800_000_000), has_cache)
}

fn passed(shape: Shape, has_cache: bool, text: &str, piece_bytes: usize) -> Result<String, Unreadable> {
    let mut filter = filter(shape, has_cache);
    let mut passed = Vec::new();
    for piece in text.as_bytes().chunks(piece_bytes) {
        passed.extend_from_slice(&filter.feed(piece)?);
    }
    passed.extend_from_slice(&filter.end()?);
    Ok(String::from_utf8(passed).unwrap())
}

#[test]
fn only_what_may_be_used_stays_and_the_rest_is_untouched() {
    let cases = [
        (
            r#"{"result":{"tools":[{"name":"b"}, {"x":1.0e5,"name":"a"},{"name":"c"}],"nextCursor":"n"} , "id":1}"#,
            r#"{"result":{"tools":[{"x":1.0e5,"name":"a"}],"nextCursor":"n"} , "id":1}"#,
        ),
        (r#"{"id":1,"result":{"tools":[]}}"#, r#"{"id":1,"result":{"tools":[]}}"#),
        (
            r#"{"id":1,"result":{"prompts":[{"name":"p"}]}}"#,
            r#"{"id":1,"result":{"prompts":[]}}"#,
        ),
        (r#"{"id":1,"error":{"code":-32601}}"#, r#"{"id":1,"error":{"code":-32601}}"#),
        (
            r#"{"id":1,"result":{"content":[{"name":"b"}]}}"#,
            r#"{"id":1,"result":{"content":[{"name":"b"}]}}"#,
        ),
        (
            r#"{"id":1,"result":{"tools":[{"name":"\u0061"}]}}"#,
            r#"{"id":1,"result":{"tools":[{"name":"\u0061"}]}}"#,
        ),
    ];
    for (sent, wanted) in cases {
        for piece_bytes in [1, 9, 1_000] {
            assert_eq!(passed(Shape::Json, false, sent, piece_bytes).unwrap(), wanted);
        }
    }
}

#[test]
fn shortened_lists_are_private_and_short_lived() {
    let sent = r#"{"result":{"tools":[],"ttlMs":3600000,"cacheScope":"public"}}"#;
    let wanted = r#"{"result":{"tools":[],"ttlMs":10000,"cacheScope":"private"}}"#;
    assert_eq!(passed(Shape::Json, true, sent, 50).unwrap(), wanted);
    let sent = r#"{"result":{"tools":[],"ttlMs":0}}"#;
    let wanted = r#"{"result":{"cacheScope":"private","tools":[],"ttlMs":0}}"#;
    assert_eq!(passed(Shape::Json, true, sent, 50).unwrap(), wanted);
}

#[test]
fn what_cannot_be_read_for_sure_does_not_pass() {
    for sent in [
        r#"{"result":{"tools":[{"name":"b"}],"tools":[]}}"#,
        r#"{"result":{"tools":[{"name":"b"}]},"result":{}}"#,
        r#"{"result":{"tools":[{"name":"b","name":"a"}]}}"#,
        r#"{"result":{"tools":{"name":"b"}}}"#,
        r#"{"result":{"tools":[{"title":"b"}]}}"#,
        r#"{"result":{"tools":[{"name":"b"}]}"#,
        "[]",
    ] {
        assert_eq!(passed(Shape::Json, false, sent, 1_000), Err(Unreadable), "{sent}");
    }
    assert_eq!(passed(Shape::Other, false, "{}", 10), Err(Unreadable));
}

#[test]
fn lists_in_streams_are_shortened_and_other_events_pass() {
    let sent = ": hello\n\nevent: message\r\nid: 7\r\ndata: {\"result\":\r\ndata: {\"tools\":[{\"name\":\"b\"}]}}\r\n\r\ndata: \n\ndata: {\"method\":\"x\"}\r\r";
    let wanted =
        ": hello\n\nevent: message\nid: 7\ndata: {\"result\":\n{\"tools\":[]}}\n\ndata: \n\ndata: {\"method\":\"x\"}\r\r";
    for piece_bytes in [1, 2, 3, 10, 1_000] {
        // A line feed that comes late after its carriage return is one more blank line, which means nothing.
        let passed = passed(Shape::Sse, false, sent, piece_bytes)
            .unwrap()
            .replace("\n\n\n", "\n\n");
        assert_eq!(
            passed.replace("\ndata: {\"tools\"", "\n{\"tools\""),
            wanted,
            "in pieces of {piece_bytes}"
        );
    }
}
