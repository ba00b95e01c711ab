//! The closed sets of words a policy document is written in.

use crate::text_enum::text_enum;

text_enum! {
    /// How far somebody is trusted. The order is the order of trust.
    Trust {
        /// Not at all: only as the trust of a grant that names none we know.
        None = "none",
        /// Enough for harmless calls.
        Low = "low",
        /// More than that.
        Medium = "medium",
        /// For everything.
        High = "high",
    }
}

text_enum! {
    /// What a call does to the world.
    SideEffect {
        /// Nothing.
        Read = "read",
        /// It changes something.
        Write = "write",
        /// It destroys something.
        Destructive = "destructive",
    }
}

text_enum! {
    /// How much may go wrong. Informs people, never decides.
    Risk {
        /// Little.
        Low = "low",
        /// Some.
        Medium = "medium",
        /// Much.
        High = "high",
    }
}

impl Risk {
    /// The rating of a tool that names none: from its side effect and the trust it asks for.
    pub fn rate(effect: Option<SideEffect>, required: Trust) -> Option<Self> {
        match (effect, required) {
            (Some(SideEffect::Destructive), _) | (_, Trust::High) => Some(Self::High),
            (Some(SideEffect::Write), _) | (_, Trust::Medium) => Some(Self::Medium),
            (Some(SideEffect::Read), _) => Some(Self::Low),
            (None, _) => None,
        }
    }
}

text_enum! {
    /// Whether the policy is enforced.
    Mode {
        /// Only what is granted passes.
        AllowList = "allow-list",
        /// Everything passes, and what would have been refused is recorded.
        Observe = "observe",
    }
}

text_enum! {
    /// How callers say who they are.
    AuthMode {
        /// They do not.
        None = "none",
        /// By headers, or by the credential of a session.
        Header = "header",
        /// By an access token of an OAuth provider.
        OAuth = "oauth",
        /// By a client certificate.
        Mtls = "mtls",
    }
}

text_enum! {
    /// What a call of some kind other than a tool call needs.
    KindRule {
        /// A grant, as tool calls do.
        Granted = "granted",
        /// An established identity.
        Identified = "identified",
        /// It is refused to everybody.
        Denied = "deny",
    }
}

text_enum! {
    /// What a session is recognised by.
    Verification {
        /// Its secret credential, of which the document holds the hash.
        Token = "token",
        /// Its name, when it has no hash.
        Name = "name",
    }
}

text_enum! {
    /// Which identities a policy accepts.
    Assurance {
        /// Claimed in headers, or better.
        Asserted = "asserted",
        /// Proven by a credential.
        Verified = "verified",
    }
}

text_enum! {
    /// Whether lists of tools, prompts and resources show only what the caller may use.
    Lists {
        /// They do.
        Filtered = "filtered",
        /// Lists pass as the server gives them.
        Whole = "whole",
    }
}

text_enum! {
    /// Who shares the count of a rate.
    RateScope {
        /// Each caller has a count.
        Caller = "caller",
        /// All callers under the grant have one.
        Grant = "grant",
    }
}
