//! An example MCP server: both protocol eras, tools of every side effect, some slow, some failing.
