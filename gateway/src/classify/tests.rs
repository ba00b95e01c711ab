use domain::{Era, Outcome, ResponseKind};

use super::{Asked, Ending, Seen, classify};
use crate::scan::Found;

fn seen() -> Seen<'static> {
    Seen {
        asked: Asked::Answer,
        method: Some("tools/call"),
        era: Some(Era::Legacy),
        ending: Ending::Complete,
        status: 200,
        kind: Some(ResponseKind::Json),
        answer: None,
        unread: false,
        resumable: false,
        cancelled: false,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases, a line or two each")]
fn the_order_of_precedence_holds() {
    let error = Found {
        has_error: true,
        code: Some(-32_602),
        ..Found::default()
    };
    let modern = Found {
        has_error: true,
        code: Some(-32_022),
        ..Found::default()
    };
    let tool_error = Found {
        has_result: true,
        is_error: true,
        ..Found::default()
    };
    let fine = Found {
        has_result: true,
        ..Found::default()
    };
    let asks = Found {
        has_result: true,
        result_type: Some("input_required".to_owned()),
        ..Found::default()
    };
    let discover = Some("server/discover");
    let cases = [
        (
            Seen {
                ending: Ending::Refused("body_too_large"),
                status: 413,
                ..seen()
            },
            Outcome::Denied,
            Some("body_too_large"),
        ),
        (
            Seen {
                ending: Ending::Unanswered("timeout"),
                status: 504,
                ..seen()
            },
            Outcome::TransportError,
            Some("timeout"),
        ),
        (
            Seen {
                status: 503,
                answer: Some(&error),
                ..seen()
            },
            Outcome::TransportError,
            Some("http_503"),
        ),
        (
            Seen {
                cancelled: true,
                answer: Some(&error),
                ..seen()
            },
            Outcome::Cancelled,
            Some("cancelled"),
        ),
        (
            Seen {
                cancelled: true,
                ending: Ending::Broken("upstream_broken"),
                ..seen()
            },
            Outcome::Cancelled,
            Some("cancelled"),
        ),
        (
            Seen {
                method: discover,
                status: 400,
                answer: Some(&error),
                ..seen()
            },
            Outcome::EraProbe,
            None,
        ),
        (
            Seen {
                method: discover,
                status: 400,
                answer: Some(&modern),
                ..seen()
            },
            Outcome::RpcError,
            Some("-32022"),
        ),
        (
            Seen {
                method: discover,
                status: 404,
                kind: Some(ResponseKind::Other),
                ..seen()
            },
            Outcome::EraProbe,
            None,
        ),
        (
            Seen {
                status: 400,
                answer: Some(&error),
                ..seen()
            },
            Outcome::RpcError,
            Some("-32602"),
        ),
        (
            Seen {
                answer: Some(&error),
                ..seen()
            },
            Outcome::RpcError,
            Some("-32602"),
        ),
        (
            Seen {
                answer: Some(&tool_error),
                ..seen()
            },
            Outcome::ToolError,
            Some("tool_error"),
        ),
        (
            Seen {
                answer: Some(&asks),
                ..seen()
            },
            Outcome::InputRequired,
            None,
        ),
        (
            Seen {
                answer: Some(&fine),
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
        (
            Seen {
                answer: Some(&fine),
                ending: Ending::ClientGone,
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
        (
            Seen {
                ending: Ending::ClientGone,
                ..seen()
            },
            Outcome::Cancelled,
            Some("client_disconnected"),
        ),
        (
            Seen {
                ending: Ending::ClientGone,
                asked: Asked::Stream,
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
        (
            Seen {
                ending: Ending::Broken("upstream_broken"),
                ..seen()
            },
            Outcome::TransportError,
            Some("upstream_broken"),
        ),
        (
            Seen {
                asked: Asked::Stream,
                status: 405,
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
        (
            Seen {
                asked: Asked::Control,
                status: 405,
                answer: Some(&error),
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
        (
            Seen {
                asked: Asked::Control,
                status: 404,
                ..seen()
            },
            Outcome::TransportError,
            Some("http_404"),
        ),
        (
            Seen {
                kind: Some(ResponseKind::Other),
                ..seen()
            },
            Outcome::TransportError,
            Some("not_json_rpc"),
        ),
        (
            Seen {
                kind: Some(ResponseKind::Sse),
                ..seen()
            },
            Outcome::TransportError,
            Some("stream_without_answer"),
        ),
        (
            Seen {
                kind: Some(ResponseKind::Sse),
                resumable: true,
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
        (Seen { unread: true, ..seen() }, Outcome::Ok, None),
        (
            Seen {
                asked: Asked::Nothing,
                status: 202,
                kind: Some(ResponseKind::Empty),
                ..seen()
            },
            Outcome::Ok,
            None,
        ),
    ];
    for (seen, outcome, error_type) in cases {
        assert_eq!(classify(&seen), (outcome, error_type.map(str::to_owned)), "{seen:?}");
    }
}
