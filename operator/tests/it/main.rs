//! The operator against a real API server.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may stop at the first surprise, as tests do, and say what they skip and measure"
)]

mod access;
mod cluster;
mod converge;
mod growth;
mod harness;
mod hostile;
mod node;
mod pods;
mod rivals;
mod webhooks;
