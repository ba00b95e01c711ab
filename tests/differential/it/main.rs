//! What the gateway lets pass is read by every parser as what the gateway judged; what could be read otherwise is refused.
//!
//! Each file of `corpus/` is one body, sent as it is. Its name says what must become of it: `pass-…` reaches the server, `refuse-…`
//! does not. Bodies that are too large to keep are made in `corpus.rs`.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod judged;
#[cfg(test)]
mod readers;
