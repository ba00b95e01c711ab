//! Bearer tokens of an identity provider (OIDC) instead of ingest keys.
//!
//! A token opens ingest when the provider signed it with an asymmetric key that it publishes, it names our issuer and our audience, it is
//! not over, and its claim names namespaces. Everything is refused that does not say all of this, and nothing in a token decides how
//! it is verified: the algorithm has to be one of ours and of the key's kind.
//!
//! The provider's keys are fetched when first needed, again after [`FRESH_FOR`], and at once when a token names a key that we do
//! not know, though no more often than every [`FETCH_EVERY`]. While the provider is away, its last keys serve for [`STALE_FOR`].

mod fetch;
mod keys;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use domain::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::keys::Grant;

use fetch::{FetchError, Fetcher};
use keys::KeySet;
pub(crate) use token::TokenFault;
use token::{Header, Rules};

/// How long fetched keys are used without asking again.
const FRESH_FOR: Duration = Duration::from_mins(10);
/// How long they serve while the provider cannot be asked.
const STALE_FOR: Duration = Duration::from_hours(24);
/// Least time between two fetches: strangers can make up names of keys as fast as they like.
const FETCH_EVERY: Duration = Duration::from_secs(5);
/// Verified tokens that are remembered. Verifying one takes as long as taking in fifty events.
const KNOWN_MAX: usize = 1_024;

/// Options of the identity provider. Flatten this group into the arguments of a service.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Ingest tokens")]
pub struct OidcArgs {
    /// Issuer whose bearer tokens are taken beside ingest keys, such as `https://id.example.com/realms/mcp`.
    #[arg(
        long = "ingest-oidc-issuer",
        env = "SENTINEL_INGEST_OIDC_ISSUER",
        hide_env_values = true,
        value_name = "URL",
        requires = "audience"
    )]
    pub issuer: Option<String>,

    /// Audience that a token has to name.
    #[arg(
        id = "audience",
        long = "ingest-oidc-audience",
        env = "SENTINEL_INGEST_OIDC_AUDIENCE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub audience: Option<String>,

    /// Claim that names the namespaces a token may write: a text or a list of texts; `*` stands for all.
    #[arg(
        long = "ingest-oidc-namespaces-claim",
        env = "SENTINEL_INGEST_OIDC_NAMESPACES_CLAIM",
        hide_env_values = true,
        default_value = "namespaces",
        value_name = "CLAIM"
    )]
    pub namespaces_claim: String,
}

/// Settings of the identity provider that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    #[error("--ingest-oidc-issuer is `{0}`, but needs to be an https address (http only towards this machine), without query")]
    Issuer(String),
    #[error("--ingest-oidc-audience is missing or empty; without it a token meant for another service would do")]
    Audience,
    #[error("--ingest-oidc-namespaces-claim is empty")]
    Claim,
}

/// Verifies tokens of one provider. Clones share what was fetched.
#[derive(Clone)]
pub struct Oidc(Arc<Shared>);

struct Shared {
    rules: Rules,
    fetcher: Fetcher,
    keys: ArcSwapOption<Fetched>,
    /// When a fetch was last tried. Held over the fetch, so that all who wait share one.
    tried: tokio::sync::Mutex<Option<Duration>>,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

#[derive(Debug)]
struct Fetched {
    keys: KeySet,
    at: Duration,
}

#[derive(Clone)]
struct Known {
    grant: Arc<Grant>,
    expires_at: Timestamp,
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc")
            .field("issuer", &self.0.rules.issuer)
            .finish_non_exhaustive()
    }
}

/// Why a token opens nothing at this moment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The token's fault.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// The provider was never reached.
    #[error("asking the identity provider for its keys")]
    Provider(#[source] FetchError),
    /// It was not reached a moment ago, either.
    #[error("the identity provider was not reached a moment ago")]
    NotYet,
}

impl Oidc {
    /// `None` when no issuer is named.
    pub fn from_args(args: &OidcArgs) -> Result<Option<Self>, OidcError> {
        let Some(issuer) = &args.issuer else { return Ok(None) };
        let fetcher = Fetcher::new(issuer).ok_or_else(|| OidcError::Issuer(issuer.clone()))?;
        let audience = args.audience.clone().filter(|audience| !audience.trim().is_empty());
        if args.namespaces_claim.trim().is_empty() {
            return Err(OidcError::Claim);
        }
        Ok(Some(Self(Arc::new(Shared {
            rules: Rules {
                issuer: issuer.clone(),
                audience: audience.ok_or(OidcError::Audience)?,
                namespaces_claim: args.namespaces_claim.clone(),
            },
            fetcher,
            keys: ArcSwapOption::empty(),
            tried: tokio::sync::Mutex::new(None),
            known: Mutex::default(),
        }))))
    }

    /// What the token's holder may send.
    pub(crate) async fn verify(&self, token: &str, now: Timestamp, monotonic: Duration) -> Result<Arc<Grant>, Refusal> {
        let name: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.known(&name, now) {
            return Ok(known);
        }
        let header = Header::of(token)?;
        let keys = self.keys_for(&header, monotonic).await?;
        let key = keys.keys.find(&header).ok_or(TokenFault::Key)?;
        let (grant, expires_at) = self.0.rules.verify(token, &header, key, now)?;
        let known = Known {
            grant: Arc::new(grant),
            expires_at,
        };
        let mut all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(name, known.clone());
        Ok(known.grant)
    }

    fn known(&self, name: &[u8; 32], now: Timestamp) -> Option<Arc<Grant>> {
        let all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(name).filter(|known| known.expires_at > now)?;
        Some(Arc::clone(&known.grant))
    }

    /// Keys that are fresh and hold the token's, or the best there is.
    async fn keys_for(&self, header: &Header, now: Duration) -> Result<Arc<Fetched>, Refusal> {
        let serves = |fetched: &Arc<Fetched>| now.saturating_sub(fetched.at) < FRESH_FOR && fetched.keys.find(header).is_some();
        if let Some(fetched) = self.0.keys.load_full().filter(serves) {
            return Ok(fetched);
        }
        let mut tried = self.0.tried.lock().await;
        // Somebody may have fetched while we waited.
        let held = self.0.keys.load_full();
        if let Some(fetched) = held.clone().filter(serves) {
            return Ok(fetched);
        }
        let held = held.filter(|fetched| now.saturating_sub(fetched.at) < STALE_FOR);
        if tried.is_some_and(|tried| now.saturating_sub(tried) < FETCH_EVERY) {
            return held.ok_or(Refusal::NotYet);
        }
        *tried = Some(now);
        match self.0.fetcher.fetch().await {
            Ok(keys) => {
                let fetched = Arc::new(Fetched { keys, at: now });
                self.0.keys.store(Some(Arc::clone(&fetched)));
                // A key that was withdrawn takes its tokens with it.
                self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Ok(fetched)
            }
            Err(error) => {
                tracing::warn!(error = %service_kit::error::Chain(&error), issuer = self.0.rules.issuer, "the identity provider's keys could not be fetched");
                held.ok_or(Refusal::Provider(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
