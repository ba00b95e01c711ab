//! The governed MCP reverse proxy, as a sidecar or in one process with the rest.
