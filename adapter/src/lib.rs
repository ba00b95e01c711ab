//! Adapters: what stands between an MCP client that knows no sessions and a server that is governed.
//!
//! ```text
//! client ─ stdio ──► stdio::serve ─┐
//!                                  ├─► Upstream (session, identity, retries) ─► gateway ─► server
//! client ─ HTTP ───► proxy::serve ─┘
//! ```
//!
//! [`stdio`] turns lines on standard input into requests of the streamable HTTP transport and its answers and streams into lines, in
//! both protocol eras. [`proxy`] is a listener on this machine that adds the identity to what passes. Both ask a [`SessionSource`] for
//! the session: where the server is, and what proves who calls. Messages are never rewritten: what is read is what is sent.

mod config;
mod message;
mod metrics;
mod params;
pub mod proxy;
mod reply;
pub mod session;
pub mod sse;
pub mod stdio;
mod upstream;

pub use config::Config;
pub use proxy::ProxyConfig;
pub use session::{Remedy, Session, SessionError, SessionSource, Sessions};
pub use stdio::StdioConfig;
pub use upstream::Upstream;
