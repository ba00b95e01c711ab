//! Points in time, as nanoseconds since the Unix epoch.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z. Covers the years 1677 to 2262.
///
/// On the wire it is RFC 3339 in UTC, always with nine digits of fraction, so that text order is time order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The text is no RFC 3339 time with an offset, or lies outside the years 1677 to 2262.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 time such as 2026-11-22T15:04:05.123Z")]
pub struct NotATimestamp;

const SECOND_NS: i64 = 1_000_000_000;

impl Timestamp {
    /// The earliest point that can be told.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest point that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From microseconds since the epoch; saturates.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// From milliseconds since the epoch; saturates.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// From seconds since the epoch; saturates.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(SECOND_NS))
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(SECOND_NS)
    }

    /// Later by `by`; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `by`; saturates.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this, zero when that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The start of the bucket of `step` that this point lies in, buckets counted from the epoch.
    /// A zero step gives the point itself.
    #[must_use]
    pub fn floor(self, step: Duration) -> Self {
        match i64::try_from(step.as_nanos()) {
            Ok(step) if step > 0 => Self(self.0.saturating_sub(self.0.rem_euclid(step))),
            _ => self,
        }
    }

    /// Days since the epoch, rounded down: the UTC day this point lies in.
    pub const fn day(self) -> i32 {
        // A day has 8.64e13 ns, so the quotient of an i64 always fits.
        #[expect(clippy::cast_possible_truncation, reason = "at most 106 752 days either way")]
        let day = self.0.div_euclid(86_400 * SECOND_NS) as i32;
        day
    }

    /// Reads RFC 3339 text with an offset; digits past the nanosecond are cut.
    pub fn parse(text: &str) -> Result<Self, NotATimestamp> {
        if let Some(time) = parse_utc(text.as_bytes()) {
            return Ok(time);
        }
        let parsed: jiff::Timestamp = text.parse().map_err(|_| NotATimestamp)?;
        i64::try_from(parsed.as_nanosecond()).map(Self).map_err(|_| NotATimestamp)
    }
}

/// The form that nearly all senders write, `2026-11-22T15:04:05.123456789Z` with any number of digits in the fraction up to nine, in
/// a tenth of the general reader's time. `None` for anything else, which may still be a time.
fn parse_utc(text: &[u8]) -> Option<Timestamp> {
    let (head, fraction) = text.split_first_chunk::<19>()?;
    let number = |from: usize, digits: usize| {
        head[from..from + digits].iter().try_fold(0_i64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let separators = [head[4], head[7], head[10], head[13], head[16]];
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    // Days up to 28 are in every month; the others, leap seconds and far years are the general reader's.
    let plain = separators == *b"--T::"
        && (1970..2200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=28).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !plain {
        return None;
    }
    let nanos = match fraction {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            let read = digits.iter().try_fold(0_i64, |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
            });
            let missing = u32::try_from(9 - digits.len()).ok()?;
            read? * 10_i64.pow(missing)
        }
        _ => return None,
    };
    // The inverse of what `Display` does, after the same author.
    let year_shifted = if month <= 2 { year - 1 } else { year };
    let era = year_shifted.div_euclid(400);
    let year_of_era = year_shifted.rem_euclid(400);
    let month_shifted = (month + 9) % 12;
    let day_of_year = (153 * month_shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(Timestamp(seconds * SECOND_NS + nanos))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The civil date from the day count, after Howard Hinnant's days-to-civil formula: shifting the year to begin in
        // March puts the leap day last, so that months follow from one division. Hand-written because every event is
        // printed several times on its way, and the general formatter costs four times as much.
        let seconds = self.seconds();
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
        let month = if month_shifted < 10 {
            month_shifted + 3
        } else {
            month_shifted - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let fraction = self.0.rem_euclid(SECOND_NS);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        for (at, width, mut value) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, of_day / 3_600),
            (14, 2, of_day / 60 % 60),
            (17, 2, of_day % 60),
            (20, 9, fraction),
        ] {
            for slot in text[at..at + width].iter_mut().rev() {
                *slot = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = crate::json_text::JsonText::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_has_nine_digits_and_reads_back() {
        let text = "2026-11-22T15:04:05.123456789Z";
        assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        assert_eq!(
            Timestamp::parse("2026-11-22T16:04:05+01:00").unwrap().to_string(),
            "2026-11-22T15:04:05.000000000Z"
        );
        assert_eq!(Timestamp::from_nanos(-1).to_string(), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn years_that_do_not_fit_are_refused_instead_of_wrapping() {
        assert_eq!(Timestamp::parse("3000-01-01T00:00:00Z"), Err(NotATimestamp));
        assert_eq!(Timestamp::parse("yesterday"), Err(NotATimestamp));
        assert_eq!(Timestamp::parse("2026-11-22T15:04:05"), Err(NotATimestamp));
    }

    proptest! {
        #[test]
        fn printing_agrees_with_the_library_and_reads_back(nanos in any::<i64>()) {
            let time = Timestamp::from_nanos(nanos);
            let library = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            prop_assert_eq!(time.to_string(), format!("{library:.9}"));
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn the_quick_reader_agrees_with_the_library(seconds in 0_i64..7_258_118_400, nanos in 0_i64..SECOND_NS, digits in 0_usize..10) {
            let text = Timestamp::from_seconds(seconds).plus(Duration::from_nanos(nanos.unsigned_abs())).to_string();
            let cut = if digits == 0 { 19 } else { 20 + digits };
            let text = format!("{}Z", text.get(..cut).unwrap());
            let library: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(i128::from(Timestamp::parse(&text).unwrap().nanos()), library.as_nanosecond());
        }

        #[test]
        fn floor_is_the_latest_multiple_not_after(nanos in -1_i64 << 60..1_i64 << 60, step in 1_u64..1 << 50) {
            let (time, floor) = (Timestamp::from_nanos(nanos), Timestamp::from_nanos(nanos).floor(Duration::from_nanos(step)));
            prop_assert!(floor <= time && time.nanos() - floor.nanos() < i64::try_from(step).unwrap());
            prop_assert_eq!(floor.nanos().rem_euclid(i64::try_from(step).unwrap()), 0);
        }
    }
}
