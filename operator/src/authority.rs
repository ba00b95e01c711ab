//! Keeps the operator's certificate in a Secret, so that every operator of the cluster shows the same one, and gives it to who serves.
//!
//! The Secret is in the operator's own namespace. Each write names the version it read, so of two operators that start together one
//! writes and the other reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use service_kit::error::Chain;
use service_kit::{Clock, Shutdown};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::apply::status_code;
use crate::certificate::{Material, renewed};
use crate::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_US};

/// Name of the Secret.
pub const SECRET_NAME: &str = "mcp-operator-tls";
/// Annotations that say when certificate and authority end, in seconds since 1970, and for which names.
const ENDS: &str = "mcpruntime.org/certificate-ends";
const AUTHORITY_ENDS: &str = "mcpruntime.org/authority-ends";
const NAMES: &str = "mcpruntime.org/certificate-names";
/// How often it is looked at, and how soon again after a fault.
const PAUSE: Duration = Duration::from_mins(30);
const PAUSE_AFTER_FAULT: Duration = Duration::from_secs(2);
/// Tries against rivals that write at the same time.
const TRIES_MAX: usize = 5;

/// What servers of TLS need, and what their clients need.
#[derive(Debug, Clone)]
pub struct Held {
    /// Authorities to believe, as PEM.
    pub authorities: Arc<str>,
    pub server: Arc<ServerConfig>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("reading Secret {SECRET_NAME}")]
    Read(#[source] Box<kube::Error>),
    #[error("writing Secret {SECRET_NAME}")]
    Write(#[source] Box<kube::Error>),
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    #[error("using the certificate of Secret {SECRET_NAME}; delete the Secret to have a new one made")]
    Use(#[from] rustls::Error),
    #[error("reading the certificate of Secret {SECRET_NAME}; delete the Secret to have a new one made")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("others keep writing Secret {SECRET_NAME}")]
    Rivals,
}

/// Keeps the certificate.
#[derive(Debug)]
pub struct Authority {
    api: Api<Secret>,
    names: Vec<String>,
    clock: Clock,
    held: watch::Sender<Option<Held>>,
}

impl Authority {
    /// For a certificate with these names, kept in a namespace.
    pub fn new(client: &Client, namespace: &str, names: Vec<String>, clock: Clock) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            names,
            clock,
            held: watch::Sender::new(None),
        }
    }

    /// What is held now and later.
    pub fn held(&self) -> watch::Receiver<Option<Held>> {
        self.held.subscribe()
    }

    /// Looks after the certificate until shutdown.
    pub async fn keep(self, stop: Shutdown) {
        loop {
            let pause = match stop.or(self.look()).await {
                None => return,
                Some(Ok(())) => PAUSE,
                Some(Err(error)) => {
                    tracing::error!(error = %Chain(&error), "there is no certificate for policies and reviews; trying again");
                    PAUSE_AFTER_FAULT
                }
            };
            if stop.or(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Reads the Secret, renews what ends, and hands it out.
    pub async fn look(&self) -> Result<(), AuthorityError> {
        let now = self.clock.unix_ns() / 1_000_000_000;
        for _ in 0..TRIES_MAX {
            let found = self.api.get_opt(SECRET_NAME).await;
            let found = found.map_err(|error| AuthorityError::Read(Box::new(error)))?;
            let held = found.as_ref().and_then(read);
            let Some(material) = renewed(held.as_ref(), &self.names, now)? else {
                return held.map_or(Err(AuthorityError::Rivals), |held| self.hand_out(&held));
            };
            match self.write(found.as_ref(), &material).await {
                Ok(_) => {
                    tracing::info!(ends = material.ends, "a new certificate is in place");
                    return self.hand_out(&material);
                }
                // A rival was quicker: what it wrote will do.
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(AuthorityError::Write(Box::new(error))),
            }
        }
        Err(AuthorityError::Rivals)
    }

    async fn write(&self, found: Option<&Secret>, material: &Material) -> Result<Secret, kube::Error> {
        let mut secret = secret(material);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match found {
            None => self.api.create(&params, &secret).await,
            Some(found) => {
                secret.metadata.resource_version = found.resource_version();
                self.api.replace(SECRET_NAME, &params, &secret).await
            }
        }
    }

    fn hand_out(&self, material: &Material) -> Result<(), AuthorityError> {
        let is_known = |held: &Option<Held>| held.as_ref().is_some_and(|held| *held.authorities == *material.authorities);
        let server = Arc::new(server_config(material)?);
        let authorities = match &*self.held.borrow() {
            // The same authorities stay the same text, so that nobody compares it byte by byte.
            held @ Some(known) if is_known(held) => Arc::clone(&known.authorities),
            _ => Arc::from(material.authorities.as_str()),
        };
        self.held.send_replace(Some(Held { authorities, server }));
        Ok(())
    }
}

fn server_config(material: &Material) -> Result<ServerConfig, AuthorityError> {
    let chain = CertificateDer::pem_slice_iter(material.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn secret(material: &Material) -> Secret {
    let data = [
        ("ca.crt", &material.authorities),
        ("ca.key", &material.authority_key),
        ("tls.crt", &material.certificate),
        ("tls.key", &material.key),
    ];
    let annotations = [
        (AUTHORITY_ENDS, material.authority_ends.to_string()),
        (ENDS, material.ends.to_string()),
        (NAMES, material.names.join(",")),
    ];
    let mut secret = Secret {
        data: Some(
            data.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())))
                .into(),
        ),
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    };
    secret.metadata.name = Some(SECRET_NAME.to_owned());
    secret.metadata.labels = Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGED_BY_US.to_owned())]));
    secret.metadata.annotations = Some(annotations.map(|(name, value)| (name.to_owned(), value)).into());
    secret
}

/// What a Secret holds; `None` when it is not ours or not whole.
fn read(secret: &Secret) -> Option<Material> {
    let text = |name: &str| String::from_utf8(secret.data.as_ref()?.get(name)?.0.clone()).ok();
    let note = |name: &str| secret.annotations().get(name);
    Some(Material {
        authorities: text("ca.crt")?,
        authority_key: text("ca.key")?,
        authority_ends: note(AUTHORITY_ENDS)?.parse().ok()?,
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
        ends: note(ENDS)?.parse().ok()?,
        names: note(NAMES)?.split(',').map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_back_what_was_put_in() {
        let material = renewed(None, &["127.0.0.1".to_owned(), "a.svc".to_owned()], 1_800_000_000)
            .unwrap()
            .unwrap();
        assert_eq!(read(&secret(&material)), Some(material.clone()));
        assert!(server_config(&material).is_ok());
        assert_eq!(read(&Secret::default()), None);
    }
}
