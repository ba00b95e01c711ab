//! The store as a whole: what goes in comes out once, through flush, merge, crash and damage.

mod events;
mod round_trip;
