//! Spans for a collector, which is a server of ours.

use futures::FutureExt as _;
use gateway::{GatewayLimits, TracesConfig};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;
use service_kit::Tasks;
use tokio::sync::mpsc;

use crate::support::{Setup, json, soon, upstream, whole};

#[tokio::test]
async fn each_exchange_is_a_span_of_its_callers_trace() {
    let running = Tasks::for_test();
    let (taken, mut spans) = mpsc::channel(16);
    let collector = upstream(&running.tasks(), move |request| {
        let taken = taken.clone();
        async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            taken.send(serde_json::from_slice::<Value>(&body).unwrap()).await.unwrap();
            json("{}")
        }
        .boxed()
    });
    let setup = Setup::on(running, GatewayLimits::default(), |_request| {
        async { json(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#) }.boxed()
    });
    let config = TracesConfig {
        endpoint: format!("http://{collector}/").parse().unwrap(),
        service_name: "payments-gateway".to_owned(),
    };
    setup.gateway.trace(config, &setup.running.tasks());
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund"}}"#;
    for flags in ["00", "01"] {
        let mut request = setup.request(Method::POST, call);
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        request.headers_mut().insert("traceparent", parent.parse().unwrap());
        drop(whole(setup.send(request).await).await);
    }
    let sent = soon("a span", spans.recv()).await.unwrap();
    let resource = &sent["resourceSpans"][0];
    assert_eq!(
        resource["resource"]["attributes"][0]["value"]["stringValue"],
        "payments-gateway"
    );
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 1, "only what the caller keeps: {spans:?}");
    let span = &spans[0];
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"]),
        (&"4bf92f3577b34da6a3ce929d0e0e4736".into(), &"00f067aa0ba902b7".into())
    );
    assert_eq!(
        (&span["name"], &span["status"]["code"]),
        (&"tools/call refund".into(), &2.into())
    );
    let events = setup.events(2).await;
    assert!(
        events
            .iter()
            .any(|event| event.span_id.unwrap().to_string() == span["spanId"]),
        "the event's id is the span's"
    );
}
