//! The `mcp-runtime` command.

fn main() {}
