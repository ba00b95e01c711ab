//! OTLP over HTTP, as exporters send it.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message as _;
use serde_json::json;

use crate::harness::{Harness, NOW_SECONDS};

const PROTOBUF: &str = "application/x-protobuf";

fn spans(namespace: Option<&str>) -> ExportTraceServiceRequest {
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let mut resource = vec![attribute("service.name", "payments")];
    resource.extend(namespace.map(|namespace| attribute("service.namespace", namespace)));
    let start = NOW_SECONDS.unsigned_abs() * 1_000_000_000;
    let span = |id: &str, attributes: &[serde_json::Value]| {
        json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "name": "n", "kind": 2,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 5_000_000).to_string(), "attributes": attributes})
    };
    let call = [
        attribute("mcp.method.name", "tools/call"),
        attribute("gen_ai.tool.name", "refund"),
    ];
    serde_json::from_value(json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"spans": [span("b7ad6b7169203331", &call), span("b7ad6b7169203332", &[attribute("db.system", "x")])]}],
    }]}))
    .unwrap()
}

async fn post(
    harness: &Harness,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
    coding: Option<&str>,
) -> (u16, String, Vec<u8>) {
    let mut request = harness
        .client
        .post(harness.url(path))
        .header("x-api-key", &harness.key)
        .header("content-type", content_type);
    if let Some(coding) = coding {
        request = request.header("content-encoding", coding);
    }
    let response = request.body(body).send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), kind, response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn spans_become_events_once_however_often_and_in_whichever_form_they_come() {
    let harness = Harness::start().await;
    let request = spans(None);
    let (status, kind, body) = post(&harness, "/v1/traces", PROTOBUF, request.encode_to_vec(), None).await;
    assert_eq!((status, kind.as_str()), (200, PROTOBUF));
    assert_eq!(
        ExportTraceServiceResponse::decode(body.as_slice()).unwrap(),
        ExportTraceServiceResponse::default()
    );
    let json = serde_json::to_vec(&request).unwrap();
    let (status, kind, _) = post(&harness, "/v1/traces", "application/json", json, None).await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    let packed = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&request.encode_to_vec()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(post(&harness, "/v1/traces", PROTOBUF, packed, Some("gzip")).await.0, 200);
    let events = harness.queue.events();
    assert_eq!(events.len(), 3, "only the span of MCP");
    assert!(
        events.iter().all(|event| event.id == events[0].id),
        "a span that comes again has the same id"
    );
    let event = &events[0];
    assert_eq!(
        (event.namespace(), event.server(), event.source.as_str()),
        ("acme", "payments", "payments")
    );
    assert_eq!(event.payload.tool_name.as_deref(), Some("refund"));
    assert_eq!(event.payload.latency_us, Some(5_000));
    assert_eq!(event.span_id.unwrap().to_string(), "b7ad6b7169203331");
}

#[tokio::test]
async fn a_span_that_cannot_be_taken_is_a_partial_success() {
    let harness = Harness::start().await;
    let (status, _, body) = post(&harness, "/v1/traces", PROTOBUF, spans(Some("foreign")).encode_to_vec(), None).await;
    let partial = ExportTraceServiceResponse::decode(body.as_slice())
        .unwrap()
        .partial_success
        .unwrap();
    assert_eq!((status, partial.rejected_spans), (200, 1));
    assert!(
        partial.error_message.contains("payload.namespace"),
        "{}",
        partial.error_message
    );
}

#[tokio::test]
async fn log_records_become_events() {
    let harness = Harness::start().await;
    let request: ExportLogsServiceRequest = serde_json::from_value(json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "payments"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": (NOW_SECONDS.unsigned_abs() * 1_000_000_000).to_string(),
            "attributes": [{"key": "mcp.method.name", "value": {"stringValue": "ping"}}]}]}],
    }]}))
    .unwrap();
    for (kind, body) in [
        (PROTOBUF, request.encode_to_vec()),
        ("application/json", serde_json::to_vec(&request).unwrap()),
    ] {
        assert_eq!(post(&harness, "/v1/logs", kind, body, None).await.0, 200);
    }
    let events = harness.queue.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.payload.rpc_method.as_deref() == Some("ping")));
}

#[tokio::test]
async fn refusals_are_statuses_in_the_form_of_the_request() {
    let harness = Harness::start().await;
    let (status, kind, body) = post(&harness, "/v1/traces", PROTOBUF, b"{}".to_vec(), None).await;
    assert_eq!((status, kind.as_str(), body[..2].to_vec()), (400, PROTOBUF, vec![8, 3]));
    let (status, kind, _) = post(&harness, "/v1/traces", "application/json", b"[".to_vec(), None).await;
    assert_eq!((status, kind.as_str()), (400, "application/json"));
    let (status, ..) = post(&harness, "/v1/traces", "text/plain", b"x".to_vec(), None).await;
    assert_eq!(status, 415);
    let response = harness.client.get(harness.url("/v1/traces")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["allow"].to_str().unwrap()),
        (405, "POST")
    );
}
