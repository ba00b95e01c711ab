//! `sentinel migrate`: the database of a cluster, brought to the version of the installed programs.
//!
//! Migrations belong to the programs that need them, so the program beside the processor carries them out: this command finds it and
//! hands everything on. On a Kubernetes cluster a Job runs the same program.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::fault::{Exit, Fault};
use crate::render::Done;

const PROGRAM: &str = "sentinel-migrate";

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Print the statements that would run, and change nothing
    #[arg(long, required_unless_present = "apply", conflicts_with = "apply")]
    plan: bool,

    /// Run them, and set how long rows are kept
    #[arg(long)]
    apply: bool,

    /// Options of sentinel-migrate, such as `-- --clickhouse-url http://127.0.0.1:8123`; `CLICKHOUSE_URL`, `CLICKHOUSE_DB` and the others of the
    /// environment hold as well
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

pub(crate) fn run(args: &MigrateArgs) -> Result<Done, Fault> {
    let how = if args.apply { "--apply" } else { "--plan" };
    let status = Command::new(program()).arg(how).args(&args.options).status();
    match status {
        Ok(status) if status.success() => Ok(Done::Well),
        // It has said why.
        Ok(_) => Ok(Done::ButNotWell),
        Err(error) => {
            let fault = Fault::new(Exit::Failed, format!("starting {PROGRAM}")).caused_by(&error);
            Err(fault.hint(
                "install it beside mcp-runtime or on the PATH; on Kubernetes the Job mcp-sentinel-migrate of deploy/base runs it",
            ))
        }
    }
}

/// Beside this program when it is there, else wherever the PATH has it.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PROGRAM.into())
}
