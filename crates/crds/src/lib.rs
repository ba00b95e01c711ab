//! The custom resources of group `mcpruntime.org/v1alpha1`, as YAML manifests hold them.

pub mod manifest;
pub mod server;

pub use manifest::{ManifestError, read_servers};
pub use server::{McpServer, McpServerSpec};

/// API group and version of every kind.
pub const API_VERSION: &str = "mcpruntime.org/v1alpha1";
