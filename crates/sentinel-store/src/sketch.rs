//! Mergeable summaries: latencies and distinct counts.
//!
//! Both are functions of the *multiset* (latencies) or *set* (distinct values) that went in: the order of adding and merging never
//! shows, neither in answers nor in bytes. That is what makes rollups, single events and any mixture of the two give the same
//! answer. Everything is whole numbers; no step depends on a platform's floating point, so bytes written on one machine mean the
//! same on another.
//!
//! Why not a crate: `sketches-ddsketch` keeps dense bins and writes a float sum, whose last bits depend on the order of merging;
//! `hyperloglogplus` keeps its parts private, serialises only through serde, and its bytes depend on the order of insertion.

mod distinct;
mod latency;

pub use distinct::DistinctSketch;
pub use latency::LatencySketch;

/// Bytes that are no sketch: cut off, not in order, or of a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reading a {0} sketch")]
pub struct NotASketch(&'static str);

/// Appends a number in groups of seven bits, lowest first, the high bit telling that more follow.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Takes such a number off the front; `None` when the bytes end within it or it exceeds 64 bits.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
