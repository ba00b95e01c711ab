//! A scanner for one JSON-RPC message that comes in pieces.
//!
//! It keeps a few words of state and one small buffer, whatever the length of the message. It looks at the keys of the message itself and
//! of its `result`, `error` and nothing deeper. When a key comes twice, the last one counts, as in the parsers of clients. It is
//! as strict as needed to tell JSON from something else: brackets, separators and literals are checked, the grammar of numbers
//! is not.

/// Longest key or value that is kept: an id may be this long, every other word of interest is shorter.
const KEPT_BYTES_MAX: usize = 1_024;

/// Deepest nesting that is followed, the same bound that `serde_json` has.
const DEPTH_MAX: u32 = 127;

/// What a message said, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The id as JSON text; absent also when it is longer than [`KEPT_BYTES_MAX`].
    pub(crate) id: Option<Vec<u8>>,
    pub(crate) method: Option<String>,
    pub(crate) has_result: bool,
    pub(crate) has_error: bool,
    /// `result.isError` is true.
    pub(crate) is_error: bool,
    /// `result.resultType`.
    pub(crate) result_type: Option<String>,
    /// `result.protocolVersion`, which only the answer to `initialize` has.
    pub(crate) protocol_version: Option<String>,
    /// `error.code`.
    pub(crate) code: Option<i64>,
}

impl Found {
    /// Whether it answers a request, rather than asking or telling something.
    pub(crate) fn is_answer(&self) -> bool {
        self.method.is_none() && (self.has_result || self.has_error)
    }
}

/// Whether two ids in JSON text mean the same.
pub(crate) fn same_id(left: &[u8], right: &[u8]) -> bool {
    if left == right {
        return true;
    }
    let parse = |text| serde_json::from_slice::<serde_json::Value>(text).ok();
    match (parse(left), parse(right)) {
        (Some(serde_json::Value::Number(left)), Some(serde_json::Value::Number(right))) => left.as_f64() == right.as_f64(),
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// A value or `]` must come.
    FirstItem,
    /// A key or `}` must come.
    FirstKey,
    /// A key must come.
    Key,
    /// `:` must come.
    Colon,
    /// `,` or a closing bracket must come.
    AfterValue,
    /// Within a string; the next byte is taken as it is when `escaped`.
    String { key: bool, escaped: bool },
    /// Within a number or a literal.
    Word,
    /// The value is complete; only white space may come.
    Done,
    /// Not JSON.
    Invalid,
}

/// Which value is being read, when it is one that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Other,
    Id,
    Method,
    Result,
    Error,
    IsError,
    ResultType,
    ProtocolVersion,
    Code,
}

/// Reads one message, piece by piece.
#[derive(Debug)]
pub(crate) struct JsonScan {
    state: State,
    depth: u32,
    /// One bit per open bracket: set for objects.
    objects: u128,
    /// Depth at which messages lie: 0, or 1 within a batch.
    base: u32,
    /// Which object we are in directly below the message.
    section: Field,
    /// What the value being read is.
    field: Field,
    /// Key or value being read, when it may matter.
    kept: Vec<u8>,
    keeping: bool,
    overlong: bool,
    found: Found,
}

impl Default for JsonScan {
    fn default() -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: 0,
            base: 0,
            section: Field::Other,
            field: Field::Other,
            kept: Vec::new(),
            keeping: false,
            overlong: false,
            found: Found::default(),
        }
    }
}

impl JsonScan {
    /// Takes the next piece.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Invalid => return,
                State::String { key, escaped: false } => {
                    // Most bytes of large answers are within strings, so these are skipped at the speed of memory.
                    let end = memchr::memchr2(b'"', b'\\', bytes);
                    let (text, after) = bytes.split_at(end.unwrap_or(bytes.len()));
                    self.keep(text);
                    let Some((&stop, after)) = after.split_first() else { return };
                    bytes = after;
                    if stop == b'\\' {
                        self.keep(b"\\");
                        self.state = State::String { key, escaped: true };
                    } else {
                        self.string_ends(key);
                    }
                }
                State::String { key, escaped: true } => {
                    self.keep(&[byte]);
                    self.state = State::String { key, escaped: false };
                    bytes = rest;
                }
                State::Word => {
                    if is_word(byte) {
                        self.keep(&[byte]);
                        bytes = rest;
                    } else {
                        // The byte after a word belongs to what follows.
                        self.word_ends();
                    }
                }
                _ => {
                    self.structure(byte);
                    bytes = rest;
                }
            }
        }
    }

    /// What was found; `None` when the pieces together are no JSON value.
    pub(crate) fn finish(&mut self) -> Option<Found> {
        if self.state == State::Word {
            self.word_ends();
        }
        let found = (self.state == State::Done).then(|| std::mem::take(&mut self.found));
        self.reset();
        found
    }

    /// Whether nothing but white space has come.
    pub(crate) fn is_untouched(&self) -> bool {
        self.state == State::Value && self.depth == 0
    }

    /// Starts over, keeping the buffer.
    pub(crate) fn reset(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Self { kept, ..Self::default() };
    }

    fn structure(&mut self, byte: u8) {
        match (self.state, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (State::Value | State::FirstItem, b'{') => self.open(true),
            (State::Value | State::FirstItem, b'[') => self.open(false),
            (State::Value | State::FirstItem, b'"') => self.string_starts(false),
            (State::Value | State::FirstItem, _) if is_word(byte) => {
                self.begin_keeping(self.field != Field::Other);
                // Literals are checked, so their text is needed even where the value does not matter.
                self.keeping |= !matches!(byte, b'-' | b'0'..=b'9');
                self.keep(&[byte]);
                self.state = State::Word;
            }
            (State::FirstKey | State::Key, b'"') => self.string_starts(true),
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') => {
                self.state = if self.in_object() { State::Key } else { State::Value };
                self.field = Field::Other;
            }
            (State::FirstItem, b']') | (State::FirstKey, b'}') | (State::AfterValue, b'}' | b']') => self.close(byte),
            _ => self.state = State::Invalid,
        }
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & (1 << (self.depth - 1)) != 0
    }

    fn open(&mut self, object: bool) {
        if self.depth >= DEPTH_MAX {
            self.state = State::Invalid;
            return;
        }
        if self.depth == 0 && !object {
            self.base = 1;
        }
        self.found_value();
        if self.depth == self.base + 1 {
            self.section = if object { self.field } else { Field::Other };
        }
        let bit = 1 << self.depth;
        self.objects = if object { self.objects | bit } else { self.objects & !bit };
        self.depth += 1;
        self.field = Field::Other;
        self.state = if object { State::FirstKey } else { State::FirstItem };
    }

    fn close(&mut self, byte: u8) {
        if self.in_object() != (byte == b'}') {
            self.state = State::Invalid;
            return;
        }
        self.depth -= 1;
        if self.depth <= self.base + 1 {
            self.section = Field::Other;
        }
        self.value_ends();
    }

    fn value_ends(&mut self) {
        self.field = Field::Other;
        self.state = if self.depth == 0 { State::Done } else { State::AfterValue };
    }

    fn string_starts(&mut self, key: bool) {
        let matters = if key { self.key_matters() } else { self.field != Field::Other };
        self.begin_keeping(matters);
        self.state = State::String { key, escaped: false };
    }

    /// Keys matter in the message itself and in its result or error.
    fn key_matters(&self) -> bool {
        self.depth == self.base + 1 || (self.depth == self.base + 2 && self.section != Field::Other)
    }

    fn string_ends(&mut self, key: bool) {
        if key {
            self.field = if self.keeping && !self.overlong {
                self.field_of_key()
            } else {
                Field::Other
            };
            self.state = State::Colon;
            return;
        }
        if self.field != Field::Other {
            self.found_text();
        }
        self.value_ends();
    }

    fn field_of_key(&mut self) -> Field {
        let unescaped = self.unescaped();
        let key = unescaped.as_deref().map_or(self.kept.as_slice(), str::as_bytes);
        match (self.section, key) {
            (_, b"id") if self.depth == self.base + 1 => Field::Id,
            (_, b"method") if self.depth == self.base + 1 => Field::Method,
            (_, b"result") if self.depth == self.base + 1 => Field::Result,
            (_, b"error") if self.depth == self.base + 1 => Field::Error,
            (Field::Result, b"isError") => Field::IsError,
            (Field::Result, b"resultType") => Field::ResultType,
            (Field::Result, b"protocolVersion") => Field::ProtocolVersion,
            (Field::Error, b"code") => Field::Code,
            _ => Field::Other,
        }
    }

    /// The kept text without its escapes, when it has any.
    fn unescaped(&self) -> Option<String> {
        memchr::memchr(b'\\', &self.kept)?;
        let mut quoted = Vec::with_capacity(self.kept.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(&self.kept);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok()
    }

    fn found_text(&mut self) {
        self.found_value();
        if self.overlong {
            return;
        }
        if self.field == Field::Id {
            let mut id = Vec::with_capacity(self.kept.len() + 2);
            id.push(b'"');
            id.extend_from_slice(&self.kept);
            id.push(b'"');
            self.found.id = Some(id);
            return;
        }
        let text = || self.unescaped().or_else(|| String::from_utf8(self.kept.clone()).ok());
        match self.field {
            Field::Method => self.found.method = text(),
            Field::ResultType => self.found.result_type = text(),
            Field::ProtocolVersion => self.found.protocol_version = text(),
            _ => {}
        }
    }

    fn word_ends(&mut self) {
        let literal = self.kept.first().is_some_and(u8::is_ascii_alphabetic);
        if literal && !matches!(self.kept.as_slice(), b"true" | b"false" | b"null") {
            self.state = State::Invalid;
            return;
        }
        self.found_value();
        if !self.overlong {
            match self.field {
                Field::Id => self.found.id = Some(self.kept.clone()),
                Field::IsError => self.found.is_error = self.kept == b"true",
                Field::Code => self.found.code = code(&self.kept),
                // `null` says that there is none, as older servers write it next to the other one.
                Field::Error if self.kept == b"null" => self.found.has_error = false,
                _ => {}
            }
        }
        self.value_ends();
    }

    /// A value of the current field begins or has ended: whatever an earlier one of the same name said is void.
    fn found_value(&mut self) {
        match self.field {
            Field::Id => self.found.id = None,
            Field::Method => self.found.method = None,
            Field::Result => {
                self.found.has_result = true;
                self.found.is_error = false;
                self.found.result_type = None;
                self.found.protocol_version = None;
            }
            Field::Error => {
                self.found.has_error = true;
                self.found.code = None;
            }
            Field::IsError => self.found.is_error = false,
            Field::ResultType => self.found.result_type = None,
            Field::ProtocolVersion => self.found.protocol_version = None,
            Field::Code => self.found.code = None,
            Field::Other => {}
        }
    }

    fn begin_keeping(&mut self, matters: bool) {
        self.kept.clear();
        self.keeping = matters;
        self.overlong = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !self.keeping || self.overlong {
            return;
        }
        if self.kept.len() + bytes.len() > KEPT_BYTES_MAX {
            self.overlong = true;
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// Bytes of numbers and literals.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// A whole number, however it is written.
fn code(text: &[u8]) -> Option<i64> {
    let number: serde_json::Number = serde_json::from_slice(text).ok()?;
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        // Codes are small; a larger float would not be exact anyway.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
        let whole = (float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0).then_some(float as i64);
        whole
    })
}

#[cfg(test)]
mod tests;
