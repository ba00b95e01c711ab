//! `ClickHouse`'s Native format, as inserts send it: columns as they will lie in memory there, texts with few values as a dictionary
//! made here. The server takes in a block with dictionaries several times faster than rows (`RowBinary`), because it looks each text
//! up once per block and not once per row.
//!
//! A block is the count of columns and of rows, then each column: name, type, data. Numbers are little end first, counts and lengths
//! are varints, an array is all its ends and then all its items. A dictionary column is: version 1, flags, the texts, a number per
//! row.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use twox_hash::XxHash64;

/// A block under construction.
#[derive(Debug)]
pub(super) struct BlockBytes {
    bytes: Vec<u8>,
    columns: u64,
    rows: usize,
}

/// Says that the dictionary comes with the block, and replaces whatever there was.
const OWN_DICTIONARY: u64 = (1 << 9) | (1 << 10);

impl BlockBytes {
    /// A block of so many rows.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(rows * 256),
            columns: 0,
            rows,
        }
    }

    fn head(&mut self, name: &str, kind: &str) -> &mut Vec<u8> {
        self.columns += 1;
        put_text(&mut self.bytes, name.as_bytes());
        put_text(&mut self.bytes, kind.as_bytes());
        &mut self.bytes
    }

    /// Texts with few values. `kind` is the type within `LowCardinality`, `put` writes one text of the dictionary.
    fn dictionary<'a>(&mut self, name: &str, kind: &str, values: impl Iterator<Item = &'a [u8]>, put: fn(&mut Vec<u8>, &[u8])) {
        let (texts, keys) = numbered(values, self.rows);
        let bytes = self.head(name, &format!("LowCardinality({kind})"));
        let width: u64 = match texts.len() {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        put_number(bytes, 1);
        put_number(bytes, OWN_DICTIONARY | width);
        put_number(bytes, texts.len() as u64);
        for text in &texts {
            put(bytes, text);
        }
        put_number(bytes, keys.len() as u64);
        for key in keys {
            let key = key.to_le_bytes();
            bytes.extend_from_slice(&key[..1 << width]);
        }
    }

    /// A `LowCardinality(String)` column.
    pub(super) fn names<'a>(&mut self, name: &str, values: impl Iterator<Item = &'a str>) {
        self.dictionary(name, "String", values.map(str::as_bytes), put_text);
    }

    /// A `LowCardinality(FixedString(8))` column.
    pub(super) fn hashes(&mut self, name: &str, values: impl Iterator<Item = u64>) {
        let hashes: Vec<[u8; 8]> = values.map(u64::to_le_bytes).collect();
        let put = |bytes: &mut Vec<u8>, hash: &[u8]| bytes.extend_from_slice(hash);
        self.dictionary(name, "FixedString(8)", hashes.iter().map(<[u8; 8]>::as_slice), put);
    }

    /// A `String` column.
    pub(super) fn texts<'a>(&mut self, name: &str, values: impl Iterator<Item = &'a str>) {
        let bytes = self.head(name, "String");
        values.for_each(|value| put_text(bytes, value.as_bytes()));
    }

    /// A column of values of one width, each already in the order of bytes that the type has.
    pub(super) fn fixed<const N: usize>(&mut self, name: &str, kind: &str, values: impl Iterator<Item = [u8; N]>) {
        let bytes = self.head(name, kind);
        values.for_each(|value| bytes.extend_from_slice(&value));
    }

    /// A `Nullable` column of numbers.
    pub(super) fn numbers(&mut self, name: &str, kind: &str, values: impl Iterator<Item = Option<[u8; 8]>> + Clone) {
        let bytes = self.head(name, &format!("Nullable({kind})"));
        bytes.extend(values.clone().map(|value| u8::from(value.is_none())));
        values.for_each(|value| bytes.extend_from_slice(&value.unwrap_or_default()));
    }

    /// A `Map(String, String)` column.
    pub(super) fn maps<'a, M>(&mut self, name: &str, values: impl Iterator<Item = M> + Clone)
    where
        M: ExactSizeIterator<Item = (&'a String, &'a String)>,
    {
        let bytes = self.head(name, "Map(String, String)");
        let mut end = 0;
        for map in values.clone() {
            end += map.len() as u64;
            put_number(bytes, end);
        }
        values.clone().flatten().for_each(|(key, _)| put_text(bytes, key.as_bytes()));
        values.flatten().for_each(|(_, value)| put_text(bytes, value.as_bytes()));
    }

    /// The block as sent.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.bytes.len() + 20);
        put_varint(&mut head, self.columns);
        put_varint(&mut head, self.rows as u64);
        head.extend_from_slice(&self.bytes);
        head
    }
}

/// The different values, in order of appearance, and the number of each row's.
fn numbered<'a>(values: impl Iterator<Item = &'a [u8]>, rows: usize) -> (Vec<&'a [u8]>, Vec<u32>) {
    let mut known: HashMap<&[u8], u32, BuildHasherDefault<XxHash64>> = HashMap::default();
    let (mut texts, mut keys) = (Vec::new(), Vec::with_capacity(rows));
    let mut last: Option<(&[u8], u32)> = None;
    for value in values {
        // Neighbours are often equal, and comparing costs less than hashing.
        let key = match last {
            Some((text, key)) if text == value => key,
            _ => *known.entry(value).or_insert_with(|| {
                texts.push(value);
                u32::try_from(texts.len() - 1).unwrap_or(u32::MAX)
            }),
        };
        last = Some((value, key));
        keys.push(key);
    }
    (texts, keys)
}

fn put_number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    put_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

pub(super) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}
