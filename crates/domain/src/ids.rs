//! Names and ids: parsed once, valid ever after.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Identity of an event for counting: the same id counts once, ever.
///
/// Emitters make `UUIDv7`, whose leading bits are the time of its making; any other UUID is accepted and costs more to
/// recognise when it comes again late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// Takes any UUID as it is.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The sixteen bytes, in order of their text.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From sixteen bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The number whose order is the order of ids.
    pub const fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }

    /// When a `UUIDv7` was made, in milliseconds since the epoch; `None` for other versions.
    pub fn made_at_millis(&self) -> Option<u64> {
        (self.0.get_version_num() == 7).then(|| u64::try_from(self.0.as_u128() >> 80).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl FromStr for EventId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Uuid::try_parse(text).map(Self).map_err(|_| NotAnId("a UUID"))
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = Uuid::encode_buffer();
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut buffer))
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = crate::json_text::JsonText::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not an id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct NotAnId(&'static str);

macro_rules! hex_id {
    ($(#[$meta:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From bytes; `None` when all are zero, which W3C trace context calls invalid.
            pub fn from_bytes(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// The bytes, in order of their text.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; $bytes * 2];
                hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
                f.pad(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAnId($what))?;
                Self::from_bytes(bytes).ok_or(NotAnId($what))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::json_text::JsonText::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// W3C trace id: sixteen bytes, thirty-two hex digits on the wire, never all zero.
    TraceId, 16, "32 hex digits, not all zero"
}

hex_id! {
    /// W3C span id: eight bytes, sixteen hex digits on the wire, never all zero.
    SpanId, 8, "16 hex digits, not all zero"
}

macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $what:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and keeps a name.
            pub fn parse(text: &str) -> Result<Self, NotAnId> {
                is_dns_label(text).then(|| Self(text.to_owned())).ok_or(NotAnId($what))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::json_text::JsonText::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

label! {
    /// A tenant's namespace: a DNS label (lower-case letters, digits and inner hyphens, at most 63 bytes).
    Namespace, "a namespace: 1 to 63 lower-case letters, digits and inner hyphens"
}

label! {
    /// The name of an MCP server within its namespace: a DNS label.
    ServerName, "a server name: 1 to 63 lower-case letters, digits and inner hyphens"
}

fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=63).contains(&bytes.len()) && bytes.iter().all(inner) && bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_dns() {
        for good in ["a", "team-010", "0", &"a".repeat(63)] {
            assert!(Namespace::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(Namespace::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zero_trace_ids_are_no_ids() {
        assert!("0".repeat(32).parse::<TraceId>().is_err());
        assert_eq!(
            "0af7651916cd43dd8448eb211c80319c".parse::<TraceId>().unwrap().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert!("b7ad6b7169203331x".parse::<SpanId>().is_err());
    }

    #[test]
    fn version_seven_tells_its_time() {
        let id: EventId = "0190f1e0-0000-7abc-8def-000000000001".parse().unwrap();
        assert_eq!(id.made_at_millis(), Some(0x0190_f1e0_0000));
        let id: EventId = "0190f1e0-0000-4abc-8def-000000000001".parse().unwrap();
        assert_eq!(id.made_at_millis(), None);
    }
}
