//! Load generators and helpers for the end-to-end suites.
