//! Judging one token, given the key it names. No clock and no network.

use domain::event::NamespaceRule;
use domain::{Namespace, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::Key;
use crate::keys::{ANY_NAMESPACE, Grant};

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How far the provider's clock and ours may be apart.
const LEEWAY_SECONDS: i64 = 30;
/// Most namespaces of one token.
const NAMESPACES_MAX: usize = 1_000;
/// Longest subject that is repeated in events.
const SUBJECT_CHARS_MAX: usize = 100;

/// What is wrong with a token. The sentences are for whoever sent it, and tell nothing of what would be right but names of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("the bearer token is not a signed JWT")]
    Form,
    #[error("the bearer token is signed with an algorithm that is not taken; use RS, PS, ES or EdDSA")]
    Algorithm,
    #[error("the bearer token names a key that its issuer does not publish")]
    Key,
    #[error("the signature of the bearer token is wrong")]
    Signature,
    #[error("the bearer token is of another issuer")]
    Issuer,
    #[error("the bearer token is not for this audience")]
    Audience,
    #[error("the bearer token has no expiry")]
    NoExpiry,
    #[error("the bearer token has expired")]
    Expired,
    #[error("the bearer token is not valid yet")]
    NotYet,
    #[error("the bearer token names no namespace that it may write")]
    Namespaces,
}

/// What a token says of itself before it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
}

impl Header {
    pub(crate) fn of(token: &str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX || token.split('.').count() != 3 {
            return Err(TokenFault::Form);
        }
        // `none` and what else is no algorithm fails to be read at all.
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Form)?;
        if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Err(TokenFault::Algorithm);
        }
        Ok(Self {
            algorithm: header.alg,
            kid: header.kid,
        })
    }
}

/// What every token has to say.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) namespaces_claim: String,
}

/// The claims we ask for, in the types that RFC 7519 gives them.
#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    sub: Option<Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Rules {
    /// What the token grants, and until when.
    pub(super) fn verify(
        &self,
        token: &str,
        header: &Header,
        key: &Key,
        now: Timestamp,
    ) -> Result<(Grant, Timestamp), TokenFault> {
        // Only the signature: the library compares times with the system's clock, and takes lists where one issuer belongs.
        let mut validation = Validation::new(header.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Claims = jsonwebtoken::decode(token, &key.verifier, &validation)
            .map_err(|_| TokenFault::Signature)?
            .claims;
        if claims.iss.as_ref().and_then(Value::as_str) != Some(&self.issuer) {
            return Err(TokenFault::Issuer);
        }
        if !texts(claims.aud.as_ref()).contains(&self.audience.as_str()) {
            return Err(TokenFault::Audience);
        }
        let expires_at = seconds(claims.exp.as_ref().ok_or(TokenFault::NoExpiry)?).ok_or(TokenFault::NoExpiry)?;
        let leeway = std::time::Duration::from_secs(LEEWAY_SECONDS.unsigned_abs());
        let expires_at = expires_at.plus(leeway);
        if expires_at <= now {
            return Err(TokenFault::Expired);
        }
        if let Some(begin) = &claims.nbf
            && seconds(begin).is_none_or(|begin| begin > now.plus(leeway))
        {
            return Err(TokenFault::NotYet);
        }
        let subject = claims.sub.as_ref().and_then(Value::as_str).unwrap_or_default();
        let id = ["oidc:"]
            .into_iter()
            .flat_map(str::chars)
            .chain(subject.chars().take(SUBJECT_CHARS_MAX));
        let rule = rule(claims.others.get(&self.namespaces_claim)).ok_or(TokenFault::Namespaces)?;
        Ok((Grant { id: id.collect(), rule }, expires_at))
    }
}

/// A text, or the texts of a list; a list with anything else in it is none.
fn texts(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>().unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Whole or broken seconds since the epoch; whatever is no time that can be told is none.
fn seconds(claim: &Value) -> Option<Timestamp> {
    const FAR: f64 = 9_000_000_000.0;
    let seconds = claim.as_f64().filter(|seconds| (0.0..FAR).contains(seconds))?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within bounds")]
    let whole = seconds as i64;
    Some(Timestamp::from_seconds(whole))
}

fn rule(claim: Option<&Value>) -> Option<NamespaceRule> {
    let mut names = texts(claim);
    names.sort_unstable();
    names.dedup();
    if names == [ANY_NAMESPACE] {
        return Some(NamespaceRule::Any);
    }
    if names.len() > NAMESPACES_MAX {
        return None;
    }
    // One name that cannot be a namespace makes the whole claim doubtful.
    let mut namespaces: Vec<_> = names.into_iter().map(Namespace::parse).collect::<Result<_, _>>().ok()?;
    match namespaces.len() {
        0 => None,
        1 => namespaces.pop().map(|only| NamespaceRule::Only(only, None)),
        _ => Some(NamespaceRule::OneOf(namespaces.into())),
    }
}
