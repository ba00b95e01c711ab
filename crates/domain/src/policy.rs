//! Policy: what the document of a server says, and what it means for one call.
//!
//! A [`Document`] is what travels: JSON, written by the operator (or by standalone) and read by the gateway. [`Policy`] is the
//! same content compiled into lookup structures; [`Policy::decide`] is pure and total, and its cost does not grow with the number
//! of grants and sessions. Both know no clock: the time is an argument.
//!
//! ```text
//! bytes ─► Document::parse ─► (Document, faults) ─► Policy::compile ─► decide(call, now) ─► Verdict
//! ```
//!
//! Where something is wrong the answer is "no": a document that cannot be read gives no policy at all, an entry that cannot be
//! read grants nothing, and [`Policy::unavailable`] is the policy of a server whose document was never read.

pub mod call;
pub mod diff;
pub mod document;
pub mod explain;
pub mod reason;
pub mod table;
pub mod verdict;
pub mod words;

mod compile;
mod condition;
mod decide;
mod glob;
mod index;
mod merge;
mod parse;
mod revision;
mod session;
mod span;

pub use call::{Arguments, Call, Claims, Presented, Target};
pub use compile::Policy;
pub use diff::diff;
pub use document::Document;
pub use explain::explain;
pub use parse::{DocumentError, Fault};
pub use reason::Reason;
pub use session::token_hash;
pub use verdict::{Caller, Charge, ObjectName, Shadow, Subject, Verdict};
pub use words::{AuthMode, KindRule, Mode, Risk, SideEffect, Trust, Verification};

#[cfg(test)]
mod tests;
