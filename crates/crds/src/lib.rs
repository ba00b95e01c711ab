//! The custom resources MCPServer, MCPAccessGrant and MCPAgentSession.
