//! The mcp-runtime command.
