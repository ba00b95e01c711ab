//! Text from strangers, cut to what an event may hold.

use http::HeaderValue;

/// Stands where the rest was cut off.
const CUT: char = '…';

/// The text, or as much of its beginning as fits, with [`CUT`] at the end.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub(CUT.len_utf8()));
    let mut cut = String::with_capacity(bytes_max);
    cut.push_str(text.get(..end).unwrap_or_default());
    cut.push(CUT);
    cut
}

/// The trimmed value of a header; `None` when blank. Bytes that are no text are replaced.
pub(crate) fn header_text(value: &HeaderValue) -> Option<String> {
    let text = String::from_utf8_lossy(value.as_bytes().trim_ascii());
    (!text.is_empty()).then(|| bounded(&text, domain::event::columns::TEXT_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn text_is_cut_at_a_character_and_marked() {
        assert_eq!(bounded("short", 8), "short");
        assert_eq!(bounded("0123456789", 8), "01234…");
        assert_eq!(bounded("ääääää", 8), "ää…");
        assert!(bounded(&"ä".repeat(3_000), 1_024).len() <= 1_024);
    }
}
