//! The operator against a real API server.

mod access;
mod cluster;
mod converge;
mod growth;
mod harness;
mod hostile;
mod rivals;
