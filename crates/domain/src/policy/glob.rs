//! Globs over names of prompts and URIs of resources: `*` is any text without `/`, `**` any text, `?` one character but `/`.
//!
//! A URI has many spellings, and the server may read `%2e%2e/` as `../` where we see a name. So a URI is judged in two spellings:
//! as it came, and plain (scheme in lower case, percent escapes undone, dot segments resolved, backslashes turned). A rule that
//! allows must match both; a rule that denies matches when either does.

use std::borrow::Cow;

/// A pattern with its plain spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    as_given: Box<[Piece]>,
    /// `None` when it is the same.
    plain: Option<Box<[Piece]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    One,
    /// Any text without `/`.
    Some,
    Any,
}

/// A name to be matched, in both spellings.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    as_given: &'a str,
    plain: Cow<'a, str>,
}

impl<'a> Subject<'a> {
    /// A name, which has one spelling.
    pub(crate) const fn name(name: &'a str) -> Self {
        Self {
            as_given: name,
            plain: Cow::Borrowed(name),
        }
    }

    /// A URI, which has many.
    pub(crate) fn uri(uri: &'a str) -> Self {
        Self {
            as_given: uri,
            plain: plain(uri),
        }
    }
}

impl Glob {
    /// Over names, which have one spelling. Any text is a pattern.
    pub(crate) fn over_names(pattern: &str) -> Self {
        Self {
            as_given: pieces(pattern),
            plain: None,
        }
    }

    /// Over URIs. Any text is a pattern.
    pub(crate) fn over_uris(pattern: &str) -> Self {
        let plain = plain(pattern);
        Self {
            as_given: pieces(pattern),
            plain: (plain != pattern).then(|| pieces(&plain)),
        }
    }

    /// Whether every spelling matches: what a rule needs to allow.
    pub(crate) fn surely_matches(&self, subject: &Subject<'_>) -> bool {
        matches(&self.as_given, subject.as_given) && self.plainly_matches(subject)
    }

    /// Whether some spelling matches: enough for a rule to deny.
    pub(crate) fn maybe_matches(&self, subject: &Subject<'_>) -> bool {
        matches(&self.as_given, subject.as_given) || self.plainly_matches(subject)
    }

    fn plainly_matches(&self, subject: &Subject<'_>) -> bool {
        matches(self.plain.as_deref().unwrap_or(&self.as_given), &subject.plain)
    }
}

fn pieces(pattern: &str) -> Box<[Piece]> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        let piece = match letter {
            '*' if letters.next_if_eq(&'*').is_some() => Piece::Any,
            '*' => Piece::Some,
            '?' => Piece::One,
            _ => {
                text.push(letter);
                continue;
            }
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text).into()));
        }
        // Neighbouring stars are one: without this a pattern of many stars would make matching slow.
        match (pieces.last(), &piece) {
            (Some(Piece::Any), Piece::Any | Piece::Some) | (Some(Piece::Some), Piece::Some) => {}
            (Some(Piece::Some), Piece::Any) => {
                pieces.pop();
                pieces.push(Piece::Any);
            }
            _ => pieces.push(piece),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    pieces.into()
}

/// Where to go on when a star takes more: the piece after the star, and the text that the star has not yet taken.
type Return<'t> = (usize, &'t str);

/// Two places to return to are enough: giving an earlier star more text can never help when a later one of its kind could not.
/// So the work is bounded by the product of the two lengths.
fn matches<'t>(pattern: &[Piece], text: &'t str) -> bool {
    let (mut some, mut any): (Option<Return<'t>>, Option<Return<'t>>) = (None, None);
    let (mut at, mut rest) = (0, text);
    loop {
        let step = match pattern.get(at) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Piece::Any) => {
                (any, some) = (Some((at + 1, rest)), None);
                Some(rest)
            }
            Some(Piece::Some) => {
                some = Some((at + 1, rest));
                Some(rest)
            }
            Some(Piece::One) => next(rest, |letter| letter != '/'),
            Some(Piece::Text(text)) => rest.strip_prefix(&**text),
        };
        if let Some(after) = step {
            (at, rest) = (at + 1, after);
            continue;
        }
        let longer = |place: Option<Return<'t>>, wanted: fn(char) -> bool| {
            place.and_then(|(piece, taken)| next(taken, wanted).map(|after| (piece, after)))
        };
        if let Some(place) = longer(some, |letter| letter != '/') {
            some = Some(place);
            (at, rest) = place;
        } else if some.is_some_and(|(_, taken)| taken.is_empty()) {
            // It took all there is in vain, and would again from any later start.
            return false;
        } else if let Some(place) = longer(any, |_| true) {
            (any, some) = (Some(place), None);
            (at, rest) = place;
        } else {
            return false;
        }
    }
}

/// The text without its first letter, if that is as wanted.
fn next(text: &str, wanted: impl Fn(char) -> bool) -> Option<&str> {
    let mut letters = text.chars();
    letters.next().filter(|letter| wanted(*letter)).map(|_| letters.as_str())
}

/// Rounds of undoing percent escapes: a server that decodes more often than this is beyond help.
const ROUNDS_MAX: usize = 4;

/// The plain spelling of a URI.
fn plain(uri: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| !matches!(byte, b'%' | b'\\') && !byte.is_ascii_uppercase();
    let scheme = uri.find(':').unwrap_or(0);
    if uri.bytes().take(scheme).all(is_plain) && !uri.contains(['%', '\\']) && !has_dot_segment(uri) {
        return Cow::Borrowed(uri);
    }
    let mut text = uri.to_owned();
    for _ in 0..ROUNDS_MAX {
        let decoded = decode(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let text = text.replace('\\', "/");
    let (scheme, rest) = text
        .split_once("://")
        .map_or(("", text.as_str()), |(scheme, rest)| (scheme, rest));
    let mut segments: Vec<&str> = Vec::new();
    for segment in rest.split('/') {
        match segment {
            "." => {}
            // The first segment is the authority, or the empty text before the first slash.
            ".." => segments.truncate(segments.len().saturating_sub(1).max(1)),
            _ => segments.push(segment),
        }
    }
    let rest = segments.join("/");
    if scheme.is_empty() {
        Cow::Owned(rest)
    } else {
        Cow::Owned(format!("{}://{rest}", scheme.to_ascii_lowercase()))
    }
}

fn has_dot_segment(uri: &str) -> bool {
    uri.contains("/.") && uri.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let mut escaped = [0];
        let pair = bytes.get(at + 1..at + 3);
        if byte == b'%' && pair.is_some_and(|pair| hex::decode_to_slice(pair, &mut escaped).is_ok()) {
            decoded.push(escaped[0]);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests;
