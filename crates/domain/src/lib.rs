//! Ids, events and policy: the words every other crate speaks. No I/O, no runtime, no clock.
