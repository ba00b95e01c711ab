//! Cursors: where the next page of one question begins.
//!
//! A cursor is base64url (no padding) of JSON: `v` (version, 1), `d` (`older`, for lists with the newest first, or `later`, for
//! lists by arrival), `t` (time of the last event in nanoseconds, for `older`), `p` and `o` (its partition and offset), `s` and `u`
//! (the window as it was on the first page, so that `since=15m` does not move while somebody turns pages), and `q` (the question's
//! fingerprint). It holds nothing secret and gives no right: the caller's scope is applied anew to every page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Position, Timestamp};
use sentinel_store::query::Order;
use serde::{Deserialize, Serialize};
use service_kit::Problem;
use sha2::{Digest as _, Sha256};

use crate::params::invalid;

const VERSION: u8 = 1;

/// Longest cursor we read, in bytes.
const CURSOR_BYTES_MAX: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wire {
    v: u8,
    d: Direction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<i64>,
    p: u32,
    o: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<i64>,
    q: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Older,
    Later,
}

/// Where a page begins, and the window of its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) order: Order,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl Cursor {
    /// The text for the client, bound to a question. `None` when the order has no place yet.
    pub(crate) fn write(&self, question: &str) -> Option<String> {
        let (d, t, place) = match self.order {
            Order::Newest(Some((time, place))) => (Direction::Older, Some(time.nanos()), place),
            Order::Arrival(Some(place)) => (Direction::Later, None, place),
            Order::Newest(None) | Order::Arrival(None) => return None,
        };
        let wire = Wire {
            v: VERSION,
            d,
            t,
            p: place.partition,
            o: place.offset,
            s: self.since.map(Timestamp::nanos),
            u: self.until.map(Timestamp::nanos),
            q: fingerprint(question),
        };
        serde_json::to_vec(&wire).ok().map(|json| URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads what [`write`](Self::write) made for the same question.
    pub(crate) fn read(text: &str, question: &str) -> Result<Self, Problem> {
        let broken = || {
            invalid("`cursor` is not a cursor of this API".to_owned())
                .with_hint("take `meta.next_cursor` of the page before as it is, or start without one")
        };
        let json = (text.len() <= CURSOR_BYTES_MAX)
            .then(|| URL_SAFE_NO_PAD.decode(text).ok())
            .flatten()
            .ok_or_else(broken)?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|_| broken())?;
        if wire.v != VERSION {
            return Err(broken());
        }
        if wire.q != fingerprint(question) {
            return Err(invalid(
                "`cursor` belongs to another query: its filters, times or order differ from those given now".to_owned(),
            )
            .with_hint("follow `next` as it is, or start without a cursor"));
        }
        let place = Position {
            partition: wire.p,
            offset: wire.o,
        };
        let order = match (wire.d, wire.t) {
            (Direction::Older, Some(time)) => Order::Newest(Some((Timestamp::from_nanos(time), place))),
            (Direction::Later, None) => Order::Arrival(Some(place)),
            _ => return Err(broken()),
        };
        Ok(Self {
            order,
            since: wire.s.map(Timestamp::from_nanos),
            until: wire.u.map(Timestamp::from_nanos),
        })
    }
}

/// Tells questions apart; nobody gains by forging it.
fn fingerprint(question: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(question).into();
    digest.first_chunk::<8>().map(hex::encode).unwrap_or_default()
}

#[cfg(test)]
mod tests;
