//! Reads events in the form that nearly all senders write, several times quicker than the general reader.
//!
//! It knows texts without escapes, whole numbers, `null` and the keys of an event, in any order and with any white space. At
//! anything else, right or wrong, it gives up, and [`Draft`]'s general reader judges from the beginning. So there is one judge
//! of what is wrong and how that is said; what is read here must only equal what that one reads, which a property test checks.

#![expect(
    clippy::option_option,
    reason = "the outer one says whether the general reader is to look, the inner one whether there is a value"
)]

use std::str::FromStr;

use super::WIRE_VERSION;
use super::columns::{COLUMNS, Column, Kind, NAMES, Payload, Value};
use super::draft::Draft;
use crate::Timestamp;

/// Stands for the key `attributes` among the numbers of columns.
const ATTRIBUTES: usize = 63;
const _: () = assert!(NAMES.len() <= ATTRIBUTES, "each column has a bit of its own in a word");

/// Reads a whole event; `None` when the general reader is to look at it.
pub(super) fn read(json: &[u8]) -> Option<Draft> {
    let mut scanner = Scanner {
        text: std::str::from_utf8(json).ok()?,
        at: 0,
    };
    let draft = scanner.draft()?;
    scanner.skip_space();
    (scanner.at == json.len()).then_some(draft)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn draft(&mut self) -> Option<Draft> {
        let mut draft = Draft::default();
        let mut seen = Seen::default();
        self.object(|scanner, key| {
            match key {
                "v" => {
                    seen.add(0)?;
                    if scanner.optional(Self::whole)? > Some(WIRE_VERSION) {
                        return None;
                    }
                }
                "id" => draft.id = seen.add(1).and_then(|()| scanner.parsed())?,
                "timestamp" => {
                    seen.add(2)?;
                    draft.timestamp = scanner.filled()?.map(Timestamp::parse).transpose().ok()?;
                }
                "source" => draft.source = seen.add(3).and_then(|()| scanner.owned())?,
                "event_type" => draft.event_type = seen.add(4).and_then(|()| scanner.owned())?,
                "trace_id" => draft.trace_id = seen.add(5).and_then(|()| scanner.parsed())?,
                "span_id" => draft.span_id = seen.add(6).and_then(|()| scanner.parsed())?,
                "parent_span_id" => draft.parent_span_id = seen.add(7).and_then(|()| scanner.parsed())?,
                "producer" => draft.producer = seen.add(8).and_then(|()| scanner.owned())?,
                "producer_seq" => draft.producer_seq = seen.add(9).and_then(|()| scanner.optional(Self::whole))?,
                "payload" => draft.payload = Some(seen.add(10).and_then(|()| scanner.payload())?),
                "received_at" | "received_by" => drop(scanner.optional(Self::string)?),
                _ => return None,
            }
            Some(())
        })?;
        Some(draft)
    }

    fn payload(&mut self) -> Option<Box<Payload>> {
        let mut payload = Box::<Payload>::default();
        let mut seen = Seen::default();
        self.object(|scanner, key| {
            let Some(number) = column_number(key) else {
                seen.add((key == "attributes").then_some(ATTRIBUTES)?)?;
                return scanner.attributes(&mut payload);
            };
            seen.add(number)?;
            let column = &COLUMNS[number];
            match scanner.column(column)? {
                Value::Absent => Some(()),
                value => (column.write)(&mut payload, value).then_some(()),
            }
        })?;
        Some(payload)
    }

    /// The value of a column; an empty text counts as absent.
    fn column(&mut self, column: &Column) -> Option<Value<'a>> {
        Some(match column.kind {
            Kind::Name | Kind::Text => self.filled()?.map_or(Value::Absent, Value::Text),
            Kind::Count => self.optional(Self::whole)?.map_or(Value::Absent, Value::Count),
            Kind::Code => self.optional(Self::signed)?.map_or(Value::Absent, Value::Code),
        })
    }

    fn attributes(&mut self, payload: &mut Payload) -> Option<()> {
        self.object(|scanner, name| {
            let value = scanner.string()?.to_owned();
            payload.attributes.insert(name.to_owned(), value);
            Some(())
        })
    }

    /// An object, each of whose values `member` reads.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.expect(b':')?;
            self.skip_space();
            member(self, key)?;
            self.skip_space();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn owned(&mut self) -> Option<Option<String>> {
        Some(self.optional(Self::string)?.map(str::to_owned))
    }

    /// A text that is not empty, or nothing.
    fn filled(&mut self) -> Option<Option<&'a str>> {
        Some(self.optional(Self::string)?.filter(|text| !text.is_empty()))
    }

    fn parsed<T: FromStr>(&mut self) -> Option<Option<T>> {
        self.filled()?.map(str::parse).transpose().ok()
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        const NULL: &str = "null";
        if self.peek() == Some(b'n') {
            let is_null = self.rest().starts_with(NULL);
            self.at += NULL.len();
            return is_null.then_some(None);
        }
        read(self).map(Some)
    }

    /// A text without escapes.
    fn string(&mut self) -> Option<&'a str> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let start = self.at + 1;
        let end = start + plain_length(self.text.as_bytes().get(start..)?)?;
        self.at = end + 1;
        (self.text.as_bytes().get(end) == Some(&b'"')).then_some(())?;
        self.text.get(start..end)
    }

    /// A whole number of few enough digits that it cannot exceed its type, and no more than that.
    fn whole(&mut self) -> Option<u64> {
        let bytes = self.text.as_bytes().get(self.at..)?;
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ends_there = !matches!(bytes.get(digits), Some(b'.' | b'e' | b'E'));
        let canonical = digits == 1 || (bytes.first() != Some(&b'0') && (2..=18).contains(&digits));
        if !ends_there || !canonical {
            return None;
        }
        self.at += digits;
        Some(
            bytes[..digits]
                .iter()
                .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
        )
    }

    fn signed(&mut self) -> Option<i64> {
        if self.peek() != Some(b'-') {
            return self.whole()?.try_into().ok();
        }
        self.at += 1;
        // "-0" is a fraction to the general reader.
        self.whole()
            .filter(|number| *number > 0)?
            .try_into()
            .ok()
            .map(i64::wrapping_neg)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.peek() == Some(byte)).then_some(())?;
        self.at += 1;
        Some(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}

/// Which keys an object had already; the general reader tells of repeats.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    fn add(&mut self, number: usize) -> Option<()> {
        let bit = 1 << number;
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new.then_some(())
    }
}

/// Bytes before the first quote, backslash or control character, looked for eight at a time.
fn plain_length(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte that is zero after the exclusive or, or below 0x20. A borrow can only spoil bytes above one
        // that was found, and the lowest counts.
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGHS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?.iter();
    rest.enumerate()
        .find(|(_, byte)| matches!(byte, b'"' | b'\\' | 0..0x20))
        .map(|(more, _)| at + more)
}

/// Numbers of columns, each at the first free slot from where its name points to.
static SLOTS: [u8; 256] = slots();
const FREE: u8 = u8::MAX;

const fn slots() -> [u8; 256] {
    let mut slots = [FREE; 256];
    let mut number = 0;
    while number < NAMES.len() {
        let mut slot = slot_of(NAMES[number].as_bytes());
        while slots[slot] != FREE {
            slot = (slot + 1) % 256;
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked to be below 64")]
        let small = number as u8;
        slots[slot] = small;
        number += 1;
    }
    slots
}

/// Four things that tell names apart; the factors are odd and otherwise arbitrary.
const fn slot_of(name: &[u8]) -> usize {
    match name {
        [] => 0,
        [first, ..] => {
            let middle = name[name.len() / 2] as usize;
            let last = name[name.len() - 1] as usize;
            (name.len() * 37 + *first as usize * 7 + middle * 59 + last * 3) % 256
        }
    }
}

fn column_number(name: &str) -> Option<usize> {
    let mut slot = slot_of(name.as_bytes());
    loop {
        let number = usize::from(SLOTS[slot]);
        match NAMES.get(number) {
            Some(found) if *found == name => return Some(number),
            Some(_) => slot = (slot + 1) % 256,
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V1: &str = include_str!("../../fixtures/event-v1.json");

    fn plain() -> String {
        // The fixture has a request id with escapes, which is not plain.
        V1.replace(r#""\"a-1\"""#, r#""7""#)
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for (number, name) in NAMES.iter().enumerate() {
            assert_eq!(column_number(name), Some(number), "{name}");
        }
        assert_eq!(column_number(""), None);
        assert_eq!(column_number("attributes"), None);
    }

    #[test]
    fn a_full_event_is_read_here_and_as_the_general_reader_does() {
        let text = plain();
        assert_eq!(read(text.as_bytes()), Some(serde_json::from_str(&text).unwrap()));
        let spaced: serde_json::Value = serde_json::from_str(&text).unwrap();
        let spaced = serde_json::to_string_pretty(&spaced).unwrap();
        assert_eq!(read(spaced.as_bytes()), Some(serde_json::from_str(&spaced).unwrap()));
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_general_reader() {
        for text in [
            r#"{"source":"a\n"}"#,
            r#"{"producer_seq":1.0}"#,
            r#"{"producer_seq":01}"#,
            r#"{"producer_seq":18446744073709551615}"#,
            r#"{"payload":{"rpc_code":-0}}"#,
            r#"{"payload":{"latency_ms":1}}"#,
            r#"{"payload":{"status":70000}}"#,
            r#"{"payload":{"outcome":"perhaps"}}"#,
            r#"{"payload":{"server":"a","server":"b"}}"#,
            r#"{"source":"a","source":"b"}"#,
            r#"{"source":"a",}"#,
            r#"{"source":"a"} x"#,
            r#"{"v":2}"#,
            r#"{"pod":"a"}"#,
            "{\"source\":\"a\tb\"}",
            "[]",
            "{",
            "",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(b"{}"), Some(Draft::default()));
    }

    /// The fixture with pieces cut out, doubled or swapped: mostly JSON, sometimes hardly.
    fn mangled() -> impl Strategy<Value = String> {
        let edits = prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6, "[\"\\\\{}:,0-9a-zé -]{0,3}"), 0..4);
        edits.prop_map(|edits| {
            let mut text: Vec<char> = plain().chars().collect();
            for (place, cut, put) in edits {
                let at = place.index(text.len());
                let end = (at + cut).min(text.len());
                text.splice(at..end, put.chars());
            }
            text.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn nothing_is_read_otherwise_than_the_general_reader_does(text in mangled()) {
            if let Some(draft) = read(text.as_bytes()) {
                prop_assert_eq!(Some(draft), serde_json::from_str(&text).ok());
            }
        }

        #[test]
        fn plain_lengths_are_those_of_a_plain_search(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(plain_length(&bytes), expected);
        }
    }
}
