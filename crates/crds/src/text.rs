//! Texts with a shape: checked when decoded, kept as written.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Longest duration that can be written, in seconds: a hundred years.
const DURATION_SECONDS_MAX: u64 = 100 * 366 * 24 * 3600;

/// A duration such as `24h`, `90m` or `1h30m`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct DurationText(String);

/// The text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 30m, 24h or 1h30m, of at most 100 years")]
pub struct NotADuration;

impl DurationText {
    /// Checks and keeps a text: whole numbers, each with a unit of ms, s, m, h or d.
    pub fn parse(text: &str) -> Result<Self, NotADuration> {
        read_duration(text).map(|_| Self(text.to_owned())).ok_or(NotADuration)
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        // Nothing else than `parse` makes a value, so the text is a duration.
        read_duration(&self.0).unwrap_or_default()
    }
}

fn read_duration(text: &str) -> Option<Duration> {
    let mut total_ms: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let (unit_ms, tail) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
            .into_iter()
            .find_map(|(unit, ms)| tail.strip_prefix(unit).map(|tail| (ms, tail)))?;
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = tail;
    }
    (total_ms <= DURATION_SECONDS_MAX * 1_000).then(|| Duration::from_millis(total_ms))
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DurationText".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]{1,10}(ms|s|m|h|d))+$", "maxLength": 64})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("0s", 0), ("2d", 172_800)] {
            assert_eq!(DurationText::parse(text).unwrap().duration().as_secs(), seconds, "{text}");
        }
        assert_eq!(DurationText::parse("250ms").unwrap().duration().as_millis(), 250);
        for bad in [
            "",
            "h",
            "24",
            "1.5h",
            "-1h",
            "1 h",
            "24H",
            "36601d",
            "99999999999999999999h",
            "ä",
        ] {
            assert_eq!(DurationText::parse(bad), Err(NotADuration), "{bad}");
        }
    }
}
