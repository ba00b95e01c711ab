//! Servers of the transport before revision 2025-03-26: a stream whose first event names where to post.

use bytes::Bytes;
use domain::Outcome;
use futures::FutureExt as _;
use http::Method;
use http_body_util::BodyExt as _;

use crate::support::{Setup, answer, endless, soon, until};

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"refund"}}"#;

#[tokio::test]
async fn what_the_server_names_leads_through_the_gateway_and_nowhere_else() {
    let setup = Setup::new(|request| {
        async move {
            match request.uri().path() {
                "/messages" => {
                    assert_eq!(request.uri().query(), Some("s=1"));
                    answer(202, "text/plain", "Accepted")
                }
                "/mcp" => endless("event: endpoint\r\ndata: /messages?s=1\r\n\r\n"),
                below_its_own => {
                    assert_eq!(below_its_own, "/mcp/.endpoint/admin");
                    answer(404, "text/plain", "none")
                }
            }
        }
        .boxed()
    });
    let post = |path: &str| {
        let mut request = setup.request(Method::POST, CALL);
        *request.uri_mut() = format!("http://{}{path}", setup.address).parse().unwrap();
        setup.send(request)
    };
    assert_eq!(
        post("/payments/mcp/.endpoint/admin").await.status(),
        404,
        "only what was named is passed on"
    );
    setup.events(1).await;
    let mut stream = setup.send(setup.request(Method::GET, "")).await.into_body();
    let first = soon("the endpoint", stream.frame())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(
        first,
        Bytes::from("event: endpoint\r\ndata: /payments/mcp/.endpoint/messages?s=1\r\n\r\n")
    );
    assert_eq!(post("/payments/mcp/.endpoint/messages?s=1").await.status(), 202);
    let event = setup.event().await;
    assert_eq!(event.payload.outcome, Some(Outcome::Ok), "the answer comes on the stream");
    assert_eq!(event.payload.attributes["answer"], "elsewhere");
    drop(stream);
    let outcome = until("the stream's event", || match setup.recorder.drain(1).pop() {
        Some(event) => Ok(event.payload.outcome),
        None => Err("none".to_owned()),
    })
    .await;
    assert_eq!(outcome, Some(Outcome::Ok));
}
