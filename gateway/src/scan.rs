//! Reading answers while they pass: what matters is picked out of JSON and server-sent events of any length in constant memory.

mod json;
mod sse;

pub(crate) use json::{Found, JsonScan, same_id};
pub(crate) use sse::SseScan;
