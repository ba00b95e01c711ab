//! What is wrong with an object, for programs and for people.

use std::fmt;

/// One word for programs; conditions and Events carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    InvalidSpec,
    MtlsUnavailable,
    RouteTaken,
    RouteRefused,
    PolicyInvalid,
    PolicyTooLarge,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::MtlsUnavailable => "MtlsUnavailable",
            Self::RouteTaken => "RouteTaken",
            Self::RouteRefused => "RouteRefused",
            Self::PolicyInvalid => "PolicyInvalid",
            Self::PolicyTooLarge => "PolicyTooLarge",
        }
    }
}

/// What is wrong, and what to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    pub message: String,
}

impl Fault {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidSpec, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
