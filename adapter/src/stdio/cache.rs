//! Lists of tools kept in memory for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::message::Message;
use crate::reply::under_id;

const PAGES_MAX: usize = 64;
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Results of `tools/list` by version and cursor.
#[derive(Debug)]
pub(super) struct ToolsCache {
    ttl: Option<Duration>,
    pages: Mutex<HashMap<Key, Page>>,
}

/// Version and raw cursor of a request.
type Key = (Option<String>, Option<String>);

#[derive(Debug)]
struct Page {
    result: Box<RawValue>,
    until: Instant,
}

impl ToolsCache {
    pub(super) fn new(ttl: Option<Duration>) -> Self {
        Self {
            ttl,
            pages: Mutex::default(),
        }
    }

    fn key(&self, message: &Message) -> Option<Key> {
        let is_ours = self.ttl.is_some() && message.is_method("tools/list") && message.params.is_plain;
        is_ours.then(|| (message.params.version.clone(), message.params.cursor.clone()))
    }

    /// The answer to a request, when it is known.
    pub(super) fn answer(&self, message: &Message) -> Option<Bytes> {
        let key = self.key(message)?;
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.get(&key).filter(|page| page.until > Instant::now())?;
        Some(under_id(message.id.as_deref()?, "result", &page.result))
    }

    /// Keeps the result of a request, for as long as both the option and the server allow.
    pub(super) fn keep(&self, message: &Message, result: &RawValue) {
        #[derive(Deserialize)]
        struct Life {
            #[serde(rename = "ttlMs")]
            ttl_ms: Option<u64>,
        }
        let (Some(key), Some(ttl)) = (self.key(message), self.ttl) else {
            return;
        };
        let named = serde_json::from_str::<Life>(result.get()).ok().and_then(|life| life.ttl_ms);
        let ttl = named.map_or(ttl, |named| ttl.min(Duration::from_millis(named)));
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pages.retain(|_, page| page.until > now);
        if pages.len() < PAGES_MAX && result.get().len() <= PAGE_BYTES_MAX {
            let result = result.to_owned();
            pages.insert(
                key,
                Page {
                    result,
                    until: now + ttl,
                },
            );
        }
    }

    pub(super) fn clear(&self) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &'static str) -> Message {
        Message::parse(Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_page_is_answered_under_the_new_id_until_its_time_or_a_change() {
        let cache = ToolsCache::new(Some(Duration::from_mins(1)));
        let first = list(r#"{"id":1,"method":"tools/list","params":{}}"#);
        let again = list(r#"{"id":"b","method":"tools/list"}"#);
        let other = list(r#"{"id":3,"method":"tools/list","params":{"cursor":"2"}}"#);
        cache.keep(&first, &raw(r#"{"tools":[]}"#));
        assert_eq!(
            cache.answer(&again).unwrap(),
            r#"{"jsonrpc":"2.0","id":"b","result":{"tools":[]}}"#
        );
        assert_eq!(cache.answer(&other), None);
        cache.clear();
        assert_eq!(cache.answer(&again), None);
        cache.keep(&first, &raw(r#"{"tools":[],"ttlMs":0}"#));
        assert_eq!(cache.answer(&again), None);
        for ttl in [None, Some(Duration::ZERO)] {
            let brief = ToolsCache::new(ttl);
            brief.keep(&first, &raw(r#"{"tools":[]}"#));
            assert_eq!(brief.answer(&again), None);
        }
    }
}
