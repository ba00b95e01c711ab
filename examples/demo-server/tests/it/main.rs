//! The example server and its callers, over real connections.

#[cfg(test)]
mod desk;
