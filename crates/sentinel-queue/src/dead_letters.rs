//! Records that could not be stored: kept, shown, replayed, discarded.
