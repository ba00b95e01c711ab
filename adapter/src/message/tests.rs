use super::*;

fn parse(text: &'static str) -> Message {
    Message::parse(Bytes::from_static(text.as_bytes())).unwrap()
}

#[test]
fn kinds_are_told_apart() {
    assert_eq!(parse(r#"{"jsonrpc":"2.0","id":"a b","method":"ping"}"#).kind, Kind::Request);
    assert_eq!(parse(r#"{"method":"notifications/initialized"}"#).kind, Kind::Notification);
    assert_eq!(parse(r#"{"id":null,"method":"x"}"#).kind, Kind::Notification);
    assert_eq!(
        parse(r#"{"id":1,"result":null,"error":{"code":1,"message":""}}"#).kind,
        Kind::Response
    );
    assert_eq!(
        parse(r#" [{"id":1,"method":"ping"},{"method":"n"},{"id":"x","method":"ping"},{"id":4,"result":{}}]"#).kind,
        Kind::Batch(vec!["1".to_owned(), "\"x\"".to_owned()])
    );
    for wrong in [
        "",
        "{",
        "null",
        "7",
        "{}",
        r#"{"id":1}"#,
        r#"{"id":1,"id":2,"method":"ping"}"#,
        "[1]",
    ] {
        assert!(Message::parse(Bytes::from_static(wrong.as_bytes())).is_err(), "{wrong}");
    }
}

#[test]
fn the_newer_era_is_known_by_its_version_in_the_body() {
    let call = parse(
        r#"{"id":1,"method":"tools/call","params":{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    );
    assert!(call.is_modern());
    assert_eq!(call.header_name(), Some("echo"));
    assert!(!call.is_read() && !call.params.is_plain);
    assert!(!parse(r#"{"id":1,"method":"tools/call","params":{"name":"echo"}}"#).is_modern());
}

#[test]
fn parameters_of_another_shape_are_left_to_the_server() {
    let odd = parse(r#"{"id":1,"method":"tools/call","params":[1,2]}"#);
    assert_eq!((odd.kind.clone(), odd.params.name.clone()), (Kind::Request, None));
    assert!(!odd.params.is_plain);
    assert_eq!(
        parse(r#"{"id":1,"method":"tools/call","params":{"name":7}}"#).header_name(),
        None
    );
}

#[test]
fn an_answer_belongs_to_the_request_with_the_same_id_text() {
    let answer = parse(r#"{"id":1,"result":{}}"#);
    assert_eq!(answer.answers(&["1".to_owned()]), Some("1"));
    assert_eq!(answer.answers(&["\"1\"".to_owned()]), None);
    assert_eq!(parse(r#"{"id":1,"method":"ping"}"#).answers(&["1".to_owned()]), None);
}
