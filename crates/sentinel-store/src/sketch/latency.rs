//! How long calls took: counts per bucket of a logarithmic scale (a `DDSketch` with the linearly interpolated mapping).
//!
//! Every power of two is cut into 64 buckets of equal width, so a bucket is at most 1/64 of its values wide and its middle at most
//! 1/128 (0.8 %) off; below 128 every number has a bucket of its own. The bucket follows from bit operations alone.
//!
//! Bytes, version 1: `01`, then for each bucket that is not empty, in order: the bucket's number less that of the one before (the
//! first: its number), and its count, each as a varint.

use super::{NotASketch, put_varint, take_varint};

const VERSION: u8 = 1;
/// Buckets per power of two, as a power of two.
const SUB_BITS: u32 = 6;
/// The bucket of `u64::MAX`.
const BUCKET_MAX: u16 = 3_775;
const NOT_ONE: NotASketch = NotASketch("latency");

/// A summary of latencies in microseconds, from which every percentile can be told within 1 %.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatencySketch {
    /// Buckets that are not empty, by number.
    buckets: Vec<(u16, u64)>,
    count: u64,
}

impl LatencySketch {
    /// Adds one latency.
    pub fn insert(&mut self, micros: u64) {
        let bucket = bucket_of(micros);
        match self.buckets.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (bucket, 1)),
        }
        self.count += 1;
    }

    /// Adds everything that went into another.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.clone_from(other);
            return;
        }
        let mine = std::mem::take(&mut self.buckets);
        self.buckets.reserve(mine.len().max(other.buckets.len()));
        let (mut left, mut right) = (mine.into_iter().peekable(), other.buckets.iter().copied().peekable());
        while let (Some(&(l, left_count)), Some(&(r, right_count))) = (left.peek(), right.peek()) {
            self.buckets
                .push((l.min(r), u64::from(l <= r) * left_count + u64::from(r <= l) * right_count));
            left.next_if(|_| l <= r);
            right.next_if(|_| r <= l);
        }
        self.buckets.extend(left.chain(right));
        self.count += other.count;
    }

    /// How many latencies went in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A value within 1 % of the smallest latency that at least the fraction `q` of all did not exceed. `None` when empty.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to 1 to count"
    )]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        self.buckets.iter().find_map(|&(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| middle_of(bucket))
        })
    }

    /// About how many bytes it takes in memory, beyond the struct itself.
    pub fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(u16, u64)>()
    }

    /// The form in which it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.buckets.len() * 3);
        bytes.push(VERSION);
        let mut before = 0;
        for &(bucket, count) in &self.buckets {
            put_varint(&mut bytes, u64::from(bucket - before));
            put_varint(&mut bytes, count);
            before = bucket;
        }
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotASketch> {
        let Some((&VERSION, mut rest)) = bytes.split_first() else {
            return Err(NOT_ONE);
        };
        let mut sketch = Self::default();
        while !rest.is_empty() {
            let (Some(step), Some(count)) = (take_varint(&mut rest), take_varint(&mut rest)) else {
                return Err(NOT_ONE);
            };
            let before = sketch.buckets.last().map_or(0, |&(bucket, _)| bucket);
            let bucket = u16::try_from(step)
                .ok()
                .and_then(|step| before.checked_add(step))
                .filter(|&bucket| bucket <= BUCKET_MAX);
            let total = sketch.count.checked_add(count);
            let (Some(bucket), Some(total)) = (bucket, total) else {
                return Err(NOT_ONE);
            };
            if count == 0 || (step == 0 && !sketch.buckets.is_empty()) {
                return Err(NOT_ONE);
            }
            sketch.buckets.push((bucket, count));
            sketch.count = total;
        }
        Ok(sketch)
    }
}

/// The bucket of a latency: the seven leading bits and how far they are shifted.
#[expect(clippy::cast_possible_truncation, reason = "at most 3775")]
fn bucket_of(micros: u64) -> u16 {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((u64::from(shift) << SUB_BITS) + (micros >> shift)) as u16
}

/// The middle of a bucket.
fn middle_of(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    // Two runs of 64 buckets have width one: those of 0 to 63 and of 64 to 127.
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let low = (bucket - (shift << SUB_BITS)) << shift;
    low + ((1 << shift) >> 1)
}
