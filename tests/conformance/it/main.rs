//! Runs the suite, direct and through a gateway, and compares.

#[cfg(test)]
mod client;
#[cfg(test)]
mod server;
#[cfg(test)]
mod suite;
