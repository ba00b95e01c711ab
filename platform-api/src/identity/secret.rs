//! Secrets we hand out: a prefix that says what it is, and 32 random bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

const RANDOM_BYTES: usize = 32;

/// What a secret is for. The prefix lets scanners find leaked ones and lets us ask the right table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Access,
    Refresh,
    UserKey,
    ServiceKey,
    RegistryKey,
    Invitation,
    Adapter,
    Device,
}

impl Purpose {
    pub(crate) const ALL: [Self; 8] = [
        Self::Access,
        Self::Refresh,
        Self::UserKey,
        Self::ServiceKey,
        Self::RegistryKey,
        Self::Invitation,
        Self::Adapter,
        Self::Device,
    ];

    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Access => "mcpt_",
            Self::Refresh => "mcpf_",
            Self::UserKey => "mcpu_",
            Self::ServiceKey => "mcps_",
            Self::RegistryKey => "mcpr_",
            Self::Invitation => "mcpv_",
            Self::Adapter => "mcpa_",
            Self::Device => "mcpd_",
        }
    }

    /// What a credential says it is; `None` when it is none of ours.
    pub(crate) fn of(credential: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| credential.starts_with(purpose.prefix()))
    }
}

/// A secret in the clear, on its way to its only reader. Wiped from memory when dropped, and never part of `Debug`.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    pub(crate) fn fresh(purpose: Purpose) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        let text = format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(bytes));
        bytes.zeroize();
        Ok(Self(Zeroizing::new(text)))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> String {
        hash(&self.0)
    }

    /// The first characters, by which a person recognises it in a list.
    pub(crate) fn start(&self) -> String {
        self.0.chars().take(9).collect()
    }
}

/// What is kept of a secret that came with a request.
pub(crate) fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_tells_its_purpose_and_hides_itself() {
        for purpose in Purpose::ALL {
            let secret = Secret::fresh(purpose).unwrap();
            assert_eq!(Purpose::of(secret.reveal()), Some(purpose));
            assert_eq!(secret.reveal().len(), 5 + 43);
            assert_eq!(format!("{secret:?}"), "Secret(…)");
            assert_eq!(hash(secret.reveal()), secret.hash());
        }
        assert_eq!(Purpose::of("eyJhbGciOi"), None);
    }
}
