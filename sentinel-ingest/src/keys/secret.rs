//! The text of a key, and what is kept of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

const PREFIX: &str = "mcpi_";
const ID_LENGTH: usize = 12;
/// 43 of 62 letters carry 256 bits.
const SECRET_LENGTH: usize = 43;
const SECRET_LENGTH_LEAST: usize = 32;
const SECRET_LENGTH_MOST: usize = 128;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a whole key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyHash([u8; 32]);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Compares in a time that tells nothing of where they differ.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyHash").finish_non_exhaustive()
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| serde::de::Error::custom("hash: expected 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

/// The id within a key; `None` when the text has not the form of a key.
pub(crate) fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let fits = is_id(id) && (SECRET_LENGTH_LEAST..=SECRET_LENGTH_MOST).contains(&secret.len()) && alphanumeric(secret);
    fits.then_some(id)
}

pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && alphanumeric(text)
}

fn alphanumeric(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A fresh id and the whole key around it.
pub(crate) fn fresh() -> Result<(String, String), getrandom::Error> {
    let (id, secret) = (letters(ID_LENGTH)?, letters(SECRET_LENGTH)?);
    let key = format!("{PREFIX}{id}_{secret}");
    Ok((id, key))
}

/// Random letters, each of the 62 equally likely.
fn letters(count: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0_u8; 64];
    while text.len() < count {
        getrandom::fill(&mut bytes)?;
        // 248 is the largest multiple of 62 in a byte; what lies above would favour the first letters.
        let fair = bytes
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(LETTERS[usize::from(*byte) % 62]));
        text.extend(fair.take(count - text.len()));
    }
    Ok(text)
}
