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

/// Buckets up to which they are listed; beyond, every bucket from the first to the last has a place.
const FEW_MAX: usize = 32;
/// Places made at once in front of the first.
const SLACK: u16 = 64;

/// A summary of latencies in microseconds, from which every percentile can be told within 1 %.
#[derive(Debug, Clone, Default)]
pub struct LatencySketch {
    buckets: Buckets,
    count: u64,
}

#[derive(Debug, Clone)]
enum Buckets {
    /// Those that are not empty, by number.
    Few(Vec<(u16, u64)>),
    /// Counts of `first` and the ones after it. Adding one takes no search, which counts where many sketches become one.
    Many { first: u16, counts: Vec<u64> },
}

impl Default for Buckets {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Buckets {
    fn add(&mut self, bucket: u16, more: u64) {
        match self {
            Self::Few(few) => match few.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
                Ok(at) => few[at].1 += more,
                Err(at) => {
                    few.insert(at, (bucket, more));
                    if few.len() > FEW_MAX {
                        let few = std::mem::take(few);
                        let first = few.first().map_or(0, |&(first, _)| first);
                        *self = Self::Many {
                            first,
                            counts: Vec::new(),
                        };
                        for (bucket, count) in few {
                            self.add(bucket, count);
                        }
                    }
                }
            },
            Self::Many { first, counts } => {
                if bucket < *first {
                    let front = bucket.saturating_sub(SLACK);
                    counts.splice(..0, std::iter::repeat_n(0, usize::from(*first - front)));
                    *first = front;
                }
                let at = usize::from(bucket - *first);
                if at >= counts.len() {
                    counts.resize(at + 1, 0);
                }
                counts[at] += more;
            }
        }
    }

    /// Those that are not empty, by number.
    fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let (few, first, counts) = match self {
            Self::Few(few) => (few.as_slice(), 0, [].as_slice()),
            Self::Many { first, counts } => ([].as_slice(), *first, counts.as_slice()),
        };
        let many = (first..).zip(counts).filter(|(_, count)| **count > 0);
        few.iter().copied().chain(many.map(|(bucket, count)| (bucket, *count)))
    }
}

impl PartialEq for LatencySketch {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.buckets.iter().eq(other.buckets.iter())
    }
}

impl Eq for LatencySketch {}

impl LatencySketch {
    /// Adds one latency.
    pub fn insert(&mut self, micros: u64) {
        self.buckets.add(bucket_of(micros), 1);
        self.count += 1;
    }

    /// Adds everything that went into another.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.buckets.iter() {
            self.buckets.add(bucket, count);
        }
        self.count += other.count;
    }

    /// Adds everything that went into the sketch with this stored form. After a fault, parts of it may be in.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), NotASketch> {
        let Some((&VERSION, mut rest)) = bytes.split_first() else {
            return Err(NOT_ONE);
        };
        let mut before = None;
        while !rest.is_empty() {
            let (Some(step), Some(count)) = (take_varint(&mut rest), take_varint(&mut rest)) else {
                return Err(NOT_ONE);
            };
            let bucket = u16::try_from(step)
                .ok()
                .and_then(|step| before.unwrap_or(0_u16).checked_add(step))
                .filter(|&bucket| bucket <= BUCKET_MAX);
            let total = self.count.checked_add(count);
            let (Some(bucket), Some(total)) = (bucket, total) else {
                return Err(NOT_ONE);
            };
            if count == 0 || (step == 0 && before.is_some()) {
                return Err(NOT_ONE);
            }
            self.buckets.add(bucket, count);
            self.count = total;
            before = Some(bucket);
        }
        Ok(())
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
        self.buckets.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| middle_of(bucket))
        })
    }

    /// About how many bytes it takes in memory, beyond the struct itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.buckets {
            Buckets::Few(few) => few.capacity() * size_of::<(u16, u64)>(),
            Buckets::Many { counts, .. } => counts.capacity() * size_of::<u64>(),
        }
    }

    /// The form in which it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut before = 0;
        for (bucket, count) in self.buckets.iter() {
            put_varint(&mut bytes, u64::from(bucket - before));
            put_varint(&mut bytes, count);
            before = bucket;
        }
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotASketch> {
        let mut sketch = Self::default();
        sketch.merge_bytes(bytes)?;
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
