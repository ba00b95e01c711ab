//! Passwords: argon2id, off the threads that answer requests, and a bounded number at a time, since each takes 19 MiB.

use std::fmt;
use std::ops::Deref;
use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use serde::{Deserialize, Deserializer};
use service_kit::Problem;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Shortest password, in characters.
pub(crate) const CHARACTERS_MIN: usize = 12;
/// Longest password, in bytes: enough for any sentence, and too little to keep a processor busy.
const BYTES_MAX: usize = 1_024;
/// Hashes made at the same time.
const AT_ONCE_MAX: usize = 4;

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// A hash of nothing anybody knows, compared with when there is no account, so that time does not tell whether there is.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash_now(b"nobody knows this"));

/// A password or token as it came, wiped when dropped and never part of `Debug`.
#[derive(Clone)]
pub(crate) struct Password(Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Deref for Password {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Whether a password may be chosen.
pub(crate) fn check(password: &str, email: &str) -> Result<(), Problem> {
    let unfit = |text: String| Err(Problem::unprocessable(text).with_code("weak_password"));
    if password.chars().count() < CHARACTERS_MIN {
        return unfit(format!("the password has fewer than {CHARACTERS_MIN} characters"));
    }
    if password.len() > BYTES_MAX {
        return unfit(format!("the password has more than {BYTES_MAX} bytes"));
    }
    let name = email.split('@').next().unwrap_or_default();
    let first = password.chars().next();
    if password.eq_ignore_ascii_case(email) || (name.len() > 3 && password.eq_ignore_ascii_case(name)) {
        return unfit("the password is the e-mail address".to_owned());
    }
    if password.chars().all(|char| Some(char) == first) {
        return unfit("the password is one character again and again".to_owned());
    }
    Ok(())
}

/// What is kept of a password.
pub(crate) async fn hash(password: Password) -> Result<String, Problem> {
    let hashed = work(move || hash_now(password.as_bytes())).await?;
    hashed.ok_or_else(|| Problem::internal(anyhow::anyhow!("hashing a password")))
}

/// Whether a password is the one that is kept. Takes as long when nothing is kept.
pub(crate) async fn matches(password: Password, kept: Option<String>) -> Result<bool, Problem> {
    if password.len() > BYTES_MAX {
        return Ok(false);
    }
    work(move || {
        let known = kept.is_some();
        let Some(text) = kept.or_else(|| NOBODY.clone()) else {
            return false;
        };
        let right =
            PasswordHash::new(&text).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        known && right
    })
    .await
}

fn hash_now(password: &[u8]) -> Option<String> {
    Argon2::default().hash_password(password).ok().map(|hash| hash.to_string())
}

async fn work<T: Send + 'static>(hashing: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let _place = PLACES.acquire().await.map_err(Problem::internal)?;
    tokio::task::spawn_blocking(hashing).await.map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::from(text.to_owned())
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let kept = hash(password("correct horse battery")).await.unwrap();
        assert!(kept.starts_with("$argon2id$"), "{kept}");
        assert!(matches(password("correct horse battery"), Some(kept.clone())).await.unwrap());
        assert!(!matches(password("correct horse batterz"), Some(kept)).await.unwrap());
        assert!(!matches(password("nobody knows this"), None).await.unwrap());
    }

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        for (text, why) in [
            ("short", "fewer than 12"),
            ("aaaaaaaaaaaaaaa", "again and again"),
            ("ada.lovelace@example.com", "e-mail address"),
            (&"x".repeat(2_000), "more than 1024"),
        ] {
            let problem = check(text, "ada.lovelace@example.com").unwrap_err();
            assert!(problem.message.contains(why), "{}", problem.message);
        }
        assert!(check("correct horse battery", "ada@example.com").is_ok());
    }
}
