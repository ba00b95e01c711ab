//! Why the policy decided as it did: codes that clients, dashboards and tests rely on.

use crate::text_enum::text_enum;

text_enum! {
    /// A reason code. Codes are added, never renamed.
    Reason {
        /// Nothing is against it.
        Allowed = "allowed",
        /// The caller named neither person, agent nor team.
        MissingIdentity = "missing_identity",
        /// The caller claims to be somebody other than the one its session was made for.
        IdentityMismatch = "identity_mismatch",
        /// The policy wants a proven identity, and this one is only claimed.
        IdentityNotVerified = "identity_not_verified",
        /// The server wants a session, and none was presented.
        MissingSession = "missing_session",
        /// The session presented is not known.
        SessionNotFound = "session_not_found",
        /// The session was revoked.
        SessionRevoked = "session_revoked",
        /// The session is past its end or its longest life.
        SessionExpired = "session_expired",
        /// The session was not used for too long.
        SessionIdle = "session_idle",
        /// Calls of this kind are refused to everybody.
        KindDenied = "kind_denied",
        /// No grant is for this caller.
        NoMatchingGrant = "no_matching_grant",
        /// Grants are for this caller, but not at this time.
        OutsideTimeWindow = "outside_time_window",
        /// A grant forbids the tool.
        ToolDenied = "tool_denied",
        /// A grant forbids the resource.
        ResourceDenied = "resource_denied",
        /// A grant forbids the prompt.
        PromptDenied = "prompt_denied",
        /// No grant of this caller names the tool.
        ToolNotGranted = "tool_not_granted",
        /// No grant of this caller names the resource.
        ResourceNotGranted = "resource_not_granted",
        /// No grant of this caller names the prompt.
        PromptNotGranted = "prompt_not_granted",
        /// The server does not say what the tool does.
        ToolSideEffectUnknown = "tool_side_effect_unknown",
        /// The tool's definition is not the one that was approved.
        ToolChanged = "tool_changed",
        /// No grant of this caller allows what the tool does.
        SideEffectNotAllowed = "side_effect_not_allowed",
        /// Grants allow the call only with other arguments.
        ArgumentsNotAllowed = "arguments_not_allowed",
        /// The grants carry no trust.
        GrantWithoutTrust = "grant_without_trust",
        /// The call asks for more trust than grant and session give.
        TrustTooLow = "trust_too_low",
        /// The access token lacks a scope.
        InsufficientScope = "insufficient_scope",
        /// The grant's rate is used up. Said by the keeper of the counts, not by the policy.
        RateExceeded = "rate_exceeded",
        /// No policy was ever read, or the last one is too old.
        PolicyUnavailable = "policy_unavailable",
    }
}

impl Reason {
    /// HTTP status of a refusal for this reason, where refusals are told by status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Allowed => 200,
            Self::MissingIdentity
            | Self::IdentityMismatch
            | Self::IdentityNotVerified
            | Self::MissingSession
            | Self::SessionNotFound
            | Self::SessionRevoked
            | Self::SessionExpired
            | Self::SessionIdle => 401,
            Self::RateExceeded => 429,
            Self::PolicyUnavailable => 503,
            _ => 403,
        }
    }

    /// What the caller can do about it; empty when nothing is wrong. Tells nothing of the policy's content.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::MissingIdentity => "say who calls: present a session, a token or the identity headers of this server",
            Self::IdentityMismatch => "leave the identity headers out, or present the session that was made for this identity",
            Self::IdentityNotVerified => "present a session or a token; headers alone do not prove who calls",
            Self::MissingSession => "present a session; `mcp-runtime access session init` makes one",
            Self::SessionNotFound => "present a session that exists; `mcp-runtime access session init` makes one",
            Self::SessionRevoked => "ask the owner of this server whether you may have a new session",
            Self::SessionExpired | Self::SessionIdle => "make a new session with `mcp-runtime access session init`",
            Self::KindDenied => "this server does not offer calls of this kind; ask its owner",
            Self::NoMatchingGrant => "ask the owner of this server for a grant",
            Self::OutsideTimeWindow => "call again at a time your grant allows, or ask the owner of this server to widen it",
            Self::ToolDenied | Self::ResourceDenied | Self::PromptDenied => {
                "it is forbidden to you; ask the owner of this server if that is wrong"
            }
            Self::ToolNotGranted | Self::ResourceNotGranted | Self::PromptNotGranted => {
                "ask the owner of this server to add it to your grant"
            }
            Self::ToolSideEffectUnknown => "ask the owner of this server to list the tool with its side effect",
            Self::ToolChanged => "ask the owner of this server to approve the tool's new definition",
            Self::SideEffectNotAllowed => "ask the owner of this server to allow this side effect in your grant",
            Self::ArgumentsNotAllowed => "call it with other arguments, or ask the owner of this server what is allowed",
            Self::GrantWithoutTrust => "ask the owner of this server to set the trust of your grant",
            Self::TrustTooLow => "ask for a grant of higher trust, or consent to more when making the session",
            Self::InsufficientScope => "ask for a token with the scopes named in the challenge",
            Self::RateExceeded => "wait as long as `Retry-After` says",
            Self::PolicyUnavailable => "try again; if it stays so, tell the owner of this server",
        }
    }

    /// Whether `default_decision: allow` turns a refusal for this reason into a pass: nobody spoke about the call.
    pub const fn is_left_to_default(self) -> bool {
        matches!(
            self,
            Self::NoMatchingGrant
                | Self::OutsideTimeWindow
                | Self::ToolNotGranted
                | Self::ResourceNotGranted
                | Self::PromptNotGranted
                | Self::GrantWithoutTrust
        )
    }
}
