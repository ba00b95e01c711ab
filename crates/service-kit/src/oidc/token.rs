//! Judging one token, given the key it names. No clock and no network.

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::Key;

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How far the issuer's clock and ours may be apart.
const LEEWAY_NS: i64 = 60 * NS_PER_SECOND;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// What is wrong with a token. The sentences are for whoever sent it, and tell nothing of what would be right but names of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("the bearer token is not a signed JWT")]
    Form,
    #[error("the bearer token is signed with an algorithm that is not taken; use RS, PS, ES or EdDSA")]
    Algorithm,
    #[error("the bearer token is a JWT of another type than an access token")]
    Type,
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
}

/// What a token says of itself before it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
}

impl Header {
    pub(super) fn of(token: &str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX || token.split('.').count() != 3 {
            return Err(TokenFault::Form);
        }
        // `none` and what else is no algorithm fails to be read at all.
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Form)?;
        if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
            return Err(TokenFault::Algorithm);
        }
        // RFC 7515: what is marked as critical must be understood, and we understand none of it.
        if header.crit.is_some() {
            return Err(TokenFault::Form);
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(TokenFault::Type);
        }
        Ok(Self {
            algorithm: header.alg,
            kid: header.kid,
        })
    }
}

/// RFC 9068 has a type of its own; most issuers write the general one.
fn is_access_token(typ: &str) -> bool {
    let typ = typ
        .get(..12)
        .filter(|start| start.eq_ignore_ascii_case("application/"))
        .map_or(typ, |_| typ.get(12..).unwrap_or_default());
    ["jwt", "at+jwt", "bearer"]
        .iter()
        .any(|known| typ.eq_ignore_ascii_case(known))
}

/// A token that was verified, and what it claims.
#[derive(Clone, Debug)]
pub struct Token {
    audiences: Vec<String>,
    expires_at_ns: i64,
    claims: Map<String, Value>,
}

/// The claims we ask for, in the types that RFC 7519 gives them.
#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Token {
    pub(super) fn verify(token: &str, header: &Header, key: &Key, issuer: &str, now_ns: i64) -> Result<Self, TokenFault> {
        // Only the signature: the library compares times with the system's clock, and takes lists where one issuer belongs.
        let mut validation = Validation::new(header.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Claims = jsonwebtoken::decode(token, &key.verifier, &validation)
            .map_err(|_| TokenFault::Signature)?
            .claims;
        if claims.iss.as_ref().and_then(Value::as_str) != Some(issuer) {
            return Err(TokenFault::Issuer);
        }
        let expires_at_ns = claims.exp.as_ref().and_then(nanoseconds).ok_or(TokenFault::NoExpiry)? + LEEWAY_NS;
        if expires_at_ns <= now_ns {
            return Err(TokenFault::Expired);
        }
        if let Some(begin) = &claims.nbf
            && nanoseconds(begin).is_none_or(|begin| begin > now_ns.saturating_add(LEEWAY_NS))
        {
            return Err(TokenFault::NotYet);
        }
        Ok(Self {
            audiences: texts(claims.aud.as_ref()).into_iter().map(str::to_owned).collect(),
            expires_at_ns,
            claims: claims.others,
        })
    }

    /// Whether it was made for this audience, too.
    pub fn is_for(&self, audience: &str) -> bool {
        self.audiences.iter().any(|named| named == audience)
    }

    /// When it stops to be good, the leeway included.
    pub fn expires_at_ns(&self) -> i64 {
        self.expires_at_ns
    }

    /// Who it is about; empty when it does not say.
    pub fn subject(&self) -> &str {
        self.text("sub").unwrap_or_default()
    }

    /// A claim that is one text, and not an empty one.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str().filter(|text| !text.is_empty())
    }

    /// A claim that is a text, or a list of texts; a list with anything else in it says nothing.
    pub fn texts(&self, claim: &str) -> Vec<&str> {
        texts(self.claims.get(claim))
    }
}

fn texts(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>().unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Whole or broken seconds since the epoch; whatever is no time that can be told is none.
fn nanoseconds(claim: &Value) -> Option<i64> {
    const FAR: f64 = 9_000_000_000.0;
    let seconds = claim.as_f64().filter(|seconds| (0.0..FAR).contains(seconds))?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within bounds")]
    let whole = seconds as i64;
    Some(whole * NS_PER_SECOND)
}
