//! Who sends: the key in the headers, checked against the ring.

use std::sync::Arc;

use domain::Timestamp;
use http::{HeaderMap, header};
use service_kit::Problem;

use crate::keys::{Key, KeyRefusal, KeyRing};

const API_KEY: &str = "x-api-key";
const BEARER: &str = "bearer";

/// How a key was presented; the words of the answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    ApiKey,
    Authorization,
}

/// The key of a request, or the answer to whoever has none.
pub(crate) fn authenticate(headers: &HeaderMap, keys: &KeyRing, now: Timestamp) -> Result<Arc<Key>, Problem> {
    let (header, presented) = presented(headers).ok_or_else(|| {
        Problem::unauthorized("events need an ingest key")
            .with_hint("send the header `x-api-key: mcpi_…` or `authorization: Bearer mcpi_…`")
    })?;
    keys.find(presented, now).map_err(|refusal| refused(header, refusal))
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
