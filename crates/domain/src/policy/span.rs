//! Lengths of time and hours of the week, as documents write them.

use std::time::Duration;

use super::document::Window;
use crate::Timestamp;

const DAY_SECONDS: i64 = 86_400;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// 1970-01-01 was a Thursday, the fourth day of a week that begins on Monday.
const WEEKDAY_OF_EPOCH: i64 = 3;
/// Clocks on earth differ from UTC by at most 14 hours.
const OFFSET_SECONDS_MAX: i64 = 14 * 3_600;

/// Reads a length of time such as `90s`, `1h30m` or `24h`: numbers with `ms`, `s`, `m`, `h` or `d`. Zero is no length.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    (millis > 0).then(|| Duration::from_millis(millis))
}

/// When a grant is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Validity {
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    hours: Vec<Hours>,
}

impl Validity {
    /// Reads the bounds and windows of a grant; the error says what is wrong.
    pub(crate) fn parse(from: &str, until: &str, windows: &[Window]) -> Result<Self, String> {
        Ok(Self {
            from: moment("valid_from", from)?,
            until: moment("valid_until", until)?,
            hours: windows.iter().map(Hours::parse).collect::<Result<_, _>>()?,
        })
    }

    /// In force at no time.
    pub(crate) const fn never() -> Self {
        Self {
            from: Some(Timestamp::MAX),
            until: Some(Timestamp::MIN),
            hours: Vec::new(),
        }
    }

    /// Whether it is in force whenever asked.
    pub(crate) const fn is_always(&self) -> bool {
        self.from.is_none() && self.until.is_none() && self.hours.is_empty()
    }

    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now)
            && self.until.is_none_or(|until| now < until)
            && (self.hours.is_empty() || self.hours.iter().any(|hours| hours.hold(now)))
    }
}

fn moment(field: &str, text: &str) -> Result<Option<Timestamp>, String> {
    match text.trim() {
        "" => Ok(None),
        text => Timestamp::parse(text)
            .map(Some)
            .map_err(|expected| format!("{field}: {expected}, got {text:?}")),
    }
}

/// A [`Window`], ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hours {
    /// Bit 0 is Monday.
    days: u8,
    from_seconds: i64,
    /// Not after `from_seconds` when it closes on the next day.
    to_seconds: i64,
    offset_seconds: i64,
}

impl Hours {
    fn parse(window: &Window) -> Result<Self, String> {
        let mut days = if window.days.is_empty() { 0x7f } else { 0 };
        for day in &window.days {
            let known = DAYS.iter().position(|name| day.trim().eq_ignore_ascii_case(name));
            let at = known.ok_or_else(|| format!("windows.days: expected one of {}, got {day:?}", DAYS.join(", ")))?;
            days |= 1 << at;
        }
        let clock = |field: &str, text: &str, absent: i64| match text.trim() {
            "" => Ok(absent),
            text => clock(text, DAY_SECONDS).ok_or_else(|| format!("windows.{field}: expected HH:MM, got {text:?}")),
        };
        Ok(Self {
            days,
            from_seconds: clock("from", &window.from, 0)?,
            to_seconds: clock("to", &window.to, DAY_SECONDS)?,
            offset_seconds: offset(&window.utc_offset)?,
        })
    }

    fn hold(&self, now: Timestamp) -> bool {
        let local = now.seconds() + self.offset_seconds;
        let (day, second) = (local.div_euclid(DAY_SECONDS), local.rem_euclid(DAY_SECONDS));
        let opens_on = |day: i64| self.days >> (day + WEEKDAY_OF_EPOCH).rem_euclid(7) & 1 == 1;
        if self.from_seconds < self.to_seconds {
            return opens_on(day) && (self.from_seconds..self.to_seconds).contains(&second);
        }
        (opens_on(day) && second >= self.from_seconds) || (opens_on(day - 1) && second < self.to_seconds)
    }
}

fn offset(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let wrong = || format!("windows.utc_offset: expected an offset such as +01:00, got {text:?}");
    if text.is_empty() || text == "Z" {
        return Ok(0);
    }
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    clock(rest, OFFSET_SECONDS_MAX)
        .map(|seconds| sign * seconds)
        .ok_or_else(wrong)
}

/// Seconds of `HH:MM`, at most `max`.
fn clock(text: &str, max: i64) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two =
        |part: &str| (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<i64>().ok())?;
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let seconds = hours * 3_600 + minutes * 60;
    (minutes < 60 && seconds <= max).then_some(seconds)
}
