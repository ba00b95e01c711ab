//! A scanner for server-sent events that come in pieces: counts them, and reads the JSON-RPC message in each.
//!
//! Lines end with LF, CRLF or CR, also mixed and also split between pieces. The data of an event may span several lines and may be
//! of any length: it goes straight into a [`JsonScan`] and is never collected.

use super::json::{Found, JsonScan};

/// Longest field name there is; a longer one is none that matters.
const NAME_BYTES_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// In the name of the field, or at the start of the line.
    Name,
    /// In a value; the first byte is still to come, and one space before it says nothing.
    ValueStart(Value),
    Value(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Data,
    Id,
    Ignored,
}

/// Reads a stream, piece by piece.
#[derive(Debug)]
pub(crate) struct SseScan {
    line: Line,
    name: [u8; NAME_BYTES_MAX],
    name_len: usize,
    /// The last line ended with CR, so that an LF now belongs to it.
    after_cr: bool,
    /// Bytes at the very start that may be a byte order mark.
    mark: usize,
    data_lines: u32,
    json: JsonScan,
    events: u32,
    ids_seen: bool,
}

const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Default for SseScan {
    fn default() -> Self {
        Self {
            line: Line::Name,
            name: [0; NAME_BYTES_MAX],
            name_len: 0,
            after_cr: false,
            mark: 0,
            data_lines: 0,
            json: JsonScan::default(),
            events: 0,
            ids_seen: false,
        }
    }
}

impl SseScan {
    /// Takes the next piece; `message` gets what each finished event said, `None` when that was no JSON.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut message: impl FnMut(Option<Found>)) {
        while let Some(&byte) = bytes.first() {
            if self.mark < MARK.len() && byte == MARK[self.mark] {
                self.mark += 1;
                bytes = &bytes[1..];
                continue;
            }
            self.mark = MARK.len();
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.text(text);
            let Some((&stop, rest)) = rest.split_first() else { return };
            self.after_cr = stop == b'\r';
            self.line_ends(&mut message);
            bytes = rest;
        }
    }

    /// Events with data so far.
    pub(crate) fn events(&self) -> u32 {
        self.events
    }

    /// Whether an event had an id, so that a client can resume after it.
    pub(crate) fn ids_seen(&self) -> bool {
        self.ids_seen
    }

    /// Whether the stream stands between two events.
    pub(crate) fn at_boundary(&self) -> bool {
        self.line == Line::Name && self.name_len == 0 && self.data_lines == 0
    }

    fn text(&mut self, mut text: &[u8]) {
        while let Some((&byte, rest)) = text.split_first() {
            match self.line {
                Line::Name if byte == b':' => {
                    self.line = Line::ValueStart(self.value_of_name());
                    text = rest;
                }
                Line::Name => {
                    if let Some(slot) = self.name.get_mut(self.name_len) {
                        *slot = byte;
                    }
                    self.name_len += 1;
                    text = rest;
                }
                Line::ValueStart(value) => {
                    self.begin(value);
                    self.line = Line::Value(value);
                    if byte == b' ' {
                        text = rest;
                    }
                }
                Line::Value(value) => {
                    if value == Value::Data {
                        self.json.feed(text);
                    }
                    return;
                }
            }
        }
    }

    /// A colon at the very start makes a comment; its name is empty and matters to nobody.
    fn value_of_name(&self) -> Value {
        match self.name.get(..self.name_len) {
            Some(b"data") => Value::Data,
            Some(b"id") => Value::Id,
            _ => Value::Ignored,
        }
    }

    fn begin(&mut self, value: Value) {
        match value {
            Value::Data => {
                // Lines of data are joined by a line feed, which to JSON is white space.
                if self.data_lines > 0 {
                    self.json.feed(b"\n");
                }
                self.data_lines = self.data_lines.saturating_add(1);
            }
            Value::Id => self.ids_seen = true,
            Value::Ignored => {}
        }
    }

    fn line_ends(&mut self, message: &mut impl FnMut(Option<Found>)) {
        match self.line {
            Line::Name if self.name_len == 0 => self.event_ends(message),
            // A name without a colon is a field with an empty value.
            Line::Name => self.begin(self.value_of_name()),
            Line::ValueStart(value) => self.begin(value),
            Line::Value(_) => {}
        }
        self.line = Line::Name;
        self.name_len = 0;
    }

    fn event_ends(&mut self, message: &mut impl FnMut(Option<Found>)) {
        let had_data = std::mem::take(&mut self.data_lines) > 0;
        if had_data && !self.json.is_untouched() {
            self.events = self.events.saturating_add(1);
            message(self.json.finish());
        } else {
            // An event without data, such as the one that only brings an id, is none to its reader.
            self.json.reset();
        }
    }
}

#[cfg(test)]
mod tests;
