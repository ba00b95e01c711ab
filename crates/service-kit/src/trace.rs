//! W3C trace context: one id that follows a request through every service, into logs and problem bodies.

use std::fmt;

use ::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries trace context between services.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Names one request across all services; prints as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Names one service's part of a request; prints as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// Where a request stands in its trace: version 00 of the `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The trace flags as they came; bit 0 says that the caller keeps the trace.
    pub flags: u8,
}

impl TraceId {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

impl TraceContext {
    /// The start of a new trace.
    pub fn fresh() -> Self {
        // All zeroes means "none" on the wire; `| 1` costs one bit and never gives it.
        let trace_id = (u128::from(crate::random::next()) << 64 | u128::from(crate::random::next())) | 1;
        Self {
            trace_id: TraceId(trace_id.to_be_bytes()),
            span_id: fresh_span_id(),
            flags: 1,
        }
    }

    /// The same trace, one step further: what to send to the next service.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            span_id: fresh_span_id(),
            ..self
        }
    }

    /// This service's own place in the caller's trace; a new trace when the caller has none or sends nonsense.
    pub fn accept(headers: &HeaderMap) -> Self {
        let sent = headers.get(TRACEPARENT).and_then(|value| Self::parse(value.as_bytes()));
        sent.map_or_else(Self::fresh, Self::child)
    }

    /// Reads a `traceparent` value. Later versions may append fields, which are ignored, as the standard asks.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (fixed, rest) = text.split_at_checked(55)?;
        let version = hex::<1>(fixed.get(..2)?)?[0];
        let rest_is_fine = rest.is_empty() || (version > 0 && rest[0] == b'-');
        if version == 0xff || !rest_is_fine || [2, 35, 52].iter().any(|at| fixed[*at] != b'-') {
            return None;
        }
        let trace_id = hex::<16>(fixed.get(3..35)?)?;
        let span_id = hex::<8>(fixed.get(36..52)?)?;
        let flags = hex::<1>(fixed.get(53..55)?)?[0];
        let named = trace_id != [0; 16] && span_id != [0; 8];
        named.then_some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            flags,
        })
    }

    /// The value of a `traceparent` header.
    pub fn to_header(self) -> HeaderValue {
        // Hex digits and dashes are always a valid header value.
        HeaderValue::try_from(self.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The context of the request this task works on, if [`scope`] or [`http::serve`](crate::http::serve) set one. Tasks spawned
/// from a request do not inherit it.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// Runs `future` as part of a request.
pub async fn scope<F: Future>(context: TraceContext, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

fn fresh_span_id() -> SpanId {
    SpanId((crate::random::next() | 1).to_be_bytes())
}

/// Lower-case hex digits only, as the standard asks.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderMap;

    use super::{TRACEPARENT, TraceContext};

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_reads_and_writes_the_same() {
        let context = TraceContext::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.to_header(), EXAMPLE);
    }

    #[test]
    fn later_versions_may_say_more() {
        assert!(TraceContext::parse(b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn accepting_keeps_the_trace_and_makes_a_span() {
        let mut headers = HeaderMap::new();
        let alone = TraceContext::accept(&headers);
        assert_ne!(alone.trace_id, TraceContext::accept(&headers).trace_id);
        headers.insert(TRACEPARENT, EXAMPLE.parse().unwrap());
        let sent = TraceContext::parse(EXAMPLE.as_bytes()).unwrap();
        let accepted = TraceContext::accept(&headers);
        assert_eq!((accepted.trace_id, accepted.flags), (sent.trace_id, sent.flags));
        assert_ne!(accepted.span_id, sent.span_id);
    }
}
