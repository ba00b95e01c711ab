//! The operator: custom resources into workloads, routes and policy documents.
//!
//! ```text
//! watch ─► world ─► queue ─► fetch ─► validate ─► build ─► apply ─► status
//! ```
//!
//! - [`watch`] keeps the [`world`] equal to what the API server holds; the world says which servers a change is about.
//! - [`fetch`](world::World::fetch) gathers what is known about one server, without asking the API server.
//! - [`validate`] turns that into a [`Checked`](validate::Checked) server, or says what is wrong. It needs no client.
//! - [`build`] turns a checked server into the objects it should have. It needs no client and cannot fail.
//! - [`apply`] compares them with what is there, and writes what differs: nothing, once converged.
//! - [`status`] tells what became of it, on all three kinds, from what the objects and pods say.
//!
//! Beside the passes, the [`feed`] hands policies to the gateways that wait for them and remembers what they run, by TLS with a
//! certificate that [`authority`] looks after.
//!
//! Every object written carries an owner reference and the label [`MANAGED_BY`]; others of the same name are left alone.

pub mod apply;
pub mod args;
pub mod authority;
pub mod build;
pub mod certificate;
pub mod client;
pub mod controller;
pub mod event;
pub mod feed;
pub mod image;
pub mod lease;
pub mod metrics;
pub mod object;
pub mod policy;
pub mod print;
pub mod quantity;
pub mod queue;
pub mod rbac;
pub mod route;
mod serve;
pub mod status;
#[cfg(test)]
mod symptoms;
#[cfg(test)]
mod testing;
pub mod validate;
pub mod watch;
pub mod webhook;
pub mod world;

pub use args::{Args, Command, Config, OperatorArgs};
pub use serve::serve;

/// The one field manager of everything we write.
pub const FIELD_MANAGER: &str = "mcp-operator";
/// Label of everything we own, with the value [`MANAGED_BY_US`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of the label [`MANAGED_BY`].
pub const MANAGED_BY_US: &str = "mcp-runtime";
/// Label with the name of the server something belongs to.
pub const APP: &str = "app";
/// Label that tells stable pods from canaries.
pub const TRACK: &str = "mcpruntime.org/rollout-track";
/// Annotation with the digest of what we last wanted of an object.
pub const DESIRED: &str = "mcpruntime.org/desired";
/// Annotation with the revision of the policy an object holds.
pub const POLICY_REVISION: &str = "mcpruntime.org/policy-revision";
/// Annotation with the time from which an object's policy is.
pub const POLICY_TIME: &str = "mcpruntime.org/policy-generated-at";
