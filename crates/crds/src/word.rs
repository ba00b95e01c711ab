//! The closed sets of words that specs use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an enum whose variants are words in YAML, with `as_str`, `ALL` and `Display`.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every word of the set, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in YAML.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// How callers are identified.
    AuthMode {
        /// Not at all.
        None = "none",
        /// By identity headers, or by the session they name.
        Header = "header",
        /// By a bearer token of an issuer.
        Oauth = "oauth",
        /// By a client certificate.
        Mtls = "mtls",
    }
}

words! {
    /// What the policy does with its decisions.
    PolicyMode {
        /// Enforces them.
        AllowList = "allow-list",
        /// Records them and lets every call pass.
        Observe = "observe",
    }
}

words! {
    /// What a rule says.
    PolicyDecision {
        /// Lets the call pass.
        Allow = "allow",
        /// Refuses the call.
        Deny = "deny",
    }
}

words! {
    /// How far a caller is trusted, in ascending order.
    TrustLevel {
        /// Least.
        Low = "low",
        /// Between.
        Medium = "medium",
        /// Most.
        High = "high",
    }
}

words! {
    /// What a tool does to the world.
    ToolSideEffect {
        /// Looks.
        Read = "read",
        /// Changes.
        Write = "write",
        /// Changes what cannot be changed back.
        Destructive = "destructive",
    }
}

words! {
    /// How much harm a call may do; told, not enforced.
    ToolRiskLevel {
        /// Little.
        Low = "low",
        /// Some.
        Medium = "medium",
        /// Much.
        High = "high",
    }
}

words! {
    /// How a new revision replaces the old one.
    RolloutStrategy {
        /// Pod by pod.
        RollingUpdate = "RollingUpdate",
        /// All pods stop before the first new one starts.
        Recreate = "Recreate",
        /// A few pods of another image beside the stable ones.
        Canary = "Canary",
    }
}

words! {
    /// What becomes of a canary.
    CanaryAction {
        /// It keeps running beside the stable pods.
        Hold = "hold",
        /// Its image becomes the stable one, and its pods go.
        Promote = "promote",
        /// Its pods go, and the stable image stays.
        Rollback = "rollback",
    }
}

words! {
    /// What reading resources, getting prompts and the like needs.
    KindRule {
        /// A grant.
        Granted = "granted",
        /// Any identity.
        Identified = "identified",
        /// Nothing suffices.
        Deny = "deny",
    }
}

words! {
    /// Which identities are accepted.
    IdentityAssurance {
        /// Those that headers assert, too.
        Asserted = "asserted",
        /// Those that a token, a certificate or a session proves.
        Verified = "verified",
    }
}

words! {
    /// What lists of tools, prompts and resources show.
    ListFilter {
        /// What the caller may use.
        Filtered = "filtered",
        /// Everything.
        Whole = "whole",
    }
}

words! {
    /// Who shares the count of a rate.
    RateScope {
        /// Each caller has a count.
        Caller = "caller",
        /// All callers of the grant share one.
        Grant = "grant",
    }
}

words! {
    /// A day of the week.
    Weekday {
        /// Monday.
        Mon = "mon",
        /// Tuesday.
        Tue = "tue",
        /// Wednesday.
        Wed = "wed",
        /// Thursday.
        Thu = "thu",
        /// Friday.
        Fri = "fri",
        /// Saturday.
        Sat = "sat",
        /// Sunday.
        Sun = "sun",
    }
}

words! {
    /// What proves that a caller holds the session it names.
    SessionVerification {
        /// The session's token, of which the object holds the hash.
        Token = "token",
        /// Its name alone: for networks where every caller is trusted.
        Name = "name",
    }
}
