//! The command from outside: real clients on its adapters, a real registry behind its pushes.

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod platform;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod sessions;
