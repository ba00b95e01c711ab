//! Asking the issuer: its discovery document, and the keys that this points to.
//!
//! The document is at one of four places: after the issuer as OIDC has it, and between host and path as RFC 8414 has it, each for
//! OIDC and for OAuth alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::keys::KeySet;

const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// For each of the two documents.
const TIME_MAX: Duration = Duration::from_secs(5);
const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// The keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("asking {0}")]
    Ask(Uri, #[source] hyper_util::client::legacy::Error),
    #[error("waiting for {0} for more than {TIME_MAX:?}")]
    Late(Uri),
    #[error("reading the answer of {0}")]
    Read(Uri, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{uri} answered {status}")]
    Status { uri: Uri, status: StatusCode },
    #[error("understanding the answer of {0}")]
    Malformed(Uri, #[source] serde_json::Error),
    #[error("{0} is the document of another issuer")]
    Issuer(Uri),
    #[error("{0} is no https address (http only towards this machine)")]
    Address(String),
    #[error("{0} holds no key that can be used")]
    NoKeys(Uri),
}

#[derive(Debug)]
pub(super) struct Fetcher {
    issuer: String,
    /// Where its document may be, the most common place first.
    discovery: Vec<Uri>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// `None` when the issuer is no address that may be asked.
    pub(super) fn new(issuer: &str) -> Option<Self> {
        let uri = address(issuer)?;
        if uri.query().is_some() {
            return None;
        }
        // Which of the two schemes is allowed is decided by `address`.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider).ok()?;
        let connector = connector.https_or_http().enable_http1().build();
        Some(Self {
            discovery: places(issuer, &uri),
            issuer: issuer.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let discovery = self.discover().await?;
        let uri = address(&discovery.jwks_uri).ok_or(FetchError::Address(discovery.jwks_uri))?;
        let set: JwkSet = self.document(&uri).await?;
        let keys = KeySet::new(&set);
        if keys.is_empty() {
            Err(FetchError::NoKeys(uri))
        } else {
            Ok(keys)
        }
    }

    /// The issuer's document, from the first place that has one. An issuer that cannot be reached is not asked four times.
    async fn discover(&self) -> Result<Discovery, FetchError> {
        let mut missing = None;
        for place in &self.discovery {
            match self.document::<Discovery>(place).await {
                Ok(discovery) if discovery.issuer == self.issuer => return Ok(discovery),
                Ok(_) => return Err(FetchError::Issuer(place.clone())),
                Err(fault @ FetchError::Status { status, .. }) if status.is_client_error() => {
                    missing.get_or_insert(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(missing.unwrap_or_else(|| FetchError::Address(self.issuer.clone())))
    }

    async fn document<T: DeserializeOwned>(&self, uri: &Uri) -> Result<T, FetchError> {
        let bytes = tokio::time::timeout(TIME_MAX, self.read(uri)).await;
        let bytes = bytes.map_err(|_| FetchError::Late(uri.clone()))??;
        serde_json::from_slice(&bytes).map_err(|error| FetchError::Malformed(uri.clone(), error))
    }

    async fn read(&self, uri: &Uri) -> Result<Bytes, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        let response = self.client.request(request).await;
        let response = response.map_err(|error| FetchError::Ask(uri.clone(), error))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status {
                uri: uri.clone(),
                status: response.status(),
            });
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|error| FetchError::Read(uri.clone(), error))
    }
}

pub(super) fn places(issuer: &str, uri: &Uri) -> Vec<Uri> {
    let path = uri.path().trim_end_matches('/');
    let appended = format!("{}{OPENID}", issuer.trim_end_matches('/'));
    let root = issuer.trim_end_matches('/').strip_suffix(path).unwrap_or(issuer).to_owned();
    let mut places = vec![appended];
    for name in [OAUTH, OPENID] {
        let between = format!("{root}{name}{path}");
        if !places.contains(&between) {
            places.push(between);
        }
    }
    places.iter().filter_map(|place| address(place)).collect()
}

/// An address whose answers nobody on the way can change.
fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let host = uri.host()?;
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let is_safe = uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_here);
    is_safe.then_some(uri)
}
