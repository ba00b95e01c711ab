//! How many different values there were: places of their hashes while they are few, a `HyperLogLog` of 4096 registers beyond.
//!
//! A hash has a place among 65 536 and a rank. Up to [`PLACES_MAX`] different places are kept, each with its greatest rank, and
//! counted: of 50 values two share a place once in fifty sets, of 250 about one pair does. With more places the sketch is the
//! registers that follow from them. Which of the two forms a sketch has follows from the set alone, so neither the order of adding
//! nor that of merging shows.
//!
//! Bytes: `02` and the 4096 registers, a byte each (compression of the file does the rest); or `03` and the places in order, each as
//! a varint of the step from the one before (the first: from 0) times four plus its rank less one, at most three, and when it is
//! three, one more varint with what the rank exceeds four by. The hash is XXH64 with seed 0; for several columns, each hash is the
//! next one's seed.

use twox_hash::XxHash64;

use super::{NotASketch, put_varint, take_varint};

const REGISTERS: u8 = 2;
const PLACES: u8 = 3;
/// Most places kept.
const PLACES_MAX: usize = 1_024;
/// Bits of a hash that choose its place.
const PLACE_BITS: u32 = 16;
/// Bits of a place that do not choose its register.
const LOW_BITS: u32 = PLACE_BITS - PRECISION;
/// Greatest rank of a place.
const PLACE_RANK_MAX: u8 = 49;
/// Bits of a hash that choose its register.
const PRECISION: u32 = 12;
const REGISTER_COUNT: usize = 1 << PRECISION;
/// Bits of a hash that are left for the rank of its register.
const RANK_BITS: u32 = 64 - PRECISION;
const NOT_ONE: NotASketch = NotASketch("distinct");

/// A summary of a set of values from which its size can be told: nearly always exactly when small, within some 2 % beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctSketch(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// In order of the places, each once.
    Places(Vec<Place>),
    /// Always `REGISTER_COUNT` of them.
    Registers(Vec<u8>),
}

/// Where a hash falls: its first bits, and one more than the zeros that follow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: u16,
    rank: u8,
}

impl Place {
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits, and at most 49")]
    fn of(hash: u64) -> Self {
        Self {
            at: (hash >> (64 - PLACE_BITS)) as u16,
            rank: ((hash << PLACE_BITS).leading_zeros().min(64 - PLACE_BITS) + 1) as u8,
        }
    }

    /// Raises the register that the same hash would have raised.
    #[expect(clippy::cast_possible_truncation, reason = "four bits, and at most 53")]
    fn raise(self, registers: &mut [u8]) {
        let register = usize::from(self.at >> LOW_BITS);
        let low = u32::from(self.at) << (32 - LOW_BITS);
        let rank = if low == 0 {
            LOW_BITS as u8 + self.rank
        } else {
            low.leading_zeros() as u8 + 1
        };
        registers[register] = registers[register].max(rank);
    }
}

impl Default for DistinctSketch {
    fn default() -> Self {
        Self(Form::Places(Vec::new()))
    }
}

impl DistinctSketch {
    /// Adds a value. An empty one means absent and is not counted.
    pub fn insert(&mut self, value: &[u8]) {
        self.insert_tuple([value]);
    }

    /// Adds a value made of several columns, absent ones given as empty. Not counted when all are absent.
    pub fn insert_tuple<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) {
        if let Some(hash) = Self::hash(values) {
            self.insert_hash(hash);
        }
    }

    /// The hash of a value made of several columns; `None` when all are absent.
    pub(crate) fn hash<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
        let mut present = false;
        let hash = values.into_iter().fold(0, |seed, value| {
            present |= !value.is_empty();
            XxHash64::oneshot(seed, value)
        });
        present.then_some(hash)
    }

    /// Adds the value with this hash.
    pub(crate) fn insert_hash(&mut self, hash: u64) {
        self.add(Place::of(hash));
    }

    fn add(&mut self, place: Place) {
        match &mut self.0 {
            Form::Registers(registers) => place.raise(registers),
            Form::Places(places) => match places.binary_search_by_key(&place.at, |known| known.at) {
                Ok(at) => places[at].rank = places[at].rank.max(place.rank),
                Err(at) => {
                    places.insert(at, place);
                    self.settle();
                }
            },
        }
    }

    /// Adds everything that went into another.
    pub fn merge(&mut self, other: &Self) {
        match &other.0 {
            Form::Registers(theirs) => self.merge_registers(theirs),
            Form::Places(theirs) => self.merge_places(theirs),
        }
    }

    fn merge_registers(&mut self, theirs: &[u8]) {
        let registers = self.registers();
        for (mine, theirs) in registers.iter_mut().zip(theirs) {
            *mine = (*mine).max(*theirs);
        }
    }

    fn merge_places(&mut self, theirs: &[Place]) {
        let mine = match &mut self.0 {
            Form::Registers(registers) => return theirs.iter().for_each(|place| place.raise(registers)),
            Form::Places(mine) => std::mem::take(mine),
        };
        let mut both = Vec::with_capacity(mine.len().max(theirs.len()));
        let (mut left, mut right) = (mine.into_iter().peekable(), theirs.iter().copied().peekable());
        while let (Some(l), Some(r)) = (left.peek().copied(), right.peek().copied()) {
            let rank = if l.at < r.at { l.rank } else { r.rank };
            both.push(Place {
                at: l.at.min(r.at),
                rank: if l.at == r.at { l.rank.max(r.rank) } else { rank },
            });
            left.next_if(|_| l.at <= r.at);
            right.next_if(|_| r.at <= l.at);
        }
        both.extend(left.chain(right));
        self.0 = Form::Places(both);
        self.settle();
    }

    /// The registers, whatever form there was.
    fn registers(&mut self) -> &mut [u8] {
        if let Form::Places(places) = &self.0 {
            let mut registers = vec![0; REGISTER_COUNT];
            for place in places {
                place.raise(&mut registers);
            }
            self.0 = Form::Registers(registers);
        }
        match &mut self.0 {
            Form::Registers(registers) => registers,
            Form::Places(_) => &mut [],
        }
    }

    /// Changes the form once there are too many places to keep.
    fn settle(&mut self) {
        if let Form::Places(places) = &self.0
            && places.len() > PLACES_MAX
        {
            self.registers();
        }
    }

    /// How many different values went in, as far as can be told.
    pub fn estimate(&self) -> u64 {
        match &self.0 {
            Form::Places(places) => estimate_of(places.len()),
            Form::Registers(registers) => estimate(registers),
        }
    }

    /// About how many bytes it takes in memory, beyond the struct itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Places(places) => places.capacity() * size_of::<Place>(),
            Form::Registers(registers) => registers.capacity(),
        }
    }

    /// The form in which it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Form::Places(places) => {
                let mut bytes = Vec::with_capacity(1 + places.len() * 3);
                bytes.push(PLACES);
                let mut before = 0;
                for place in places {
                    let short = u64::from(place.rank - 1).min(3);
                    put_varint(&mut bytes, u64::from(place.at - before) << 2 | short);
                    if short == 3 {
                        put_varint(&mut bytes, u64::from(place.rank - 4));
                    }
                    before = place.at;
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
        let mut sketch = Self::default();
        sketch.merge_bytes(bytes)?;
        Ok(sketch)
    }

    /// Adds everything that went into the sketch with this stored form. A fault leaves the sketch as it was.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), NotASketch> {
        match bytes.split_first() {
            Some((&PLACES, rest)) => {
                let places = read_places(rest).ok_or(NOT_ONE)?;
                self.merge_places(&places);
                Ok(())
            }
            Some((&REGISTERS, rest)) => {
                let sound = rest.len() == REGISTER_COUNT && rest.iter().all(|&rank| u32::from(rank) <= RANK_BITS + 1);
                if sound {
                    self.merge_registers(rest);
                }
                sound.then_some(()).ok_or(NOT_ONE)
            }
            _ => Err(NOT_ONE),
        }
    }
}

fn read_places(mut bytes: &[u8]) -> Option<Vec<Place>> {
    let mut places: Vec<Place> = Vec::with_capacity(bytes.len() / 2);
    while !bytes.is_empty() {
        let (step, short) = take_varint(&mut bytes).map(|both| (both >> 2, both & 3))?;
        let more = if short == 3 { take_varint(&mut bytes)? } else { 0 };
        let rank = u8::try_from(short.checked_add(more)?.checked_add(1)?).ok()?;
        let before = places.last().map(|place| place.at);
        let at = before.unwrap_or(0).checked_add(u16::try_from(step).ok()?)?;
        if rank > PLACE_RANK_MAX || (step == 0 && before.is_some()) || places.len() >= PLACES_MAX {
            return None;
        }
        places.push(Place { at, rank });
    }
    Some(places)
}

/// How many values make so many different places (linear counting).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most a few thousand, not negative"
)]
fn estimate_of(places: usize) -> u64 {
    let all = f64::from(1_u32 << PLACE_BITS);
    (all * (all / (all - places as f64)).ln()).round() as u64
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
