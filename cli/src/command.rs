//! The commands: each noun is a module.

pub(crate) mod access;
pub(crate) mod adapter;
pub(crate) mod auth;
pub(crate) mod cluster;
#[cfg(feature = "demo")]
mod demo;
pub(crate) mod doctor;
pub(crate) mod reference;
pub(crate) mod registry;
pub(crate) mod sentinel;
pub(crate) mod server;
pub(crate) mod team;
#[cfg(feature = "standalone")]
pub(crate) mod up;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> Result<Done, Fault> {
    let Cli { global, command } = cli;
    match command {
        #[cfg(feature = "standalone")]
        Command::Up(args) => up::run(*args),
        Command::Completion { shell } => completion(shell),
        Command::Reference { man } => reference::run(man.as_deref()),
        Command::Doctor => asking(async || doctor::run(&global).await),
        Command::Cluster(command) => cluster::run(global.form()?, &command),
        Command::Auth(command) => asking(async || auth::run(&global, *command).await),
        Command::Server(command) => asking(async || server::run(&global, *command).await),
        Command::Adapter(command) => adapter::run(&global, *command),
        Command::Access(command) => asking(async || access::run(&global, *command).await),
        Command::Registry(command) => asking(async || registry::run(&global, *command).await),
        Command::Team(command) => asking(async || team::run(&Client::new(&global)?, global.form()?, *command).await),
        Command::Sentinel(command) => asking(async || sentinel::run(&Client::new(&global)?, global.form()?, *command).await),
        Command::Status(args) => asking(async || sentinel::status::run(&Client::new(&global)?, global.form()?, &args).await),
    }
}

/// Runs a command that talks to the API. Ctrl-C ends it without a word, which is how a follower is left.
fn asking(command: impl AsyncFnOnce() -> Result<Done, Fault>) -> Result<Done, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fault::new(Exit::Failed, "starting the runtime").caused_by(&error))?;
    runtime.block_on(async {
        tokio::select! {
            done = command() => done,
            _ = tokio::signal::ctrl_c() => Ok(Done::Well),
        }
    })
}

fn completion(shell: clap_complete::Shell) -> Result<Done, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut <Cli as clap::CommandFactory>::command(),
        "mcp-runtime",
        &mut script,
    );
    render::bytes(&script)?;
    Ok(Done::Well)
}

#[cfg(test)]
mod tests;
