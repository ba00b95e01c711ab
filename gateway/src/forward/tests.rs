use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use service_kit::trace::TraceContext;

use super::{CallerRules, remove_hop_by_hop, traceparent};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    pairs.iter().map(pair).collect()
}

#[test]
fn what_concerns_one_connection_stays_there() {
    let mut sent = headers(&[
        ("connection", "close, X-Private"),
        ("x-private", "1"),
        ("keep-alive", "5"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("transfer-encoding", "chunked"),
        ("mcp-session-id", "s"),
    ]);
    remove_hop_by_hop(&mut sent);
    assert_eq!(sent, headers(&[("mcp-session-id", "s")]));
}

#[test]
fn a_loopback_listener_takes_calls_of_this_machine_only() {
    let rules = CallerRules {
        loopback_only: true,
        hosts: vec!["Gateway.Local".to_owned()],
        origins: vec!["https://app.example".to_owned()],
    };
    let uri = Uri::from_static("/mcp");
    for (pairs, wanted) in [
        (vec![("host", "localhost:8091")], None),
        (vec![("host", "127.0.0.1")], None),
        (vec![("host", "[::1]:8091")], None),
        (vec![("host", "gateway.local:1")], None),
        (vec![("host", "evil.example")], Some("host_not_allowed")),
        (vec![("host", "localhost.evil.example")], Some("host_not_allowed")),
        (vec![("host", "127.0.0.1.evil.example")], Some("host_not_allowed")),
        (vec![], Some("host_not_allowed")),
        (vec![("host", "localhost"), ("origin", "http://localhost:6274")], None),
        (vec![("host", "localhost"), ("origin", "https://app.example")], None),
        (
            vec![("host", "localhost"), ("origin", "https://evil.example")],
            Some("origin_not_allowed"),
        ),
        (vec![("host", "localhost"), ("origin", "null")], Some("origin_not_allowed")),
    ] {
        assert_eq!(rules.refusal(&headers(&pairs), &uri), wanted, "{pairs:?}");
    }
    let open = CallerRules::default();
    assert_eq!(
        open.refusal(&headers(&[("host", "any.example"), ("origin", "https://any.example")]), &uri),
        None
    );
}

#[test]
fn the_trace_is_written_as_everybody_reads_it() {
    let trace = TraceContext::fresh();
    assert_eq!(traceparent(trace), trace.to_header());
}
