//! The platform API: analytics queries, accounts, servers and access over HTTP, for the command line, the console and dashboards.
//!
//! [`ROUTES`] is the whole service in one table: path, who may call, parameters, body, answers and handler. The router, the check
//! of parameters, the access check and the `OpenAPI` document are all made from it, so that none can disagree with another.
//!
//! A request passes one guard (`routes::guard`) that names the caller, compares the caller with what the route needs, and reads the
//! parameters strictly. Handlers get a `Call` in which nothing can be wrong any more but the meaning.
//!
//! ```text
//! analytics ─► sentinel_store::Reader          control ─► Database (accounts, teams, keys)
//! operations ─► Operations                             ─► Objects (servers, grants, sessions), embedded or Kubernetes
//!                                                      ─► AuditSink (facts about every change), through an outbox
//! ```
//!
//! Questions go to a [`sentinel_store::Reader`] under a bound of number and time; what operators do goes to an [`Operations`].

mod access;
mod adapter;
mod alerts;
mod api;
mod audit;
mod catalogue;
mod control;
mod cursor;
mod database;
mod https;
mod identity;
pub mod objects;
mod oidc;
mod openapi;
mod operations;
mod params;
mod publish;
mod registry;
mod routes;
#[cfg(feature = "cluster")]
pub mod service;
mod settings;

use std::net::SocketAddr;

use anyhow::Context as _;
use service_kit::http::HttpLimits;
use service_kit::{Stage, Tasks};
use tokio::net::TcpListener;

pub use access::{Access, Caller, Credentials, Denied, OpenLoopback, ServiceKey, ServiceKeyError, StaticAccess};
pub use api::Api;
pub use audit::AuditSink;
pub use control::{Control, ControlConfig, SignUp};
pub use database::{Database, DatabaseError};
pub use oidc::{ClientSecret, GroupRule, OidcArgs, OidcConfig, OidcConfigError};
pub use openapi::document as openapi_document;
pub use operations::{DeadLetterPage, DeadLetters, KeySpec, Keys, LogRun, Logs, OperationError, Operations, Status};
pub use params::{Kind, Param};
pub use registry::token::{RegistryKeyError, RegistryTokens};
pub use routes::{Filters, Need, ROUTES, Route, router};
pub use settings::{Args, Config, ConfigError};

/// Serves the API as a task of the query stage, and gives the bound address.
///
/// Refuses to start when callers without credentials would be let in from beyond this machine.
pub fn serve(config: &Config, listener: TcpListener, api: Api, tasks: &Tasks) -> anyhow::Result<SocketAddr> {
    let address = listener
        .local_addr()
        .context("reading the address of the platform API's listener")?;
    if config.open_loopback != OpenLoopback::No && !address.ip().is_loopback() {
        anyhow::bail!(
            "the platform API is set to let local callers in without a key, but listens on {address}, which others reach; listen \
             on 127.0.0.1 or leave `--open-loopback` out and give a file of service keys"
        );
    }
    service_kit::http::serve(
        "platform-api",
        listener,
        router(api),
        HttpLimits::default(),
        tasks,
        Stage::Query,
    )
    .context("serving the platform API")
}
