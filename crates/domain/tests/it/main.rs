//! The golden table of decisions.

#[cfg(test)]
mod golden;
