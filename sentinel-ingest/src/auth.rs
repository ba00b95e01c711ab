//! Who sends: the key or the token in the headers, checked against the ring or the identity provider.

use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use http::{HeaderMap, header};
use service_kit::Problem;
use service_kit::oidc::{Moment, Refusal};

use crate::keys::{KeyRefusal, Sender, Senders};
use crate::oidc::TokenRefusal;

const API_KEY: &str = "x-api-key";
const BEARER: &str = "bearer";
/// How a key was presented; the words of the answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    ApiKey,
    Authorization,
}

/// Who sends a request, or the answer to whoever may not.
pub(crate) async fn authenticate(
    headers: &HeaderMap,
    senders: &Senders,
    now: Timestamp,
    monotonic: Duration,
) -> Result<Sender, Problem> {
    let (header, presented) = presented(headers).ok_or_else(|| {
        Problem::unauthorized("events need an ingest key")
            .with_hint("send the header `x-api-key: mcpi_…` or `authorization: Bearer mcpi_…`")
    })?;
    match &senders.oidc {
        // Keys hold no dots, and tokens hold two.
        Some(oidc) if header == Header::Authorization && presented.contains('.') => {
            let now = Moment {
                unix_ns: now.nanos(),
                monotonic,
            };
            let granted = oidc.verify(presented, now).await.map(Arc::new);
            granted.map(Sender::Token).map_err(|refusal| token_refused(&refusal))
        }
        _ => {
            let key = senders.keys.find(presented, now);
            key.map(Sender::Key).map_err(|refusal| refused(header, refusal))
        }
    }
}

fn token_refused(refusal: &TokenRefusal) -> Problem {
    let retry_after = match refusal {
        TokenRefusal::Namespaces => {
            return Problem::forbidden(refusal.to_string())
                .with_code("namespace_mismatch")
                .with_hint("ask the identity provider's administrator for the claim that names your namespaces");
        }
        TokenRefusal::Token(refusal) => Refusal::retry_after(refusal),
    };
    match retry_after {
        None => Problem::unauthorized(refusal.to_string())
            .with_code("invalid_token")
            .with_hint("get a new token from the identity provider, for this audience"),
        Some(wait) => Problem::unavailable("the identity provider cannot be asked for its keys at this moment", wait)
            .with_code("identity_provider_unavailable"),
    }
}

fn presented(headers: &HeaderMap) -> Option<(Header, &str)> {
    if let Some(value) = headers.get(API_KEY) {
        // Something that is no text is no key, but it was presented.
        return Some((Header::ApiKey, value.to_str().unwrap_or_default().trim()));
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case(BEARER)
        .then(|| (Header::Authorization, token.trim()))
}

fn refused(header: Header, refusal: KeyRefusal) -> Problem {
    let problem = Problem::unauthorized;
    match (refusal, header) {
        (KeyRefusal::NoKeys, _) => problem("this service has no ingest keys yet, so it refuses every event")
            .with_hint("make one with `mcp-runtime sentinel keys create`"),
        (KeyRefusal::Expired, _) => problem("the ingest key has expired")
            .with_code("invalid_token")
            .with_hint("make a new one with `mcp-runtime sentinel keys create`"),
        (KeyRefusal::Revoked, _) => problem("the ingest key was revoked")
            .with_code("invalid_token")
            .with_hint("make a new one with `mcp-runtime sentinel keys create`"),
        (KeyRefusal::Unknown, Header::ApiKey) => problem("the ingest key is not valid").with_hint(UNKNOWN),
        (KeyRefusal::Unknown, Header::Authorization) => problem("the bearer token is not a valid ingest key")
            .with_code("invalid_token")
            .with_hint(UNKNOWN),
    }
}

const UNKNOWN: &str = "check that the whole key was copied; `mcp-runtime sentinel keys list` shows the ids of all keys";
