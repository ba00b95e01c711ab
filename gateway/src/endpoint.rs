//! The first event of a legacy HTTP+SSE stream tells the client where to post. The server names a path of its own, which is not one of
//! ours: it is replaced by the path that leads there through this gateway.
//!
//! Only that one event is held back, and only while it still looks like one; everything else passes as it comes.

use bytes::Bytes;
use http::Uri;

use crate::route::Site;

/// Longest such event; a longer one passes as it is.
const EVENT_BYTES_MAX: usize = 4_096;

const START: &[u8] = b"event: endpoint";

/// Watches the beginning of a stream.
#[derive(Debug, Default)]
pub(crate) struct EndpointEdit {
    held: Vec<u8>,
}

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// The event is not complete.
    Held,
    /// This passes, and nothing that follows needs to be looked at.
    Done(Bytes),
}

impl EndpointEdit {
    pub(crate) fn feed(&mut self, piece: &Bytes, site: &Site) -> Fed {
        if self.held.is_empty() && !starts_like_endpoint(piece) {
            return Fed::Done(piece.clone());
        }
        self.held.extend_from_slice(piece);
        if !starts_like_endpoint(&self.held) {
            return Fed::Done(self.rest());
        }
        let Some(end) = event_end(&self.held) else {
            return if self.held.len() > EVENT_BYTES_MAX {
                Fed::Done(self.rest())
            } else {
                Fed::Held
            };
        };
        let (event, rest) = self.held.split_at(end);
        let edited = edit(event, site).map(|event| [&event, rest].concat());
        Fed::Done(edited.map_or_else(|| self.rest(), Bytes::from))
    }

    /// What was held back, when the stream ends or the event turns out to be another one.
    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }
}

/// Whether the bytes may be the beginning of the event. The space after the colon is optional.
fn starts_like_endpoint(bytes: &[u8]) -> bool {
    let matches = |bytes: &[u8], start: &[u8]| {
        let len = bytes.len().min(start.len());
        bytes[..len] == start[..len]
    };
    matches(bytes, START) || matches(bytes, b"event:endpoint")
}

/// Where the first event ends, line ends of all three kinds included.
fn event_end(bytes: &[u8]) -> Option<usize> {
    [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"]
        .into_iter()
        .filter_map(|blank| memchr::memmem::find(bytes, blank).map(|at| at + blank.len()))
        .min()
}

/// The event with our path instead of the server's; `None` when there is nothing to replace.
fn edit(event: &[u8], site: &Site) -> Option<Vec<u8>> {
    let data = memchr::memmem::find(event, b"data:")? + b"data:".len();
    let line = &event[data..];
    let end = memchr::memchr2(b'\n', b'\r', line)?;
    let (value, rest) = line.split_at(end);
    let named = std::str::from_utf8(value.trim_ascii()).ok()?;
    let ours = ours(named, site)?;
    Some([&event[..data], b" ", ours.as_bytes(), rest].concat())
}

/// Our path for an address that the server named.
fn ours(named: &str, site: &Site) -> Option<String> {
    let named: Uri = named.parse().ok()?;
    if let Some(authority) = named.authority()
        && authority.as_str().as_bytes() != site.authority.as_bytes()
    {
        return None;
    }
    let path = site.announce(named.path());
    Some(match named.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{EndpointEdit, Fed};
    use crate::route::{Route, RouteTable};

    fn fed(upstream: &'static str, prefix: &str, stream: &str, piece_bytes: usize) -> String {
        let route = Route::new("old", "acme", upstream.parse().unwrap()).at(prefix);
        let mount = if prefix.is_empty() {
            "/".to_owned()
        } else {
            format!("/{prefix}/mcp")
        };
        let site = RouteTable::new(vec![route]).unwrap().find(&mount).unwrap();
        let (mut edit, mut passed) = (Some(EndpointEdit::default()), Vec::new());
        for piece in stream.as_bytes().chunks(piece_bytes) {
            let piece = Bytes::copy_from_slice(piece);
            match edit.as_mut().map(|edit| edit.feed(&piece, &site)) {
                None => passed.extend_from_slice(&piece),
                Some(Fed::Held) => {}
                Some(Fed::Done(bytes)) => {
                    passed.extend_from_slice(&bytes);
                    edit = None;
                }
            }
        }
        passed.extend(edit.map(|mut edit| edit.rest()).unwrap_or_default());
        String::from_utf8(passed).unwrap()
    }

    #[test]
    fn the_endpoint_becomes_a_path_of_ours_however_it_is_cut() {
        let rest = "data: x\n\n: later\n\n";
        let cases = [
            (
                "event: endpoint\ndata: /messages?s=1\n\n",
                "event: endpoint\ndata: /old/mcp/.endpoint/messages?s=1\n\n",
            ),
            (
                "event:endpoint\r\ndata:/sse/m?s=1\r\n\r\n",
                "event:endpoint\r\ndata: /old/mcp/m?s=1\r\n\r\n",
            ),
            (
                "event: endpoint\ndata: http://up:1/m\n\n",
                "event: endpoint\ndata: /old/mcp/.endpoint/m\n\n",
            ),
            (
                "event: endpoint\ndata: http://elsewhere/m\n\n",
                "event: endpoint\ndata: http://elsewhere/m\n\n",
            ),
            ("event: message\ndata: /messages\n\n", "event: message\ndata: /messages\n\n"),
            ("event: end", "event: end"),
        ];
        for (sent, passed) in cases {
            for piece_bytes in [1, 7, 1_000] {
                let (sent, passed) = (format!("{sent}{rest}"), format!("{passed}{rest}"));
                assert_eq!(
                    fed("http://up:1/sse", "old", &sent, piece_bytes),
                    passed,
                    "in pieces of {piece_bytes}"
                );
            }
        }
        let endless = format!("event: endpoint\ndata: /{}", "a".repeat(10_000));
        assert_eq!(fed("http://up:1/sse", "old", &endless, 999), endless);
        let own = "event: endpoint\ndata: /messages?s=1\n\n";
        assert_eq!(
            fed("http://up:1", "", own, 999),
            own,
            "a server that owns every path is called by its own"
        );
    }
}
