//! A reader of server-sent events that come in pieces.
//!
//! Lines end with LF, CRLF or CR, also mixed and also split between pieces. The longest event is bounded.

use std::time::Duration;

/// One event. An event may carry an id alone, so that a reader can resume after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Set when the event names one; an empty one forgets the last.
    pub id: Option<String>,
    /// Lines of data joined by LF; empty for events that only carry an id or a pause.
    pub data: Vec<u8>,
    /// How long to wait before connecting again.
    pub retry: Option<Duration>,
}

/// An event was longer than the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {bytes_max} bytes")]
pub struct TooLong {
    pub bytes_max: usize,
}

/// Cuts a stream into events.
#[derive(Debug)]
pub struct Reader {
    bytes_max: usize,
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
    started: bool,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
/// A pause longer than this is not believed.
const RETRY_MAX: Duration = Duration::from_mins(5);

impl Reader {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            event: Event::default(),
            has_data: false,
            after_cr: false,
            started: false,
        }
    }

    /// Takes the next piece; `event` gets each one that is now complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut event: impl FnMut(Event)) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + self.event.data.len() + text.len() > self.bytes_max {
                return Err(TooLong {
                    bytes_max: self.bytes_max,
                });
            }
            self.line.extend_from_slice(text);
            let Some((&stop, rest)) = rest.split_first() else {
                return Ok(());
            };
            self.after_cr = stop == b'\r';
            let line = std::mem::take(&mut self.line);
            self.line_ends(&line, &mut event);
            bytes = rest;
        }
        Ok(())
    }

    fn line_ends(&mut self, line: &[u8], event: &mut impl FnMut(Event)) {
        let is_first = !std::mem::replace(&mut self.started, true);
        let line = line.strip_prefix(MARK).filter(|_| is_first).unwrap_or(line);
        if line.is_empty() {
            let done = std::mem::take(&mut self.event);
            self.has_data = false;
            if done != Event::default() {
                event(done);
            }
            return;
        }
        let at = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => self.event.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" => {
                let ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.event.retry = ms.map(|ms| Duration::from_millis(ms).min(RETRY_MAX));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(wire: &[u8], size: usize) -> Vec<Event> {
        let mut reader = Reader::new(1 << 20);
        let mut events = Vec::new();
        for piece in wire.chunks(size) {
            reader.feed(piece, |event| events.push(event)).unwrap();
        }
        events
    }

    const WIRE: &[u8] =
        b"\xef\xbb\xbf: hello\n\nid: 0:7\r\ndata: {\"a\":1}\r\n\r\nretry: 250\rid:8\rdata:\r\rdata: x\ndata:y\nevent: message\n\ndata: cut";

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let whole = read(WIRE, WIRE.len());
        assert_eq!(whole.len(), 3, "{whole:?}");
        assert_eq!(
            (whole[0].id.as_deref(), whole[0].data.as_slice()),
            (Some("0:7"), &b"{\"a\":1}"[..])
        );
        assert_eq!(
            (whole[1].id.as_deref(), whole[1].retry),
            (Some("8"), Some(Duration::from_millis(250)))
        );
        assert_eq!(whole[2].data, b"x\ny");
        for size in 1..WIRE.len() {
            assert_eq!(read(WIRE, size), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused_at_the_bound() {
        let mut reader = Reader::new(64);
        let fed: Result<(), TooLong> = (0..100).try_for_each(|_| reader.feed(b"data: abcdef\n", |_| {}));
        assert_eq!(fed, Err(TooLong { bytes_max: 64 }));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 1_usize..20) {
            let whole = read(&bytes, bytes.len().max(1));
            prop_assert_eq!(read(&bytes, size), whole);
        }
    }
}
