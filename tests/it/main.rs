//! The product from outside: the real `mcp-runtime` in a temporary folder, real MCP servers and clients, and the sender's own ledger.
//!
//! Programs are built before (`cargo build -p cli -p demo-server`) and found beside this test's own folder; `MCP_RUNTIME_BIN` names
//! another `mcp-runtime`. What cannot be tested here is reported as skipped with the reason, and fails where `CI=true`.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod getting_started;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod sdk_clients;
