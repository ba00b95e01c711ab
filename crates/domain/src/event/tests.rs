use std::time::Duration;

use proptest::prelude::*;

use super::columns::{COLUMNS, Kind};
use super::*;
use crate::{Namespace, Value};

const V0: &str = include_str!("../../fixtures/event-v0.json");
const V1: &str = include_str!("../../fixtures/event-v1.json");

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T15:04:06Z").unwrap()
}

fn admit_as(json: &str, rule: &NamespaceRule) -> Result<Event, EventFault> {
    let receipt = Receipt {
        now: now(),
        key: Some("k1"),
        rule,
        trace_id: None,
        age_max: Duration::from_hours(400 * 24),
        ahead_max: Duration::from_mins(5),
    };
    Draft::parse(json.as_bytes())?.admit(&receipt, || EventId::from_bytes([7; 16]))
}

fn admit(json: &str) -> Result<Event, EventFault> {
    admit_as(json, &NamespaceRule::Any)
}

fn with_payload(payload: &str) -> String {
    format!(r#"{{"source":"s","event_type":"mcp.request","payload":{payload}}}"#)
}

fn fault(json: &str) -> (FaultCode, String) {
    let fault = admit(json).unwrap_err();
    (fault.code, fault.message)
}

#[test]
fn the_current_wire_form_reads_and_writes_the_same_text() {
    let event: Event = serde_json::from_str(V1).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), V1.trim());
}

#[test]
fn the_predecessors_envelope_keeps_every_word() {
    let event = admit(V0).unwrap();
    assert_eq!(event.id, EventId::from_bytes([7; 16]));
    assert_eq!(event.payload.latency_us, Some(12_000));
    assert_eq!(event.payload.outcome, Some(Outcome::Ok));
    assert_eq!(event.payload.attributes.get("pod").map(String::as_str), Some("payments-0"));
    assert_eq!(event.timestamp.to_string(), "2026-06-30T10:00:00.500000000Z");
}

#[test]
fn senders_words_on_receipt_are_not_believed() {
    let event = admit(r#"{"source":"s","event_type":"e","received_at":"2020-01-01T00:00:00Z","received_by":"admin","payload":{"namespace":"a"}}"#).unwrap();
    assert_eq!((event.received_at, event.received_by.as_deref()), (now(), Some("k1")));
}

#[test]
fn a_later_version_is_refused_by_name() {
    let (code, message) = fault(r#"{"v":2,"source":"s","event_type":"e","payload":{"namespace":"a"}}"#);
    assert_eq!(
        (code, message.as_str()),
        (
            FaultCode::InvalidField,
            "v: version 2 is newer than 1, which this program knows"
        )
    );
}

#[test]
fn faults_name_the_field() {
    for (payload, code, message) in [
        (
            r#"{"namespace":"a","latency_us":"12"}"#,
            FaultCode::InvalidField,
            r#"payload.latency_us: invalid type: string "12", expected u64"#,
        ),
        (
            r#"{"namespace":"a","status":-1}"#,
            FaultCode::InvalidField,
            "payload.status: invalid value: integer `-1`, expected u16",
        ),
        (
            r#"{"namespace":"a","latency_ms":-1}"#,
            FaultCode::InvalidField,
            "payload.latency_ms: expected milliseconds, not negative",
        ),
        (
            r#"{"namespace":"a","decision":"perhaps"}"#,
            FaultCode::InvalidField,
            "payload.decision: expected one of allow, deny",
        ),
        (
            r#"{"namespace":"a","server":"x","server":"y"}"#,
            FaultCode::InvalidField,
            "payload.server is given twice",
        ),
        (
            r"[1]",
            FaultCode::InvalidField,
            "payload: invalid type: sequence, expected an object",
        ),
        (
            r"{}",
            FaultCode::MissingFields,
            "payload.namespace is missing; this key is not bound to one namespace, so each event must name its own",
        ),
    ] {
        assert_eq!(fault(&with_payload(payload)), (code, message.to_owned()), "{payload}");
    }
    assert_eq!(
        fault(r#"{"source":" ","event_type":"e","payload":{}}"#).0,
        FaultCode::MissingFields
    );
    assert_eq!(
        fault(r#"{"source":"s","event_type":"e","payload":null}"#).0,
        FaultCode::MissingFields
    );
    assert_eq!(fault(r#"{"source":"s","#).0, FaultCode::InvalidJson);
    assert_eq!(
        fault(r#"{"id":"7","source":"s","event_type":"e","payload":{"namespace":"a"}}"#),
        (FaultCode::InvalidField, r#"id: expected a UUID, got "7""#.to_owned())
    );
}

#[test]
fn another_namespace_than_the_keys_is_refused_and_an_absent_one_filled_in() {
    let rule = NamespaceRule::Only(Namespace::parse("acme").unwrap(), Some("payments".to_owned()));
    let event = admit_as(&with_payload("{}"), &rule).unwrap();
    assert_eq!((event.namespace(), event.server()), ("acme", "payments"));
    for payload in [r#"{"namespace":"other"}"#, r#"{"namespace":"ACME"}"#, r#"{"server":"hr"}"#] {
        let fault = admit_as(&with_payload(payload), &rule).unwrap_err();
        assert_eq!(fault.code, FaultCode::NamespaceMismatch);
        assert!(
            !fault.message.contains("acme"),
            "a fault must not tell the key's namespace: {}",
            fault.message
        );
    }
}

#[test]
fn of_several_namespaces_the_event_names_one() {
    let own = ["acme", "beta"].map(|name| Namespace::parse(name).unwrap());
    let rule = NamespaceRule::OneOf(own.into());
    let code = |payload: &str| admit_as(&with_payload(payload), &rule).map_err(|fault| fault.code).err();
    assert_eq!(code(r#"{"namespace":"beta"}"#), None);
    assert_eq!(code("{}"), Some(FaultCode::MissingFields));
    assert_eq!(code(r#"{"namespace":"gamma"}"#), Some(FaultCode::NamespaceMismatch));
}

#[test]
fn times_outside_the_window_are_refused_one_by_one() {
    for (time, inside) in [
        ("2026-11-22T15:09:06Z", true),
        ("2026-11-22T15:09:07Z", false),
        ("2025-11-22T15:04:06Z", true),
        ("2024-11-22T15:04:06Z", false),
    ] {
        let json = format!(r#"{{"timestamp":"{time}","source":"s","event_type":"e","payload":{{"namespace":"a"}}}}"#);
        assert_eq!(
            admit(&json).map_err(|fault| fault.code).err(),
            (!inside).then_some(FaultCode::TimestampOutOfRange),
            "{time}"
        );
    }
}

#[test]
fn prompts_are_no_tools() {
    let event = admit(&with_payload(
        r#"{"namespace":"a","rpc_method":"prompts/get","tool_name":"greet"}"#,
    ))
    .unwrap();
    assert_eq!(
        (event.payload.tool_name.as_deref(), event.payload.prompt_name.as_deref()),
        (None, Some("greet"))
    );
}

#[test]
fn odd_trace_ids_do_not_cost_the_event() {
    let event = admit(r#"{"trace_id":"zipkin-77","source":"s","event_type":"e","payload":{"namespace":"a"}}"#).unwrap();
    assert_eq!(
        (event.trace_id, event.payload.attributes.get("trace_id").map(String::as_str)),
        (None, Some("zipkin-77"))
    );
}

#[test]
fn control_characters_and_other_scripts_pass_unchanged() {
    let event = admit(&with_payload(
        r#"{"namespace":"a","tool_name":"\u0000\u001b[31m日本\ud83d\ude00"}"#,
    ))
    .unwrap();
    assert_eq!(event.payload.tool_name.as_deref(), Some("\0\x1b[31m日本😀"));
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
}

#[test]
fn bounds_hold_per_field() {
    let long = "x".repeat(1_025);
    assert_eq!(
        fault(&with_payload(&format!(r#"{{"namespace":"a","tool_name":"{long}"}}"#))).0,
        FaultCode::TooLarge
    );
    let many: Vec<String> = (0..65).map(|n| format!(r#""k{n}":1"#)).collect();
    assert_eq!(
        fault(&with_payload(&format!(r#"{{"namespace":"a",{}}}"#, many.join(",")))).0,
        FaultCode::TooLarge
    );
}

#[test]
fn every_column_reads_and_writes_itself() {
    let full: Event = serde_json::from_str(V1).unwrap();
    let mut copy = Payload::default();
    for column in COLUMNS {
        let value = (column.read)(&full.payload);
        assert!((column.write)(&mut copy, value), "{}", column.name);
        assert_eq!((column.read)(&copy), value, "{}", column.name);
        assert_eq!(
            column.bytes_max == 0,
            matches!(column.kind, Kind::Count | Kind::Code),
            "{}",
            column.name
        );
    }
    copy.attributes = full.payload.attributes.clone();
    assert_eq!(copy, *full.payload);
    let mut payload = Payload::default();
    assert!(!(Column::named("status").unwrap().write)(&mut payload, Value::Text("200")));
}

use crate::Column;

proptest! {
    #[test]
    fn reading_never_panics_and_what_is_admitted_survives_the_wire(json in "\\PC{0,80}", name in "\\PC{1,20}", latency in any::<u64>(), seq in any::<Option<u64>>()) {
        let _read = Draft::parse(json.as_bytes());
        let text = serde_json::json!({
            "source": name, "event_type": "mcp.request", "producer_seq": seq,
            "payload": {"namespace": "a", "tool_name": name, "latency_us": latency, "extra": {"a": [name, latency]}},
        });
        if let Ok(event) = admit(&text.to_string()) {
            let wire = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<Event>(&wire).unwrap(), event);
        }
    }
}
