//! Ingest keys: who may send events, and for which namespace.
//!
//! A key is `mcpi_<id>_<secret>`: the id is public and names the key in lists, logs and events; the secret is seen once, by whoever
//! makes the key. Kept is only a SHA-256 of the whole key, in a JSON file that nobody else may read:
//!
//! ```json
//! {"version":1,"keys":[{"id":"f3Qm0ZtX91bK","hash":"<64 hex digits>","namespace":"acme","server":"payments",
//!   "created_at":"2026-11-22T15:04:05Z","expires_at":"…","revoked_at":"…","events_per_second_max":500,"note":"gateway"}]}
//! ```
//!
//! `namespace` is `*` for a key of all namespaces; `server`, the two ends, the rate and the note may be absent. A field we do not
//! know refuses the whole file: a misspelt `expires_at` must not make a key eternal. A plain hash is enough, since secrets are 256
//! random bits and not something a person made up.
//!
//! [`KeyRing`] is the reading side, in ingest: lock-free, reloaded when the file changes, refusing everything when there is none.
//! [`KeyStore`] is the writing side, for the platform API and the command line: one writer at a time, the file replaced as a whole.

mod bucket;
mod file;
mod ring;
mod secret;
mod sender;
mod store;

pub use file::KeyFileError;
pub use ring::{KeyRing, KeyRingState};
pub use sender::Senders;
pub use store::{KeyStore, KeyStoreError, NewKeyRequest};

pub(crate) use file::ANY_NAMESPACE;
#[cfg(test)]
pub(crate) use ring::Key;
pub(crate) use ring::KeyRefusal;
pub(crate) use sender::{Grant, Sender};

#[cfg(test)]
mod tests;
