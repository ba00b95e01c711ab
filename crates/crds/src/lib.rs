//! The custom resources of group `mcpruntime.org/v1alpha1`.
//!
//! Plain serde types: the gateway, the command line and the standalone stack read them from YAML manifests ([`manifest`]) without
//! linking any Kubernetes client. Decoding is strict, so a misspelt field is an error and never a rule that silently is none. What a
//! person leaves out stays `None`; the methods named after the fields give the defaults.
//!
//! Feature `kube` adds `cluster`: the same kinds as an API server holds them, and their definitions.

#![cfg_attr(
    feature = "kube",
    expect(clippy::duplicated_attributes, reason = "columns of one type differ in their other words")
)]

#[cfg(feature = "kube")]
pub mod cluster;
pub mod grant;
pub mod manifest;
pub mod object;
pub mod render;
pub mod server;
pub mod session;
pub mod text;
pub mod word;

pub use grant::{McpAccessGrant, McpAccessGrantSpec};
pub use manifest::{ManifestError, Manifests, read_manifests, read_servers};
pub use object::{Metadata, ObjectName, SecretKeyRef, ServerRef, Subject};
pub use render::render;
pub use server::{McpServer, McpServerSpec};
pub use session::{McpAgentSession, McpAgentSessionSpec};

/// API group of every kind.
pub const GROUP: &str = "mcpruntime.org";
/// API version of every kind, without the group.
pub const VERSION: &str = "v1alpha1";
/// API group and version of every kind.
pub const API_VERSION: &str = "mcpruntime.org/v1alpha1";
