//! A server that is called with certificates: real ones, made here, and replaced while connections are open.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::Identity;
use gateway::{GatewayLimits, IdentityRules};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use service_kit::Tasks;
use service_kit::http::bind;
use service_kit::tls::{Tls, TlsFiles};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::governed::{Governed, call};
use crate::support::{soon, until};

const SESSION: &str = "spiffe://prod.example/ns/acme/session/s-alice";
const PROXY: &str = "spiffe://prod.example/ns/ingress/sa/proxy";

/// An authority of one's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Made {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn make(&self, uris: &[&str]) -> Made {
        self.make_until(uris, 2_100)
    }

    fn make_until(&self, uris: &[&str], year: i32) -> Made {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(names);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Made {
            certificate,
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// A gateway that listens with TLS, and the folder with its files.
struct Listening {
    governed: Governed,
    folder: TempDir,
    authority: Authority,
    address: std::net::SocketAddr,
}

impl Listening {
    async fn start(limits: GatewayLimits) -> Self {
        let authority = Authority::new();
        let folder = TempDir::new().unwrap();
        let listening = |governed, address| Self {
            governed,
            folder,
            authority,
            address,
        };
        let governed = Governed::on(Tasks::for_test(), limits, &document());
        let mut all = listening(governed, ([127, 0, 0, 1], 0).into());
        all.write(&all.authority.make(&[]), &all.authority.pem());
        let tasks = all.governed.setup.running.tasks();
        let tls = Tls::watch(all.files(), &tasks).await.unwrap();
        all.address = gateway::listen_tls(&all.governed.setup.gateway, bind(all.address).unwrap(), tls, &tasks).unwrap();
        all
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: Some(self.path("ca.crt")),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, made: &Made, client_ca: &str) {
        fs::write(self.path("tls.crt"), &made.certificate).unwrap();
        fs::write(self.path("tls.key"), &made.key).unwrap();
        fs::write(self.path("ca.crt"), client_ca).unwrap();
    }

    /// A connection with this certificate, trusting that authority; the error is the one of the handshake.
    async fn connect(&self, client: Option<&Made>, trusted: &Authority) -> Result<Connection, std::io::Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let chain = CertificateDer::pem_slice_iter(made.certificate.as_bytes()).map(Result::unwrap);
                let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain.collect(), key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = soon("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        hyper::rt::Executor::execute(&TokioExecutor::new(), async move { drop(connection.await) });
        Ok(Connection(sender))
    }

    async fn call(&self, client: Option<&Made>, headers: &[(&'static str, &str)]) -> (u16, Value) {
        let mut connection = self.connect(client, &self.authority).await.unwrap();
        connection.call(headers).await.unwrap()
    }

    /// What the metrics say of certificates taken in.
    fn reloads(&self, result: &str) -> u64 {
        let text = self.governed.setup.running.tasks().metrics().encode().unwrap();
        let start = format!("service_kit_tls_reloads_total{{result=\"{result}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&start));
        count.map_or(0, |count| count.parse().unwrap())
    }

    async fn until_reloads(&self, result: &str, count: u64) {
        until("certificate files taken in", || match self.reloads(result) {
            seen if seen >= count => Ok(()),
            seen => Err(format!("{result}: {seen}")),
        })
        .await;
    }
}

struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// A certificate that is not taken shows with the first answer only: in TLS 1.3 the client is done before the server.
    async fn call(&mut self, headers: &[(&'static str, &str)]) -> Result<(u16, Value), hyper::Error> {
        let mut request = Request::post("/payments/mcp")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(Full::from(call("list")))
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let response: Response<_> = soon("an answer", self.0.send_request(request)).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status.as_u16(), serde_json::from_slice(&body).unwrap()))
    }
}

fn document() -> Value {
    json!({
        "schema_version": "v1",
        "server": {"name": "payments", "namespace": "acme"},
        "auth": {"mode": "mtls", "trust_domain": "prod.example"},
        "policy": {"mode": "allow-list"},
        "tools": [{"name": "list", "side_effect": "read"}],
        "grants": [{"name": "alice", "human_id": "alice", "max_trust": "high", "allowed_side_effects": ["read"]}],
        "sessions": [
            {"name": "s-alice", "human_id": "alice", "agent_id": "bot", "consented_trust": "high"},
            {"name": "s-gone", "human_id": "alice", "consented_trust": "high", "revoked": true},
            {"name": "s-over", "human_id": "alice", "consented_trust": "high", "expires_at": "2020-01-01T00:00:00Z"},
        ],
    })
}

fn reason(answer: &(u16, Value)) -> (u16, &str) {
    let (status, body) = answer;
    let reason = body["error"].as_str().or_else(|| body["error"]["data"]["reason"].as_str());
    (*status, reason.unwrap_or("passed"))
}

#[tokio::test]
async fn a_certificate_of_a_session_names_its_caller() {
    let listening = Listening::start(GatewayLimits::default()).await;
    let alice = listening.authority.make(&[SESSION]);
    let spoofed = [("x-mcp-human-id", "root"), ("x-mcp-verified-spiffe-id", PROXY)];
    let (status, body) = listening.call(Some(&alice), &spoofed).await;
    assert_eq!(status, 200, "{body}");
    let told = json!({"x-mcp-human-id": "alice", "x-mcp-agent-id": "bot", "x-mcp-agent-session": "s-alice"});
    assert_eq!(body["result"]["headers"], told);
    let payload = listening.governed.setup.event().await.payload;
    assert_eq!(payload.identity, Some(Identity::Verified));
    assert_eq!(payload.matched_session.as_deref(), Some("s-alice"));
}

#[tokio::test]
async fn every_certificate_that_names_no_living_session_is_refused() {
    let listening = Listening::start(GatewayLimits::default()).await;
    let authority = &listening.authority;
    let none = listening.call(None, &[("x-mcp-verified-spiffe-id", SESSION)]).await;
    assert_eq!(reason(&none), (401, "missing_client_certificate"));
    for (uris, expected) in [
        (vec![], "invalid_spiffe_identity"),
        (
            vec!["spiffe://other.example/ns/acme/session/s-alice"],
            "invalid_spiffe_identity",
        ),
        (vec!["spiffe://prod.example/ns/acme/sa/s-alice"], "invalid_spiffe_identity"),
        (
            vec!["https://prod.example/ns/acme/session/s-alice"],
            "invalid_spiffe_identity",
        ),
        (
            vec![SESSION, "spiffe://prod.example/ns/acme/session/s-root"],
            "ambiguous_spiffe_identity",
        ),
        (vec!["spiffe://prod.example/ns/acme/session/s-nobody"], "session_not_found"),
        (vec!["spiffe://prod.example/ns/other/session/s-alice"], "session_not_found"),
        (vec!["spiffe://prod.example/ns/acme/session/s-gone"], "session_revoked"),
        (vec!["spiffe://prod.example/ns/acme/session/s-over"], "session_expired"),
    ] {
        let answer = listening.call(Some(&authority.make(&uris)), &[]).await;
        assert_eq!(reason(&answer), (401, expected), "{uris:?}");
    }
    let strangers = Authority::new();
    for made in [strangers.make(&[SESSION]), authority.make_until(&[SESSION], 2_020)] {
        let refused = match listening.connect(Some(&made), authority).await {
            Err(_) => true,
            Ok(mut connection) => connection.call(&[]).await.is_err(),
        };
        assert!(refused, "the handshake must not come to an end");
    }
    assert_eq!(listening.governed.asked(), 0);
}

#[tokio::test]
async fn only_the_trusted_proxy_may_say_whose_certificate_it_checked() {
    let limits = GatewayLimits {
        identity: IdentityRules {
            external_base_url: None,
            trusted_proxy: Some(PROXY.to_owned()),
        },
        ..GatewayLimits::default()
    };
    let listening = Listening::start(limits).await;
    let proxy = listening.authority.make(&[PROXY]);
    let header = "x-mcp-verified-spiffe-id";
    let told = listening.call(Some(&proxy), &[(header, SESSION)]).await;
    assert_eq!(reason(&told), (200, "passed"));
    assert_eq!(
        told.1["result"]["headers"].get(header),
        None,
        "the server is told by the usual headers"
    );
    let silent = listening.call(Some(&proxy), &[]).await;
    assert_eq!(reason(&silent), (401, "missing_verified_identity"));
    let itself = listening.call(Some(&proxy), &[(header, PROXY)]).await;
    assert_eq!(reason(&itself), (401, "invalid_spiffe_identity"));
    let impostor = listening.authority.make(&["spiffe://prod.example/ns/acme/sa/mallory"]);
    let lied = listening.call(Some(&impostor), &[(header, SESSION)]).await;
    assert_eq!(reason(&lied), (401, "invalid_spiffe_identity"));
    let alice = listening.authority.make(&[SESSION]);
    assert_eq!(
        reason(&listening.call(Some(&alice), &[]).await),
        (200, "passed"),
        "she needs no proxy"
    );
}

#[tokio::test]
async fn files_are_replaced_without_a_restart_and_bad_ones_change_nothing() {
    let listening = Listening::start(GatewayLimits::default()).await;
    let (old, alice) = (&listening.authority, listening.authority.make(&[SESSION]));
    let mut open = listening.connect(Some(&alice), old).await.unwrap();
    assert_eq!(open.call(&[]).await.unwrap().0, 200);

    for (step, (name, text)) in [
        ("tls.crt", "no certificate".to_owned()),
        ("tls.key", String::new()),
        (
            "ca.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        ),
        // The key of another certificate.
        ("tls.key", Authority::new().make(&[]).key),
    ]
    .into_iter()
    .enumerate()
    {
        let good = fs::read(listening.path(name)).unwrap();
        let (failed, taken) = (listening.reloads("failed"), listening.reloads("ok"));
        fs::write(listening.path(name), text).unwrap();
        listening.until_reloads("failed", failed + 1).await;
        let answer = listening.call(Some(&alice), &[]).await;
        assert_eq!(reason(&answer), (200, "passed"), "step {step}: {name}");
        fs::write(listening.path(name), good).unwrap();
        listening.until_reloads("ok", taken + 1).await;
    }
    let failed = listening.reloads("failed");
    fs::remove_file(listening.path("ca.crt")).unwrap();
    listening.until_reloads("failed", failed + 1).await;
    assert_eq!(listening.call(Some(&alice), &[]).await.0, 200);

    let new = Authority::new();
    let taken = listening.reloads("ok");
    listening.write(&new.make(&[]), &new.pem());
    listening.until_reloads("ok", taken + 1).await;
    assert!(
        listening.connect(Some(&alice), old).await.is_err(),
        "the listener shows the new certificate"
    );
    let refused = match listening.connect(Some(&alice), &new).await {
        Err(_) => true,
        Ok(mut connection) => connection.call(&[]).await.is_err(),
    };
    assert!(refused, "certificates of the old authority are not taken any more");
    let mut renewed = listening.connect(Some(&new.make(&[SESSION])), &new).await.unwrap();
    assert_eq!(renewed.call(&[]).await.unwrap().0, 200);
    assert_eq!(open.call(&[]).await.unwrap().0, 200, "open connections stay");
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_takes_nothing_from_others() {
    let listening = Listening::start(GatewayLimits::default()).await;
    let mut plain = TcpStream::connect(listening.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"POST / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let silent = TcpStream::connect(listening.address).await.unwrap();
    let alice = listening.authority.make(&[SESSION]);
    assert_eq!(listening.call(Some(&alice), &[]).await.0, 200);
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut rest);
    drop(
        tokio::time::timeout(Duration::from_mins(1), read)
            .await
            .expect("the connection is closed"),
    );
    drop(silent);
}
