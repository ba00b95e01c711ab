//! Who asks: the pod that a token is bound to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::object::Key;

/// Audience of the tokens that gateways show: whoever gets hold of one can use it nowhere else.
pub const AUDIENCE: &str = "mcp-operator";
/// How long an answer holds. A deleted pod's token is refused after this.
const REMEMBERED: Duration = Duration::from_mins(2);
/// Most answers that are remembered.
const REMEMBERED_MAX: usize = 16_384;
/// Most questions to the API server at a time.
const QUESTIONS_MAX: usize = 16;
/// Longer texts are no tokens.
const TOKEN_BYTES_MAX: usize = 16 << 10;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Why nobody is known by a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It will never be one.
    #[error("the token is not one that Kubernetes projects for audience {AUDIENCE} into a pod")]
    Refused,
    /// The API server could not be asked.
    #[error("asking the API server about a token")]
    Unknown(#[source] Box<kube::Error>),
}

/// Asks the API server about tokens, and remembers good answers for a while.
#[derive(Debug)]
pub struct TokenReviews {
    api: Api<TokenReview>,
    questions: Semaphore,
    known: Mutex<HashMap<[u8; 32], (Key, Instant)>>,
}

impl TokenReviews {
    pub fn new(client: &Client) -> Self {
        Self {
            api: Api::all(client.clone()),
            questions: Semaphore::new(QUESTIONS_MAX),
            known: Mutex::default(),
        }
    }

    /// The pod that a token is bound to.
    pub async fn pod(&self, token: &str) -> Result<Key, TokenError> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Refused);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(pod) = self.remembered(&digest) {
            return Ok(pod);
        }
        let _turn = self.questions.acquire().await;
        // Another request may have asked meanwhile.
        if let Some(pod) = self.remembered(&digest) {
            return Ok(pod);
        }
        let question = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            ..TokenReview::default()
        };
        let answer = self.api.create(&PostParams::default(), &question).await;
        let answer = answer.map_err(|error| TokenError::Unknown(Box::new(error)))?;
        let pod = answer.status.as_ref().and_then(pod_of).ok_or(TokenError::Refused)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        }
        if known.len() < REMEMBERED_MAX {
            known.insert(digest, (pod.clone(), Instant::now()));
        }
        Ok(pod)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Key> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (pod, since) = known.get(digest)?;
        (since.elapsed() < REMEMBERED).then(|| pod.clone())
    }
}

/// The pod that an answer names; `None` unless the token is good, for us, and bound to a pod.
fn pod_of(status: &TokenReviewStatus) -> Option<Key> {
    let is_for_us = status.audiences.as_ref()?.iter().any(|audience| audience == AUDIENCE);
    if status.authenticated != Some(true) || !is_for_us {
        return None;
    }
    let user = status.user.as_ref()?;
    let account = user.username.as_ref()?.strip_prefix(SERVICE_ACCOUNT)?;
    let (namespace, _) = account.split_once(':')?;
    let name = user.extra.as_ref()?.get(POD_NAME)?.first()?;
    Some(Key::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(change: &Value) -> Option<Key> {
        let mut status = json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:team:default",
                "extra": { POD_NAME: ["payments-1"] },
            },
        });
        crate::testing::merge(&mut status, change);
        pod_of(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn only_a_good_token_for_us_of_a_pod_names_one() {
        assert_eq!(answer(&json!({})), Some(Key::new("team", "payments-1")));
        for refused in [
            json!({ "authenticated": false }),
            json!({ "audiences": ["https://kubernetes.default.svc"] }),
            json!({ "audiences": null }),
            json!({ "user": { "username": "ada" } }),
            json!({ "user": { "username": "system:node:a" } }),
            json!({ "user": { "extra": null } }),
            json!({ "user": { "extra": { POD_NAME: [] } } }),
        ] {
            assert_eq!(answer(&refused), None, "{refused}");
        }
    }
}
