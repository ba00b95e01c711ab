//! Tokens for a registry: what their holder may do, signed by a key whose public half the registry has.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// How long a token is good: long enough for the largest layer, since registries look at it when a request begins.
pub(crate) const LIFE: Duration = Duration::from_mins(5);
/// Clocks of registries may be behind ours.
const LEEWAY: Duration = Duration::from_mins(1);

/// Signs tokens for a registry.
#[derive(Clone)]
pub struct RegistryTokens {
    issuer: String,
    service: String,
    kid: String,
    jwk: Value,
    key: EncodingKey,
}

impl fmt::Debug for RegistryTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryTokens")
            .field("issuer", &self.issuer)
            .field("service", &self.service)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// The signing key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryKeyError {
    #[error("reading the registry's signing key in {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("keeping a new signing key for the registry in {path}")]
    Keep {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("making a signing key for the registry")]
    Make(#[source] rcgen::Error),
    #[error("{0} holds no P-256 key in PEM")]
    Key(PathBuf),
}

impl RegistryTokens {
    /// With the key of a file, which is made, for its owner alone, when it is not there.
    ///
    /// `issuer` and `service` are what the registry's settings call them.
    pub fn open(path: &Path, issuer: impl Into<String>, service: impl Into<String>) -> Result<Self, RegistryKeyError> {
        let read = |source| RegistryKeyError::Read {
            path: path.to_owned(),
            source,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path)?,
            Err(error) => return Err(read(error)),
        };
        let unfit = || RegistryKeyError::Key(path.to_owned());
        let pair = KeyPair::from_pem(&text).map_err(|_| unfit())?;
        let key = EncodingKey::from_ec_pem(text.as_bytes()).map_err(|_| unfit())?;
        // An uncompressed point: 4, x, y.
        let [4, point @ ..] = pair.der_bytes() else {
            return Err(unfit());
        };
        let (Some(x), Some(y)) = (point.get(..32), point.get(32..64)) else {
            return Err(unfit());
        };
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // RFC 7638: the digest of the required members in order.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(thumbprint));
        Ok(Self {
            issuer: issuer.into(),
            service: service.into(),
            jwk: json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"}),
            kid,
            key,
        })
    }

    /// The public half, as the registry's `auth.token.jwks` wants it.
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// A token that lets `subject` do this.
    pub(crate) fn sign(
        &self,
        subject: &str,
        access: &[Access],
        id: &str,
        now: Timestamp,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::ES256)
        };
        let claims = json!({
            "iss": self.issuer,
            "aud": self.service,
            "sub": subject,
            "jti": id,
            "iat": now.seconds(),
            "nbf": now.minus(LEEWAY).seconds(),
            "exp": now.plus(LIFE).seconds(),
            "access": access,
        });
        encode(&header, &claims, &self.key)
    }
}

/// What a token gives of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Access {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) actions: Vec<&'static str>,
}

fn make(path: &Path) -> Result<Zeroizing<String>, RegistryKeyError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let pair = KeyPair::generate().map_err(RegistryKeyError::Make)?;
    let text = Zeroizing::new(pair.serialize_pem());
    let keep = |source| RegistryKeyError::Keep {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(keep)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(keep)?;
    Ok(text)
}
