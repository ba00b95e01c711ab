//! An HTTP answer, read whole, that can be shown.

use std::fmt;

use reqwest::header::HeaderMap;
use serde_json::Value;

/// Longest part of a body that a failure shows.
const SHOWN_CHARS_MAX: usize = 2_000;

/// An answer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The body as JSON; `Null` when it is none.
    pub(crate) body: Value,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().take(SHOWN_CHARS_MAX).collect();
        write!(f, "{} {:?} {shown}", self.status, self.headers)
    }
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Self {
            status,
            headers,
            text,
            body,
        })
    }

    /// The word for programs in a refusal.
    pub(crate) fn code(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The answer, when it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16, what: &str) -> Self {
        assert_eq!(self.status, status, "{what}: {self:?}");
        self
    }

    /// Whether it is a refusal that a person and a program can read.
    pub(crate) fn is_clear_refusal(&self) -> Result<(), String> {
        let clear = (400..500).contains(&self.status)
            && !self.code().is_empty()
            && self.body["message"].as_str().is_some_and(|text| text.len() > 5);
        if clear {
            Ok(())
        } else {
            Err(format!("no clear refusal: {self:?}"))
        }
    }

    /// Events taken and events recognised as repeats within the body.
    pub(crate) fn taken(&self) -> Option<(u64, u64)> {
        let number = |name: &str| self.body[name].as_u64();
        (self.status == 202).then_some(())?;
        Some((number("accepted")?, number("duplicates")?))
    }
}
