//! The way to the server and back: which headers go along.
//!
//! The server is asked for answers without content coding, since only those can be read while they pass; an answer that is encoded
//! all the same passes unread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use service_kit::trace::{TRACEPARENT, TraceContext};

use crate::route::Site;

/// Opens connections, plain and by TLS.
pub(crate) type Connector = HttpsConnector<HttpConnector>;
/// A client for requests that are not calls.
pub(crate) type HttpClient = Client<Connector, Full<Bytes>>;

const KEEPALIVE: Duration = Duration::from_mins(1);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Headers that belong to one connection, besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Which host the server is told that it was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum HostHeader {
    /// Its own, as in the upstream address: what servers that check it expect.
    #[default]
    Upstream,
    /// The one the client used.
    Client,
}

/// What goes along to the server.
#[derive(Debug, Clone, Default)]
pub struct ForwardRules {
    pub host: HostHeader,
    /// Headers with credentials of the caller that the server shall get all the same. Without it, it gets none.
    pub credentials_kept: Vec<HeaderName>,
}

pub(crate) fn connector(connect_timeout: Duration) -> Connector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_connect_timeout(Some(connect_timeout));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    let builder = match roots {
        Ok(builder) => builder,
        // The provider is the one that supports every default protocol version, so this is never taken.
        Err(_) => HttpsConnectorBuilder::new().with_webpki_roots(),
    };
    builder.https_or_http().enable_http1().wrap_connector(connector)
}

/// A client with connections of its own, for ingest.
pub(crate) fn client(connect_timeout: Duration) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(crate::upstream::IDLE_MAX)
        .set_host(false)
        .build(connector(connect_timeout))
}

/// The request as the server gets it; `None` when the path cannot be mapped.
pub(crate) fn request(
    site: &Site,
    rules: &ForwardRules,
    head: http::request::Parts,
    body: Bytes,
    hop: &Hop,
) -> Option<Request<Full<Bytes>>> {
    let target = site.target(&head.uri)?;
    let mut headers = head.headers;
    remove_hop_by_hop(&mut headers);
    for credential in [header::AUTHORIZATION, header::PROXY_AUTHORIZATION] {
        if !rules.credentials_kept.contains(&credential) {
            headers.remove(credential);
        }
    }
    headers.remove(header::EXPECT);
    headers.insert(header::ACCEPT_ENCODING, IDENTITY);
    headers.insert(TRACEPARENT, traceparent(hop.trace));
    let client_host = headers.get(header::HOST).cloned();
    if rules.host == HostHeader::Upstream || client_host.is_none() {
        headers.insert(header::HOST, site.authority.clone());
    }
    forwarded(&mut headers, hop, client_host);
    headers.remove(header::CONTENT_LENGTH);
    if !body.is_empty() || head.method == Method::POST {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    Some(request)
}

/// Who came by, and in which trace.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) peer: SocketAddr,
    pub(crate) trace: TraceContext,
}

fn forwarded(headers: &mut HeaderMap, hop: &Hop, host: Option<HeaderValue>) {
    let peer = hop.peer.ip().to_string();
    let chain = match headers.get(&FORWARDED_FOR) {
        Some(before) => HeaderValue::try_from([before.as_bytes(), b", ", peer.as_bytes()].concat()),
        None => HeaderValue::try_from(peer),
    };
    if let Ok(chain) = chain {
        headers.insert(FORWARDED_FOR, chain);
    }
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
}

/// Removes what concerns one connection only, both from requests and from answers.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them, and looking is cheaper than removing.
    let mut found: Vec<HeaderName> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    if found.contains(&header::CONNECTION) {
        let named = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        found.extend(named);
    }
    for name in &found {
        headers.remove(name);
    }
}

/// The header of a trace context, in version 00.
fn traceparent(trace: TraceContext) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let parts: [(usize, &[u8]); 3] = [
        (3, trace.trace_id.as_bytes()),
        (36, trace.span_id.as_bytes()),
        (53, &[trace.flags]),
    ];
    for (at, bytes) in parts {
        let digits = text.get_mut(at..at + 2 * bytes.len()).unwrap_or_default();
        // The room is twice as long as the bytes, which is all that can be wrong.
        let _filled = hex::encode_to_slice(bytes, digits);
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| trace.to_header())
}

/// Which hosts and origins may call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallerRules {
    /// Only names of this machine may be called, as for a listener on the loopback address: otherwise any web page could call
    /// by way of a name that it points here.
    pub loopback_only: bool,
    /// Further hosts, without port. When there are any, others are refused on every listener.
    pub hosts: Vec<String>,
    /// Further origins, such as `https://inspector.example`. When there are any, others are refused on every listener.
    pub origins: Vec<String>,
}

impl CallerRules {
    /// What suits a listener on that address, without further hosts and origins.
    pub fn of_listener(address: SocketAddr) -> Self {
        Self {
            loopback_only: address.ip().is_loopback(),
            ..Self::default()
        }
    }

    /// Why the caller is refused, or `None`.
    pub(crate) fn refusal(&self, headers: &HeaderMap, uri: &uri::Uri) -> Option<&'static str> {
        let host = headers
            .get(header::HOST)
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        let host = host.as_deref().or_else(|| uri.host());
        let local = |host: &str| self.loopback_only && is_loopback(host);
        if self.loopback_only || !self.hosts.is_empty() {
            let name = without_port(host.unwrap_or_default());
            if !local(name) && !self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
                return Some("host_not_allowed");
            }
        }
        let origin = headers.get(header::ORIGIN)?;
        if self.loopback_only || !self.origins.is_empty() {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            let name = origin.split_once("://").map_or("", |(_, authority)| without_port(authority));
            if !local(name) && !self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(&origin)) {
                return Some("origin_not_allowed");
            }
        }
        None
    }
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
