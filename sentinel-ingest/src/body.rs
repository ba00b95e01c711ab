//! Getting a request's body: its form by the headers, its bytes within bounds.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use service_kit::Problem;
use service_kit::http::BodyIdle;

use crate::answer::{self, BodyFault};
use crate::budget::Held;

/// What is read and thrown away of a body that was refused already, so that its sender comes to read the answer: a sender that is
/// still writing when we close sees a reset instead.
const DISCARDED_BYTES_MAX: u64 = 16 << 20;

/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a whole body may take to arrive. Pauses within it have a bound of their own; this one is for senders that drip.
const ARRIVAL_TIME_MAX: Duration = Duration::from_mins(2);

/// How the events of a body follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One JSON document, or several one after another.
    Json,
    /// One JSON document per line.
    Lines,
    /// A request of OTLP.
    Telemetry(Telemetry, Wire),
}

/// What a request of OTLP exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telemetry {
    Spans,
    Records,
}

impl Telemetry {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Records => "log records",
        }
    }
}

/// How a request of OTLP is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Protobuf,
    Json,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// What the headers say about a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) layout: Layout,
    pub(crate) coding: Coding,
}

impl Form {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            layout: layout(headers)?,
            coding: coding(headers)?,
        })
    }

    pub(crate) fn of_spans(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::of_telemetry(headers, Telemetry::Spans)
    }

    pub(crate) fn of_records(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::of_telemetry(headers, Telemetry::Records)
    }

    fn of_telemetry(headers: &HeaderMap, telemetry: Telemetry) -> Result<Self, Problem> {
        let sent = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let essence = sent.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let wire = match essence.to_ascii_lowercase().as_slice() {
            b"application/x-protobuf" => Wire::Protobuf,
            b"application/json" => Wire::Json,
            _ => return Err(answer::unknown_telemetry_type(&String::from_utf8_lossy(sent))),
        };
        Ok(Self {
            layout: Layout::Telemetry(telemetry, wire),
            coding: coding(headers)?,
        })
    }
}

fn layout(headers: &HeaderMap) -> Result<Layout, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Layout::Json);
    };
    let refused = || answer::unknown_content_type(&shown(value));
    let mut parts = value.to_str().map_err(|_| refused())?.split(';').map(str::trim);
    let layout = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "application/json" | "" => Layout::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Layout::Lines,
        _ => return Err(refused()),
    };
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("us-ascii") => Err(refused()),
        _ => Ok(layout),
    }
}

fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let mut coding = Coding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let refused = || answer::unknown_coding(&shown(value));
        for name in value.to_str().map_err(|_| refused())?.split(',') {
            let next = match name.trim().to_ascii_lowercase().as_str() {
                "identity" | "" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "zstd" => Coding::Zstd,
                _ => return Err(refused()),
            };
            // Packing what is packed saves nothing, and unpacking it is what bombs are made of.
            if coding != Coding::Identity {
                return Err(refused());
            }
            coding = next;
        }
    }
    Ok(coding)
}

/// A header's value as an answer may repeat it.
fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect()
}

/// The length the sender announced; `None` for a chunked body.
pub(crate) fn announced(body: &Body) -> Option<u64> {
    body.size_hint().exact()
}

/// Reads the whole body, holding memory for it as it comes.
pub(crate) async fn read(body: &mut Body, bytes_max: usize, held: &mut Held) -> Result<Bytes, BodyFault> {
    read_within(ARRIVAL_TIME_MAX, body, bytes_max, held).await
}

async fn read_within(time_max: Duration, body: &mut Body, bytes_max: usize, held: &mut Held) -> Result<Bytes, BodyFault> {
    let whole = tokio::time::timeout(time_max, pieces(body, bytes_max, held)).await;
    whole.unwrap_or(Err(BodyFault::Paused))
}

async fn pieces(body: &mut Body, bytes_max: usize, held: &mut Held) -> Result<Bytes, BodyFault> {
    let announced = announced(body).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(bytes_max).min(bytes_max));
    // Small bodies come in one piece, which needs no copying.
    let mut only = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        // Trailers say nothing we ask for.
        let Ok(piece) = frame.into_data() else { continue };
        if only.len() + whole.len() + piece.len() > bytes_max {
            return Err(BodyFault::TooLarge { bytes_max });
        }
        held.grow(piece.len())?;
        if only.is_empty() && whole.is_empty() {
            only = piece;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.max(only.len() + piece.len()));
            whole.extend_from_slice(&std::mem::take(&mut only));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() { only } else { whole.freeze() })
}

/// Reads on without keeping anything, for a while.
pub(crate) async fn discard(headers: &HeaderMap, body: Body) {
    // Who asked before sending has sent nothing yet, and must not be told to go on.
    if !headers.contains_key(header::EXPECT) {
        // Late or not, the answer follows.
        let _in_time = tokio::time::timeout(DISCARD_TIME_MAX, discard_pieces(body)).await;
    }
}

async fn discard_pieces(mut body: Body) {
    let mut bytes = 0;
    while bytes < DISCARDED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, |piece| piece.len() as u64);
    }
}

fn broken(error: &(dyn Error + 'static)) -> BodyFault {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(BodyIdle::Paused(_))) {
            return BodyFault::Paused;
        }
        cause = error.source();
    }
    BodyFault::CutOff
}

#[cfg(test)]
mod tests;
