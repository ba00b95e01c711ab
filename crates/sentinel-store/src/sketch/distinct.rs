//! How many different values there were: their hashes while they are few, a `HyperLogLog` of 4096 registers beyond.
//!
//! A set of up to [`EXACT_MAX`] different hashes is kept as it is and counted exactly. Which of the two forms a sketch has follows
//! from the set alone, so neither the order of adding nor that of merging shows.
//!
//! Bytes, version 1: `01` and the hashes in order, eight bytes each, little end first; or `02` and the 4096 registers, a byte each
//! (compression of the file does the rest). The hash is XXH64 with seed 0; for several columns, each hash is the next one's seed.

use twox_hash::XxHash64;

use super::NotASketch;

const EXACT: u8 = 1;
const REGISTERS: u8 = 2;
/// Most hashes kept as they are.
const EXACT_MAX: usize = 256;
/// Bits of a hash that choose its register.
const PRECISION: u32 = 12;
const REGISTER_COUNT: usize = 1 << PRECISION;
/// Bits of a hash that are left for the rank.
const RANK_BITS: u32 = 64 - PRECISION;
const NOT_ONE: NotASketch = NotASketch("distinct");

/// A summary of a set of values from which its size can be told: exactly up to 256 values, within some 2 % beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctSketch(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// In order.
    Exact(Vec<u64>),
    /// Always `REGISTER_COUNT` of them.
    Registers(Vec<u8>),
}

impl Default for DistinctSketch {
    fn default() -> Self {
        Self(Form::Exact(Vec::new()))
    }
}

impl DistinctSketch {
    /// Adds a value. An empty one means absent and is not counted.
    pub fn insert(&mut self, value: &[u8]) {
        self.insert_tuple([value]);
    }

    /// Adds a value made of several columns, absent ones given as empty. Not counted when all are absent.
    pub fn insert_tuple<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) {
        let mut present = false;
        let hash = values.into_iter().fold(0, |seed, value| {
            present |= !value.is_empty();
            XxHash64::oneshot(seed, value)
        });
        if present {
            self.insert_hash(hash);
        }
    }

    fn insert_hash(&mut self, hash: u64) {
        match &mut self.0 {
            Form::Registers(registers) => raise(registers, hash),
            Form::Exact(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return };
                hashes.insert(at, hash);
                self.settle();
            }
        }
    }

    /// Adds everything that went into another.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Form::Registers(mine), Form::Registers(theirs)) => {
                for (mine, theirs) in mine.iter_mut().zip(theirs) {
                    *mine = (*mine).max(*theirs);
                }
            }
            (Form::Registers(registers), Form::Exact(hashes)) => hashes.iter().for_each(|&hash| raise(registers, hash)),
            (Form::Exact(hashes), Form::Registers(registers)) => {
                let mut registers = registers.clone();
                for &hash in &*hashes {
                    raise(&mut registers, hash);
                }
                self.0 = Form::Registers(registers);
            }
            (Form::Exact(mine), Form::Exact(theirs)) => {
                mine.extend_from_slice(theirs);
                mine.sort_unstable();
                mine.dedup();
                self.settle();
            }
        }
    }

    /// Changes the form once there are too many hashes to keep.
    fn settle(&mut self) {
        if let Form::Exact(hashes) = &self.0
            && hashes.len() > EXACT_MAX
        {
            let mut registers = vec![0; REGISTER_COUNT];
            for &hash in hashes {
                raise(&mut registers, hash);
            }
            self.0 = Form::Registers(registers);
        }
    }

    /// How many different values went in, as far as can be told.
    pub fn estimate(&self) -> u64 {
        match &self.0 {
            Form::Exact(hashes) => hashes.len() as u64,
            Form::Registers(registers) => estimate(registers),
        }
    }

    /// About how many bytes it takes in memory, beyond the struct itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Exact(hashes) => hashes.capacity() * size_of::<u64>(),
            Form::Registers(registers) => registers.capacity(),
        }
    }

    /// The form in which it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Form::Exact(hashes) => {
                let mut bytes = Vec::with_capacity(1 + hashes.len() * 8);
                bytes.push(EXACT);
                for hash in hashes {
                    bytes.extend_from_slice(&hash.to_le_bytes());
                }
                bytes
            }
            Form::Registers(registers) => {
                let mut bytes = Vec::with_capacity(1 + REGISTER_COUNT);
                bytes.push(REGISTERS);
                bytes.extend_from_slice(registers);
                bytes
            }
        }
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotASketch> {
        match bytes.split_first() {
            Some((&EXACT, rest)) => {
                let (hashes, []) = rest.as_chunks::<8>() else {
                    return Err(NOT_ONE);
                };
                let hashes: Vec<u64> = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
                let sound = hashes.len() <= EXACT_MAX && hashes.is_sorted_by(|a, b| a < b);
                sound.then_some(Self(Form::Exact(hashes))).ok_or(NOT_ONE)
            }
            Some((&REGISTERS, rest)) => {
                let sound = rest.len() == REGISTER_COUNT && rest.iter().all(|&rank| u32::from(rank) <= RANK_BITS + 1);
                sound.then(|| Self(Form::Registers(rest.to_vec()))).ok_or(NOT_ONE)
            }
            _ => Err(NOT_ONE),
        }
    }
}

/// Raises the register of a hash to its rank: one more than the zeros that lead its other bits.
#[expect(clippy::cast_possible_truncation, reason = "twelve bits, and at most 53")]
fn raise(registers: &mut [u8], hash: u64) {
    let register = (hash >> RANK_BITS) as usize;
    let rank = ((hash << PRECISION).leading_zeros().min(RANK_BITS) + 1) as u8;
    registers[register] = registers[register].max(rank);
}

/// Ertl's improved raw estimator: without the bias that the original has between its two ranges, and without tables.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, not negative"
)]
fn estimate(registers: &[u8]) -> u64 {
    let mut histogram = [0_u32; RANK_BITS as usize + 2];
    for &rank in registers {
        histogram[usize::from(rank)] += 1;
    }
    let count = REGISTER_COUNT as f64;
    let full = f64::from(histogram[RANK_BITS as usize + 1]);
    let mut sum = count * tau(1.0 - full / count);
    for rank in (1..=RANK_BITS as usize).rev() {
        sum = 0.5 * (sum + f64::from(histogram[rank]));
    }
    sum += count * sigma(f64::from(histogram[0]) / count);
    (count * count / (2.0 * std::f64::consts::LN_2 * sum)).round() as u64
}

/// The part of registers never raised.
fn sigma(mut x: f64) -> f64 {
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        // Not below the whole: with every register at zero the sum has no bound, and the estimate is zero.
        if z <= before || !z.is_finite() {
            return z;
        }
    }
}

/// The part of registers that can rise no further.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}
