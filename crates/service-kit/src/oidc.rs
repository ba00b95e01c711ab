//! Access tokens of an identity provider (OIDC, OAuth 2): verified by the keys that their issuer publishes.
//!
//! A token is good when the issuer signed it with an asymmetric key that it publishes, it names the issuer and an audience of ours,
//! and it is not over. Everything is refused that does not say all of this, and nothing in a token decides how it is verified:
//! the algorithm has to be one of ours and of the key's kind.
//!
//! The keys are fetched when first needed, again after [`FRESH_FOR`] while the old ones go on serving, and at once when a token names
//! a key that we do not know, though no more often than every [`FETCH_EVERY`]. While the issuer is away, its last keys serve for
//! [`STALE_FOR`], and nobody who shows a key we know waits for it.

mod fetch;
mod keys;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::clock::Clock;
use crate::error::Chain;

pub use fetch::FetchError;
use fetch::Fetcher;
use keys::KeySet;
use token::Header;
pub use token::{Token, TokenFault};

/// How long fetched keys are used without asking again.
const FRESH_FOR: Duration = Duration::from_mins(10);
/// How long they serve while the issuer cannot be asked.
const STALE_FOR: Duration = Duration::from_hours(24);
/// Least time between two fetches: strangers can make up names of keys as fast as they like.
const FETCH_EVERY: Duration = Duration::from_secs(5);
/// Verified tokens that are remembered: verifying a signature costs as much as hundreds of look-ups.
const KNOWN_MAX: usize = 4_096;

/// The address of an issuer that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer `{0}` needs to be an https address (http only towards this machine), without query")]
pub struct IssuerFault(pub String);

/// Verifies tokens of one issuer. Clones share what was fetched.
#[derive(Clone)]
pub struct Issuer(Arc<Shared>);

struct Shared {
    issuer: String,
    fetcher: Fetcher,
    keys: ArcSwapOption<Fetched>,
    /// When a fetch was last tried. Held over the fetch, so that all who wait share one.
    tried: Arc<tokio::sync::Mutex<Option<Duration>>>,
    /// By the digest of the token: the token itself is a credential, and is not kept.
    known: Mutex<HashMap<[u8; 32], Arc<Token>>>,
}

#[derive(Debug)]
struct Fetched {
    keys: KeySet,
    at: Duration,
}

/// A point in time on both clocks: tokens tell the time of day, and pauses are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub unix_ns: i64,
    /// As of [`Clock::monotonic`].
    pub monotonic: Duration,
}

impl From<&Clock> for Moment {
    fn from(clock: &Clock) -> Self {
        Self {
            unix_ns: clock.unix_ns(),
            monotonic: clock.monotonic(),
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("issuer", &self.0.issuer)
            .finish_non_exhaustive()
    }
}

/// Why a token opens nothing at this moment.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The token's fault.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// The issuer was never reached.
    #[error("asking the identity provider for its keys")]
    Provider(#[source] FetchError),
    /// It was not reached a moment ago, either.
    #[error("the identity provider was not reached a moment ago")]
    NotYet,
}

impl Refusal {
    /// When it is worth trying again; `None` when the token itself has to change.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Token(_) => None,
            Self::Provider(_) | Self::NotYet => Some(FETCH_EVERY),
        }
    }
}

impl Issuer {
    /// An issuer by its address, such as `https://id.example.com/realms/mcp`. Nothing is asked of it yet.
    pub fn new(issuer: &str) -> Result<Self, IssuerFault> {
        let fetcher = Fetcher::new(issuer).ok_or_else(|| IssuerFault(issuer.to_owned()))?;
        Ok(Self(Arc::new(Shared {
            issuer: issuer.to_owned(),
            fetcher,
            keys: ArcSwapOption::empty(),
            tried: Arc::default(),
            known: Mutex::default(),
        })))
    }

    /// The address it is known by.
    pub fn address(&self) -> &str {
        &self.0.issuer
    }

    /// What a token says, when it is good and made for one of these audiences.
    pub async fn verify(&self, token: &str, audiences: &[&str], now: Moment) -> Result<Arc<Token>, Refusal> {
        let token = self.verified(token, now).await?;
        if audiences.iter().any(|audience| token.is_for(audience)) {
            Ok(token)
        } else {
            Err(TokenFault::Audience.into())
        }
    }

    async fn verified(&self, text: &str, now: Moment) -> Result<Arc<Token>, Refusal> {
        let name: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(known) = self.known(&name, now) {
            return Ok(known);
        }
        let header = Header::of(text)?;
        let fetched = self.keys_for(&header, now.monotonic).await?;
        let key = fetched.keys.find(&header).ok_or(TokenFault::Key)?;
        let token = Arc::new(Token::verify(text, &header, key, &self.0.issuer, now.unix_ns)?);
        let mut known = self.0.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(name, Arc::clone(&token));
        Ok(token)
    }

    /// A token that was good before, as long as the keys that proved it are.
    fn known(&self, name: &[u8; 32], now: Moment) -> Option<Arc<Token>> {
        let held = self.0.held(now.monotonic)?;
        let known = self.0.known();
        let token = known
            .get(name)
            .filter(|token| token.expires_at_ns() > now.unix_ns)
            .map(Arc::clone)?;
        drop(known);
        self.refresh_when_due(&held, now.monotonic);
        Some(token)
    }

    /// Keys that hold the token's, or the best there is.
    async fn keys_for(&self, header: &Header, now: Duration) -> Result<Arc<Fetched>, Refusal> {
        let serving = || self.0.held(now).filter(|held| held.keys.find(header).is_some());
        if let Some(held) = serving() {
            self.refresh_when_due(&held, now);
            return Ok(held);
        }
        let mut tried = Arc::clone(&self.0.tried).lock_owned().await;
        // Somebody may have fetched while we waited.
        if let Some(held) = serving() {
            return Ok(held);
        }
        let held = self.0.held(now);
        if is_recent(*tried, now) {
            return held.ok_or(Refusal::NotYet);
        }
        *tried = Some(now);
        match self.0.fetch(now).await {
            Ok(fetched) => Ok(fetched),
            Err(error) => held.ok_or(Refusal::Provider(error)),
        }
    }

    /// Asks for the keys again, without anybody waiting for them.
    fn refresh_when_due(&self, held: &Fetched, now: Duration) {
        if now.saturating_sub(held.at) < FRESH_FOR {
            return;
        }
        let Ok(mut tried) = Arc::clone(&self.0.tried).try_lock_owned() else {
            return;
        };
        if is_recent(*tried, now) {
            return;
        }
        *tried = Some(now);
        let shared = Arc::clone(&self.0);
        let refresh = async move {
            // A fault is in the log, and the keys we hold go on serving.
            let _told: Option<Arc<Fetched>> = shared.fetch(now).await.ok();
            drop::<OwnedMutexGuard<_>>(tried);
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "one at a time, over within seconds, and nothing at shutdown depends on it"
        )]
        let _ends_by_itself = tokio::spawn(refresh);
    }
}

fn is_recent(tried: Option<Duration>, now: Duration) -> bool {
    tried.is_some_and(|tried| now.saturating_sub(tried) < FETCH_EVERY)
}

impl Shared {
    /// Keys that are not too old to serve.
    fn held(&self, now: Duration) -> Option<Arc<Fetched>> {
        let held = self.keys.load_full()?;
        (now.saturating_sub(held.at) < STALE_FOR).then_some(held)
    }

    async fn fetch(&self, now: Duration) -> Result<Arc<Fetched>, FetchError> {
        match self.fetcher.fetch().await {
            Ok(keys) => {
                let fetched = Arc::new(Fetched { keys, at: now });
                self.keys.store(Some(Arc::clone(&fetched)));
                // A key that was withdrawn takes its tokens with it.
                self.known().clear();
                Ok(fetched)
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), issuer = self.issuer, "the identity provider's keys could not be fetched");
                Err(error)
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Token>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
