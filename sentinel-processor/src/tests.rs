//! The processor between the queue in memory and a store that fails on command.
