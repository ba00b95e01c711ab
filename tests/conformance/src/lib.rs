//! The official MCP conformance suite, against a server of ours and through the gateway.
//!
//! [`serve`] is that server: it has the tools, resources and prompts that the suite calls by name, in both eras of the protocol. The tests
//! run the suite against it, then through a gateway ([`Governed`]), and compare the results check by check.
#![expect(deprecated, reason = "the suite asks for what the earlier era has: logging and sampling")]

mod fixture;
mod governed;

pub use fixture::serve;
pub use governed::Governed;
