//! The reference queue, in memory.
