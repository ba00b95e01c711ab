//! A minimal MCP server that costs next to nothing, and a sink for events.
//!
//! | request | answer |
//! |---|---|
//! | `POST` with tool `echo` (anything else too) | 100 bytes of JSON |
//! | `POST` with tool `ticks` | server-sent events, one each 5 ms, each with the time it was written |
//! | `POST` with tool `large` | 100 MiB of JSON |
//! | `GET` | a stream that stays silent |
//! | `POST /events` | 202, after reading the body |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use memchr::memmem;
use service_kit::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Events of one stream.
pub const TICKS: u32 = 200;
const TICK: Duration = Duration::from_millis(5);
/// Bytes of the large answer.
pub const LARGE_BYTES: u64 = 100 << 20;
const PIECE: &[u8] = &[b'x'; 64 << 10];

/// The answer to a small call: 100 bytes.
pub const SMALL: &str =
    r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"Echo: hello, my world............"}]}}"#;

/// The call of `reference` size: 419 bytes for a tool with a name of four letters.
pub fn call(tool: &str) -> Vec<u8> {
    let mut text = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"message":"hello, my world","note":""}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"load","version":"1.0.0"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    );
    let missing = 419_usize.saturating_sub(text.len());
    let at = text.find(r#"note":""#).map_or(0, |at| at + 7);
    text.insert_str(at, &"n".repeat(missing));
    text.into_bytes()
}

/// Answers until the process ends.
pub async fn run(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let clock = Clock::system();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let clock = clock.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, clock.clone()));
            // A client that goes away within an answer is no fault of ours.
            drop(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, clock: Clock) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    if head.method == Method::GET {
        return Ok(event_stream(Answer::Silent));
    }
    let Ok(body) = body.collect().await else {
        return Ok(json(Answer::Small(Full::default())));
    };
    let body = body.to_bytes();
    if head.uri.path() == "/events" {
        let mut response = json(Answer::Small(Full::default()));
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    Ok(if memmem::find(&body, br#""name":"ticks""#).is_some() {
        let mut interval = interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        event_stream(Answer::Ticks {
            clock,
            interval: Box::new(interval),
            left: TICKS,
        })
    } else if memmem::find(&body, br#""name":"large""#).is_some() {
        json(Answer::Large(LARGE_BYTES))
    } else {
        json(Answer::Small(Full::new(Bytes::from_static(SMALL.as_bytes()))))
    })
}

fn json(body: Answer) -> Response<Answer> {
    typed(body, "application/json")
}

fn event_stream(body: Answer) -> Response<Answer> {
    typed(body, "text/event-stream")
}

fn typed(body: Answer, content_type: &'static str) -> Response<Answer> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// Body of an answer.
#[derive(Debug)]
enum Answer {
    Small(Full<Bytes>),
    Ticks {
        clock: Clock,
        interval: Box<Interval>,
        left: u32,
    },
    Large(u64),
    Silent,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Small(body) => Pin::new(body).poll_frame(context),
            Self::Ticks { left: 0, .. } | Self::Large(0) => Poll::Ready(None),
            Self::Ticks { clock, interval, left } => {
                ready!(interval.poll_tick(context));
                *left -= 1;
                let event = format!("event: message\ndata: {{\"sent\":{}}}\n\n", clock.unix_ns());
                Poll::Ready(Some(Ok(Frame::data(event.into()))))
            }
            Self::Large(left) => {
                let now = (*left).min(PIECE.len() as u64);
                *left -= now;
                let piece = Bytes::from_static(PIECE).slice(..usize::try_from(now).unwrap_or(PIECE.len()));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Silent => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Small(body) => body.size_hint(),
            Self::Large(left) => SizeHint::with_exact(*left),
            Self::Ticks { .. } | Self::Silent => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_size_it_is_known_by() {
        assert_eq!(call("echo").len(), 419);
        let parsed: serde_json::Value = serde_json::from_slice(&call("large")).unwrap();
        assert_eq!(parsed["params"]["name"], "large");
    }

    #[test]
    fn the_small_answer_is_json() {
        assert!(
            serde_json::from_str::<serde_json::Value>(SMALL).is_ok() && (95..=110).contains(&SMALL.len()),
            "{}",
            SMALL.len()
        );
    }
}
