//! Values as people read them.

use std::fmt::Write as _;

use domain::Timestamp;

/// Text safe to print: control characters (also those that move the cursor or colour the screen) are shown, not obeyed.
pub(crate) fn safe(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, char| {
        if char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            // Writing to a String cannot fail.
            let _ignored = write!(out, "{}", char.escape_default());
        } else {
            out.push(char);
        }
        out
    })
}

/// Latency with three digits: `850 µs`, `12.3 ms`, `1.20 s`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", micros as f64 / 1e3),
        10_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// Latency, or a dash when there is none.
pub(crate) fn micros_or_dash(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), micros)
}

/// Bytes with a binary unit.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A fraction as a percentage.
pub(crate) fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

/// Time of day with date, in UTC, to the millisecond.
pub(crate) fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(..23).map_or_else(|| text.clone(), |head| head.replace('T', " "))
}

/// The time of this machine, for ages and for how long a login still works.
#[expect(clippy::disallowed_methods, reason = "a command runs once and has no clock to be given")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default().plus(since)
}

/// A length of time as people write it, such as `30s`, `15m`, `1h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let text = crds::text::DurationText::parse(text.trim()).map_err(|error| error.to_string())?;
    Ok(text.duration())
}

/// How long ago a time was.
pub(crate) fn age(time: Timestamp) -> String {
    span(now().since(time).as_secs())
}

/// A length of time in its two largest units.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_cannot_drive_the_terminal() {
        assert_eq!(safe("a\x1b[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\n");
        assert_eq!(safe("日本 refund_invoice"), "日本 refund_invoice");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            (micros(850).as_str(), micros(12_345).as_str(), micros(1_200_000).as_str()),
            ("850 µs", "12.3 ms", "1.20 s")
        );
        assert_eq!((bytes(12).as_str(), bytes(1_536).as_str()), ("12 B", "1.5 KiB"));
        assert_eq!(moment(Timestamp::from_millis(1_500)), "1970-01-01 00:00:01.500");
        assert_eq!(
            (span(59).as_str(), span(7_200).as_str(), span(30 * 86_400).as_str()),
            ("59 s", "2 h", "30 d")
        );
    }
}
