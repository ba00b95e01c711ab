//! Quick randomness for jitter and trace ids. Not for secrets.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

/// A stream of evenly spread numbers (splitmix64): small, quick, and repeatable from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream nobody can foretell from outside, though not one fit for secrets.
    pub(crate) fn from_process() -> Self {
        // `RandomState` is seeded by the operating system and differs at each call.
        Self(RandomState::new().hash_one(0_u8))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The next number of this thread's stream.
pub(crate) fn next() -> u64 {
    thread_local! {
        static STREAM: Cell<u64> = Cell::new(Random::from_process().0);
    }
    STREAM.with(|state| {
        let mut random = Random::from_seed(state.get());
        let number = random.next();
        state.set(random.0);
        number
    })
}
