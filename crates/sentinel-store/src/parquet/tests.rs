//! The store as a whole: what goes in comes out once, through flush, merge, crash and damage.

mod crash;
mod damage;
mod events;
mod fixture;
mod merge;
mod model;
mod realistic;
mod round_trip;
mod size;
