//! What every service of the stack needs around its own work, and no word of that work.
//!
//! ```no_run
//! use clap::Parser as _;
//! use service_kit::{ProcessArgs, Stage, health, http, problem};
//!
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     process: ProcessArgs,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let args = Args::parse();
//!     service_kit::run("greeter", args.process, async |tasks| {
//!         let admin = http::bind(([127, 0, 0, 1], 9090).into())?;
//!         let front = http::bind(([127, 0, 0, 1], 8080).into())?;
//!         let app = axum::Router::new().route("/", axum::routing::get(async || "hello"));
//!         health::serve_admin(admin, &tasks)?;
//!         let limits = http::HttpLimits::default();
//!         http::serve("front", front, problem::with_fallbacks(app), limits, &tasks, Stage::Intake)?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! - [`run`] owns the process: runtime, telemetry, signals, exit code. [`ProcessArgs`] are its options.
//! - [`Tasks`] starts named tasks in a [`Stage`], tells them when to stop, and hands out readiness flags, metrics, logs and the
//!   clock. Clones share one state, so several services live in one process. [`Running`] is the owner's side: start, await, stop.
//! - [`http`] serves an axum router or a hyper service with bounded headers, connections and drain; [`health`] is the admin side.
//! - [`problem`] is the only mapping from faults to HTTP answers; [`trace`] carries W3C trace context into them.
//! - [`logs`] keeps the newest log records readable in-process; [`telemetry`] writes them to standard error.
//! - Feature `oidc`: access tokens of identity providers. Feature `tls`: listeners with certificates.
//! - [`clock`] and [`backoff`] are the only places that read time and randomness.

pub mod args;
pub mod backoff;
pub mod clock;
pub mod error;
pub mod health;
pub mod http;
pub mod logs;
pub mod metrics;
#[cfg(feature = "oidc")]
pub mod oidc;
pub mod problem;
mod random;
mod reach;
pub mod readiness;
mod run;
pub mod tasks;
pub mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(feature = "tls")]
pub mod tls;
pub mod trace;

pub use args::{ProcessArgs, parse_duration};
pub use backoff::{Backoff, BackoffPolicy, Pause};
pub use clock::{Clock, ManualClock};
pub use logs::{LogFilter, LogLevel, LogRecord, LogStore, PreviousLog};
pub use metrics::Metrics;
pub use problem::Problem;
pub use reach::reach;
pub use readiness::ReadinessFlag;
pub use run::run;
pub use tasks::{Report, Running, Shutdown, Stage, Tasks};
