//! Requests and answers as they are seen on the wire, and the columns they must be recorded as.

use futures::FutureExt as _;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use crate::support::{Setup, answer, whole};

struct Case {
    name: &'static str,
    method: Method,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: u16,
    content_type: &'static str,
    answer: &'static str,
    columns: Value,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "",
            method: Method::POST,
            headers: &[],
            body: "",
            status: 200,
            content_type: "application/json",
            answer: "",
            columns: json!({}),
        }
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hi"}}}"#;
const MODERN_CALL: &str = r#"{"jsonrpc":"2.0","id":"c-1","method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"cli","version":"2.4.0"},"io.modelcontextprotocol/clientCapabilities":{},"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"}}}"#;
const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":"server-discover-probe-1","method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

fn calls() -> Vec<Case> {
    vec![
        Case {
            name: "legacy call over SSE, primed, result before id",
            headers: &[
                ("mcp-session-id", "s"),
                ("mcp-protocol-version", "2025-11-25"),
                ("x-mcp-agent-id", "cursor"),
            ],
            body: CALL,
            content_type: "text/event-stream; charset=utf-8",
            answer: "id: 1\r\ndata: \r\n\r\nevent: message\r\nid: 2\r\ndata: {\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"Echo\"}]},\"jsonrpc\":\"2.0\",\"id\":2}\r\n\r\n",
            columns: json!({"outcome":"ok","era":"legacy","protocol_version":"2025-11-25","rpc_method":"tools/call","tool_name":"echo",
                "request_id":"2","response_kind":"sse","sse_events":1,"progress_count":0,"status":200,"decision":"allow","reason":"allowed",
                "agent_id":"cursor","identity":"asserted","server":"payments","namespace":"acme","method":"POST","path":"/payments/mcp",
                "error_type":null,"rpc_code":null,"bytes_in":CALL.len()}),
            ..Case::default()
        },
        Case {
            name: "modern call",
            headers: &[
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "echo"),
            ],
            body: MODERN_CALL,
            answer: r#"{"jsonrpc":"2.0","id":"c-1","result":{"resultType":"complete","content":[],"structuredContent":{"isError":true}}}"#,
            columns: json!({"outcome":"ok","era":"modern","protocol_version":"2026-07-28","client_name":"cli","client_version":"2.4.0",
                "request_id":"\"c-1\"","session_id":null,"identity":"none"}),
            ..Case::default()
        },
        Case {
            name: "tool error behind other things",
            body: CALL,
            answer: r#"{"result":{"content":[{"text":"isError\":false"}],"isError":true},"jsonrpc":"2.0","id":2}"#,
            columns: json!({"outcome":"tool_error","error_type":"tool_error","protocol_version":"2025-03-26"}),
            ..Case::default()
        },
        Case {
            name: "input required",
            body: MODERN_CALL,
            answer: r#"{"jsonrpc":"2.0","id":"c-1","result":{"resultType":"input_required","inputRequests":{},"requestState":"x"}}"#,
            columns: json!({"outcome":"input_required"}),
            ..Case::default()
        },
        Case {
            name: "task",
            body: MODERN_CALL,
            answer: r#"{"jsonrpc":"2.0","id":"c-1","result":{"resultType":"task","taskId":"t"}}"#,
            columns: json!({"outcome":"task"}),
            ..Case::default()
        },
    ]
}

fn errors() -> Vec<Case> {
    vec![
        Case {
            name: "resource not found, the Python way",
            body: r#"{"jsonrpc":"2.0","id":3,"method":"resources/read","params":{"uri":"file:///x"}}"#,
            status: 400,
            answer: r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"no"}}"#,
            columns: json!({"outcome":"rpc_error","rpc_code":-32602,"error_type":"-32602","resource_uri":"file:///x","tool_name":null,"status":400}),
            ..Case::default()
        },
        Case {
            name: "prompt not found, the TypeScript way",
            body: r#"{"jsonrpc":"2.0","id":3,"method":"prompts/get","params":{"name":"p"}}"#,
            answer: r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"no"}}"#,
            columns: json!({"outcome":"rpc_error","prompt_name":"p","tool_name":null,"status":200}),
            ..Case::default()
        },
        Case {
            name: "header mismatch",
            body: MODERN_CALL,
            status: 400,
            answer: r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"mismatch"}}"#,
            columns: json!({"outcome":"rpc_error","rpc_code":-32020}),
            ..Case::default()
        },
        Case {
            name: "modern probe of a legacy server",
            body: DISCOVER,
            status: 400,
            answer: r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
            columns: json!({"outcome":"era_probe","era":"modern","error_type":null}),
            ..Case::default()
        },
        Case {
            name: "upstream failure",
            body: CALL,
            status: 503,
            content_type: "text/html",
            answer: "<h1>no</h1>",
            columns: json!({"outcome":"transport_error","error_type":"http_503","response_kind":"other"}),
            ..Case::default()
        },
        Case {
            name: "a page instead of an answer",
            body: CALL,
            content_type: "text/html",
            answer: "<h1>hello</h1>",
            columns: json!({"outcome":"transport_error","error_type":"not_json_rpc"}),
            ..Case::default()
        },
        Case {
            name: "an answer that ends within",
            body: CALL,
            answer: r#"{"jsonrpc":"2.0","id":2,"result":{"#,
            columns: json!({"outcome":"transport_error","error_type":"not_json_rpc"}),
            ..Case::default()
        },
        Case {
            name: "unknown session in plain text",
            headers: &[("mcp-session-id", "gone")],
            body: CALL,
            status: 404,
            content_type: "text/plain",
            answer: "session not found",
            columns: json!({"outcome":"transport_error","error_type":"http_404"}),
            ..Case::default()
        },
    ]
}

fn others() -> Vec<Case> {
    vec![
        Case {
            name: "notification",
            body: r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            status: 202,
            columns: json!({"outcome":"ok","rpc_method":"notifications/initialized","request_id":null,"response_kind":"empty","type":"mcp.request"}),
            ..Case::default()
        },
        Case {
            name: "the client's answer to a question",
            body: r#"{"jsonrpc":"2.0","id":0,"result":{"action":"accept"}}"#,
            status: 202,
            columns: json!({"outcome":"ok","rpc_method":null,"request_id":null}),
            ..Case::default()
        },
        Case {
            name: "list",
            body: r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            answer: r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#,
            columns: json!({"outcome":"ok","rpc_method":"tools/list","tool_name":null,"type":"mcp.request"}),
            ..Case::default()
        },
        Case {
            name: "server without streams",
            method: Method::GET,
            headers: &[("mcp-session-id", "s")],
            status: 405,
            content_type: "application/json",
            answer: r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Method not allowed."},"id":null}"#,
            columns: json!({"outcome":"ok","type":"mcp.stream","method":"GET","status":405}),
            ..Case::default()
        },
        Case {
            name: "end of a session",
            method: Method::DELETE,
            headers: &[("mcp-session-id", "s")],
            columns: json!({"outcome":"ok","type":"mcp.session","method":"DELETE"}),
            ..Case::default()
        },
        Case {
            name: "no JSON at all",
            body: "hello",
            status: 400,
            answer: r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#,
            columns: json!({"outcome":"rpc_error","rpc_code":-32700,"rpc_method":null,"attributes":{"message":"not_json"}}),
            ..Case::default()
        },
        Case {
            name: "batch",
            body: r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]"#,
            status: 400,
            answer: r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no batches"}}"#,
            columns: json!({"outcome":"rpc_error","rpc_method":"ping","attributes":{"batch":"2"}}),
            ..Case::default()
        },
    ]
}

#[tokio::test]
async fn every_exchange_is_recorded_as_what_it_was() {
    for case in calls().into_iter().chain(errors()).chain(others()) {
        let Case {
            name,
            status,
            content_type,
            answer: text,
            ..
        } = case;
        let setup = Setup::new(move |_: Request<_>| async move { answer(status, content_type, text) }.boxed());
        let mut request = setup.request(case.method, case.body);
        for (header, value) in case.headers {
            request.headers_mut().insert(*header, value.parse().unwrap());
        }
        let response = whole(setup.send(request).await).await;
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (status, text.as_bytes()),
            "{name}: the answer is the server's own"
        );
        let event = setup.event().await;
        let recorded = serde_json::to_value(&event).unwrap();
        for (column, wanted) in case.columns.as_object().unwrap() {
            let found = if column == "type" {
                &recorded["event_type"]
            } else {
                &recorded["payload"][column]
            };
            assert_eq!(found, wanted, "{name}: {column} of {recorded:#}");
        }
        assert_eq!(recorded["payload"]["bytes_out"], text.len(), "{name}");
        assert!(
            recorded["payload"]["latency_us"].as_u64() >= recorded["payload"]["upstream_us"].as_u64(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_session_lends_its_calls_what_the_client_said_at_first() {
    let setup = Setup::new(|request: Request<_>| {
        let opens = !request.headers().contains_key("mcp-session-id");
        async move {
            let result = if opens { r#"{"protocolVersion":"2025-06-18"}"# } else { "{}" };
            let mut response: Response<_> = answer(
                200,
                "application/json",
                format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#),
            );
            if opens {
                response
                    .headers_mut()
                    .insert("mcp-session-id", "secret-session".parse().unwrap());
            }
            response
        }
        .boxed()
    });
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","clientInfo":{"name":"inspector","version":"1.2"},"capabilities":{}}}"#;
    drop(setup.post(body).await);
    let opened = setup.event().await;
    let mut request = setup.request(Method::POST, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    request
        .headers_mut()
        .insert("mcp-session-id", "secret-session".parse().unwrap());
    drop(whole(setup.send(request).await).await);
    let listed = setup.event().await;
    assert_eq!(
        (opened.event_type.as_str(), opened.payload.era, opened.payload.outcome),
        ("mcp.session", Some(domain::Era::Legacy), Some(domain::Outcome::Ok))
    );
    for event in [&opened, &listed] {
        assert_eq!(event.payload.client_name.as_deref(), Some("inspector"));
        assert_eq!(
            event.payload.protocol_version.as_deref(),
            Some("2025-06-18"),
            "the revision agreed on, not the one proposed"
        );
        assert!(!serde_json::to_string(event).unwrap().contains("secret-session"));
    }
    assert!(opened.payload.session_id.is_some());
    assert_eq!(opened.payload.session_id, listed.payload.session_id);
}

#[tokio::test]
async fn a_legacy_cancellation_marks_the_call_it_names() {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let released = std::sync::Arc::clone(&release);
    let setup = Setup::new(move |request: Request<_>| {
        let released = std::sync::Arc::clone(&released);
        async move {
            if request.headers().contains_key("x-wait") {
                released.notified().await;
                return answer(
                    200,
                    "application/json",
                    r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32800,"message":"Request cancelled"}}"#,
                );
            }
            answer(202, "application/json", "")
        }
        .boxed()
    });
    let with_session = |mut request: Request<_>| {
        request.headers_mut().insert("mcp-session-id", "s".parse().unwrap());
        request
    };
    let mut call = with_session(setup.request(Method::POST, CALL));
    call.headers_mut().insert("x-wait", "1".parse().unwrap());
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2,"reason":"bored"}}"#;
    let cancel = with_session(setup.request(Method::POST, cancel));
    let (answered, ()) = tokio::join!(setup.send(call), async {
        drop(whole(setup.send(cancel).await).await);
        release.notify_one();
    });
    drop(whole(answered).await);
    let events = setup.events(2).await;
    let outcomes: Vec<_> = events.iter().map(|event| event.payload.outcome.unwrap().as_str()).collect();
    assert_eq!(outcomes, ["ok", "cancelled"]);
    assert_eq!(events[1].payload.rpc_code, Some(-32_800));
}

#[tokio::test]
async fn text_of_strangers_is_cut_so_that_ingest_takes_the_event() {
    let setup = Setup::new(|_: Request<_>| async { answer(200, "application/json", "{}") }.boxed());
    let long = "ä".repeat(20_000);
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"{long}","method":"tools/call","params":{{"name":"{long}","_meta":{{"io.modelcontextprotocol/protocolVersion":"{long}","io.modelcontextprotocol/clientInfo":{{"name":"{long}","version":"{long}"}}}}}}}}"#
    );
    let mut request = setup.request(Method::POST, body);
    *request.uri_mut() = format!("http://{}/payments/mcp/{}", setup.address, "p".repeat(9_000))
        .parse()
        .unwrap();
    request
        .headers_mut()
        .insert("x-mcp-human-id", "h".repeat(5_000).parse().unwrap());
    drop(whole(setup.send(request).await).await);
    let event = setup.event().await;
    for column in domain::COLUMNS {
        if let domain::Value::Text(text) = (column.read)(&event.payload) {
            assert!(text.len() <= column.bytes_max, "{} has {} bytes", column.name, text.len());
        }
    }
    assert!(event.payload.tool_name.unwrap().ends_with('…'));
}
