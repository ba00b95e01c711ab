//! The client for what this service asks of others.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that takes HTTPS and plain HTTP; which of them is fit is for callers to say.
pub(crate) fn client() -> HttpClient {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let connector = match builder.with_provider_and_webpki_roots(provider) {
        Ok(roots) => roots,
        Err(_) => HttpsConnectorBuilder::new().with_webpki_roots(),
    };
    Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build())
}
