//! TLS of a listener: certificate, key and the authorities of client certificates come as files, and are taken in again whenever a
//! file changes, without a restart and without touching open connections.
//!
//! Files that cannot be used (missing, broken, a key of another certificate) leave the last good ones in force; the log and a counter
//! say so. A client is asked for a certificate when there are authorities to check it against, and may come without one: what that
//! means is for the service to say. A certificate that none of the authorities signed ends the handshake.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::Chain;
use crate::tasks::{Stage, Tasks};

/// How often the files are looked at: certificates are replaced hours before they end.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Larger files are no certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificate, key and authorities are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities of client certificates; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    #[error("reading {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} has more than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("understanding {} as PEM", .0.display())]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("using the certificates of {}", .0.display())]
    Authority(PathBuf, #[source] rustls::Error),
    #[error("using the authorities of {}", .0.display())]
    Authorities(PathBuf, #[source] VerifierBuilderError),
    #[error("using the certificate of {} with the key of {}", .0.display(), .1.display())]
    Certificate(PathBuf, PathBuf, #[source] rustls::Error),
}

/// What a listener shows and asks for. Clones are the same; new connections take what is in force.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// The certificate that a client proved to hold the key of, in DER. One of the listener's authorities signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate(Arc<[u8]>);

impl PeerCertificate {
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

/// The handshake did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFault {
    #[error("agreeing on TLS with the client")]
    Refused(#[source] io::Error),
    #[error("the client took more than {HANDSHAKE_MAX:?} to agree on TLS")]
    Late,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

/// Time and size of the three files: enough to see a change.
type Picture = [Option<(SystemTime, u64)>; 3];

struct Watcher {
    files: TlsFiles,
    tls: Tls,
    reloads: Arc<Family<Reload, Counter>>,
    seen: Picture,
    is_faulty: bool,
}

impl Tls {
    /// What is held in memory; whoever holds it may [`replace`](Self::replace) it.
    pub fn of(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::from(config)))
    }

    /// Puts this in force for connections from now on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }

    /// Takes in the files, now and whenever one changes. They must be good to begin with.
    pub async fn watch(files: TlsFiles, tasks: &Tasks) -> Result<Self, TlsFault> {
        let reloads = tasks.metrics().register("service_kit", |registry| {
            let reloads = Family::<Reload, Counter>::default();
            registry.register("tls_reloads", "Certificate files taken in, by result", reloads.clone());
            reloads
        });
        let seen = picture(&files).await;
        let tls = Self(Arc::new(ArcSwap::from(load(&files).await?)));
        let mut watcher = Watcher {
            files,
            tls: tls.clone(),
            reloads,
            seen,
            is_faulty: false,
        };
        let stop = tasks.shutdown(Stage::Intake);
        tasks.spawn(Stage::Intake, "certificate files", async move {
            while stop.or(tokio::time::sleep(LOOK_PAUSE)).await.is_some() {
                watcher.look().await;
            }
            Ok(())
        });
        Ok(tls)
    }

    /// Agrees on TLS with a client, and gives its certificate if it showed one.
    pub async fn accept<Io: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: Io,
    ) -> Result<(TlsStream<Io>, Option<PeerCertificate>), HandshakeFault> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        let stream = timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
        let stream = stream.map_err(|_| HandshakeFault::Late)?.map_err(HandshakeFault::Refused)?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let shown = shown.map(|certificate| PeerCertificate(certificate.as_ref().into()));
        Ok((stream, shown))
    }
}

impl Watcher {
    async fn look(&mut self) {
        let picture = picture(&self.files).await;
        // Two files are replaced one after the other, so a fault is looked at again even when nothing seems to have changed.
        if picture == self.seen && !self.is_faulty {
            return;
        }
        let is_news = picture != self.seen;
        self.seen = picture;
        let certificate = self.files.certificate.display();
        match load(&self.files).await {
            Ok(config) => {
                self.tls.0.store(config);
                self.is_faulty = false;
                self.count("ok");
                tracing::info!(%certificate, "certificate taken in");
            }
            Err(fault) => {
                self.is_faulty = true;
                if is_news {
                    self.count("failed");
                    tracing::warn!(%certificate, error = %Chain(&fault), "the certificate files cannot be used; the last good ones stay in force");
                }
            }
        }
    }

    fn count(&self, result: &'static str) {
        self.reloads.get_or_create(&Reload { result }).inc();
    }
}

async fn picture(files: &TlsFiles) -> Picture {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    let mut picture = Picture::default();
    for (slot, path) in picture.iter_mut().zip(paths) {
        if let Some(path) = path {
            let facts = tokio::fs::metadata(path).await.ok();
            *slot = facts.and_then(|facts| Some((facts.modified().ok()?, facts.len())));
        }
    }
    picture
}

async fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsFault> {
    let chain = certificates(&files.certificate).await?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key).await?);
    let key = key.map_err(|error| TlsFault::Pem(files.key.clone(), error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = protocols(Arc::clone(&provider));
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut authorities = RootCertStore::empty();
            for certificate in certificates(path).await? {
                let added = authorities.add(certificate);
                added.map_err(|error| TlsFault::Authority(path.clone(), error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                .allow_unauthenticated()
                .build();
            builder.with_client_cert_verifier(verifier.map_err(|error| TlsFault::Authorities(path.clone(), error))?)
        }
    };
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| TlsFault::Certificate(files.certificate.clone(), files.key.clone(), error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS 1.2 and 1.3, which ring speaks both of.
fn protocols(provider: Arc<rustls::crypto::CryptoProvider>) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = read(path).await?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| TlsFault::Pem(path.to_owned(), error))?;
    if all.is_empty() {
        return Err(TlsFault::NoCertificate(path.to_owned()));
    }
    Ok(all)
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let failed = |error| TlsFault::Read(path.to_owned(), error);
    if tokio::fs::metadata(path).await.map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(TlsFault::TooLarge(path.to_owned()));
    }
    tokio::fs::read(path).await.map_err(failed)
}
