//! An example MCP server, and a client that keeps it busy.
//!
//! The server is the payments desk of a made-up company. It has tools of every side effect, some slow, some failing in
//! each way a tool can fail, and it speaks both protocol eras at `/mcp`: sessions and streams up to 2025-11-25, single
//! self-contained requests since 2026-07-28. It knows nothing of gateways; that is the point of it.
//!
//! ```text
//! books ── what the company owes and is owed, in memory
//! server ─ the books as tools, resources and prompts; HTTP around it
//! client ─ made-up agents who use such a server, and tell what became of each call
//! ```

mod books;
pub mod client;
pub mod command;
mod server;

pub use server::{Payments, serve};
