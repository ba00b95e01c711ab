//! People and programs: accounts, teams, logins and keys, and what each may do.
//!
//! Secrets are long and random, shown once and kept as SHA-256; passwords are kept as argon2id. Rights are read from the database on
//! every request, so that a removed member, a demoted administrator or a revoked key stops working at once.

pub(crate) mod accounts;
pub(crate) mod federated;
pub(crate) mod invitations;
pub(crate) mod keys;
pub(crate) mod lockout;
pub(crate) mod logins;
pub(crate) mod password;
pub(crate) mod secret;
pub(crate) mod teams;

use domain::Timestamp;
use serde::{Deserialize, Serialize};

/// Servers of a single-team installation; every account may read it, administrators write it.
pub(crate) const SHARED_NAMESPACE: &str = "mcp-servers";
/// Servers that every account may see.
pub(crate) const ORG_NAMESPACE: &str = "mcp-servers-org";
/// Servers that everybody may see.
pub(crate) const PUBLIC_NAMESPACE: &str = "mcp-servers-public";
/// What namespaces of teams begin with.
pub(crate) const TEAM_NAMESPACE_PREFIX: &str = "mcp-team-";

/// Declares an enum of words that are kept as text.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($text),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// What an account is to the whole platform.
    Role { User = "user", Admin = "admin" }
}

words! {
    /// What an account is to a team.
    TeamRole { Member = "member", Owner = "owner" }
}

words! {
    /// What a key may be used for.
    Right {
        /// Asking.
        Read = "read",
        /// Asking and changing.
        Write = "write",
        /// Asking, and sessions for adapters.
        Adapter = "adapter",
        /// Reading images.
        Pull = "pull",
        /// Writing images.
        Push = "push",
    }
}

/// Somebody who can log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    pub id: String,
    pub email: String,
    pub role: Role,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<Timestamp>,
}

/// People who share a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Team {
    pub id: String,
    pub slug: String,
    pub name: String,
    pub namespace: String,
    pub created_at: Timestamp,
}

/// A team as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Membership {
    pub id: String,
    pub slug: String,
    pub name: String,
    pub namespace: String,
    pub role: TeamRole,
}

/// An account with everything that decides what it may do, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub account: Account,
    pub teams: Vec<Membership>,
    /// The login whose token came with the request; none for keys.
    pub login: Option<String>,
}

impl Principal {
    /// The namespace that is meant when none is named.
    pub(crate) fn namespace(&self) -> &str {
        self.teams.first().map_or(SHARED_NAMESPACE, |team| &team.namespace)
    }

    pub(crate) fn team_of(&self, namespace: &str) -> Option<&Membership> {
        self.teams.iter().find(|team| team.namespace == namespace)
    }
}

/// A new id for anything that is kept.
pub(crate) fn fresh_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
