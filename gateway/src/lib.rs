//! The governed MCP reverse proxy, as a sidecar or in one process with the rest.
//!
//! Every request to an MCP server passes the pipeline of [`Gateway`]: limit, identify, inspect, authorize, forward, record. Bytes pass
//! as they come, in both directions; what a request asks for is read from its body, and how it ended is read from the answer
//! while it streams through. Each request ends as one event in the [`Recorder`], which [`deliver`] carries to ingest.
//!
//! - [`serve`] starts a sidecar from a [`Config`]; [`listen`] serves a [`Gateway`] of any number of [`Route`]s, as the all-in-one
//!   process does.
//! - [`Policy`] decides. It is a value that can be replaced while requests pass, and so is the [`RouteTable`].

mod answer;
mod args;
mod authorize;
mod classify;
mod delivery;
mod endpoint;
mod exchange;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod identify;
mod inspect;
mod limit;
mod list;
mod metrics;
mod policy;
mod rate;
mod record;
mod refusal;
mod route;
mod scan;
mod serve;
mod sessions;
mod standing;
mod status;
mod text;
mod tools;
mod traces;
mod upstream;

pub use answer::{AnswerBody, AnswerFault};
pub use args::{Args, Config, ConfigError, EventArgs, GatewayArgs, PolicyArgs, TlsArgs, TraceArgs};
pub use delivery::{ApiKey, Coding, DeliveryConfig, DeliveryError, SpoolConfig, deliver};
pub use forward::{CallerRules, ForwardRules, HostHeader};
pub use gateway::{Gateway, GatewayLimits};
pub use identify::{IdentityRules, Peer};
pub use policy::{Policy, PolicyCell, PolicyConfig, PolicyStreamArgs, PolicyStreamConfig, watch_policy};
pub use rate::Rate;
pub use record::{Delivery, DeliveryStatus, Recorder, RecorderLimits};
pub use refusal::DenyStatus;
pub use route::{Recording, Route, RouteFault, RouteTable};
pub use serve::{listen, listen_tls, serve};
pub use traces::TracesConfig;
