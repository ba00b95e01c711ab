use domain::event::otel::METHOD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use proptest::prelude::*;

use super::*;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn span(kind: SpanKind, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        kind: kind as i32,
        start_time_unix_nano: 1_795_000_000_000_000_000,
        end_time_unix_nano: 1_795_000_000_002_000_000,
        attributes,
        ..Span::default()
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "payments")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// Drafts and faults with their places.
type Seen = Vec<(usize, Result<Draft, EventFault>)>;

fn read(body: &[u8], wire: Wire) -> Result<Seen, BodyFault> {
    let drafts = Drafts::split(body, Telemetry::Spans, wire, 10, 1 << 10)?;
    let mut seen = Vec::new();
    drafts.each(|index, draft| seen.push((index, draft)));
    Ok(seen)
}

#[test]
fn both_forms_give_the_same_drafts_and_only_of_what_is_of_mcp() {
    let call = || vec![text(METHOD, "tools/call"), text("gen_ai.tool.name", "refund")];
    let request = request(vec![
        span(SpanKind::Internal, vec![text("db.system", "sqlite")]),
        span(SpanKind::Server, call()),
        span(SpanKind::Client, call()),
    ]);
    let protobuf = read(&request.encode_to_vec(), Wire::Protobuf).unwrap();
    assert_eq!(protobuf.len(), 1);
    assert!(protobuf[0].0 == 1 && protobuf[0].1.is_ok(), "{protobuf:?}");
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(read(&json, Wire::Json).unwrap(), protobuf);
}

#[test]
fn one_span_that_is_wrong_leaves_its_neighbours() {
    let mut large = span(SpanKind::Server, vec![text(METHOD, "ping")]);
    large.name = "x".repeat(2 << 10);
    let body = request(vec![large, span(SpanKind::Server, vec![text(METHOD, "ping")])]).encode_to_vec();
    let seen = read(&body, Wire::Protobuf).unwrap();
    assert_eq!(seen[0].1.as_ref().unwrap_err().code, FaultCode::TooLarge);
    assert!(seen[1].1.is_ok());
    let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":7},{"attributes":[{"key":"mcp.method.name","value":{"stringValue":"ping"}}]}]}]}]}"#;
    let seen = read(json, Wire::Json).unwrap();
    assert_eq!(seen[0].1.as_ref().unwrap_err().code, FaultCode::InvalidField);
    assert!(seen[1].1.is_ok(), "{seen:?}");
}

#[test]
fn more_spans_than_allowed_are_refused_before_any_is_decoded() {
    let body = request(vec![Span::default(); 11]);
    for (bytes, wire) in [
        (body.encode_to_vec(), Wire::Protobuf),
        (serde_json::to_vec(&body).unwrap(), Wire::Json),
    ] {
        assert_eq!(read(&bytes, wire).unwrap_err(), BodyFault::TooManyEvents { events_max: 10 });
    }
}

#[test]
fn a_body_of_another_form_is_refused_as_a_whole() {
    assert!(matches!(read(b"{}", Wire::Protobuf), Err(BodyFault::Protobuf(_))));
    assert!(matches!(read(b"\x0a\x7f", Wire::Protobuf), Err(BodyFault::Protobuf(_))));
    assert!(matches!(read(b"\x0a\x00", Wire::Json), Err(BodyFault::Json(_))));
    assert!(matches!(read(b"{\"resourceSpans\":7}", Wire::Json), Err(BodyFault::Json(_))));
    assert_eq!(read(b"", Wire::Protobuf).unwrap(), []);
    assert_eq!(read(b"{}", Wire::Json).unwrap(), []);
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _any = (read(&bytes, Wire::Protobuf), read(&bytes, Wire::Json));
        let mut body = request(vec![span(SpanKind::Server, vec![text(METHOD, "ping")])]).encode_to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _flipped = read(&body, Wire::Protobuf);
    }
}
