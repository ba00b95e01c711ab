//! Migrations of the database as a command: planned, or applied.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use sentinel_store::clickhouse::{Config, Planned, StoreArgs, apply, plan};
use service_kit::error::Chain;

/// Brings the ClickHouse database to the version of this program.
///
/// Migrations go forwards only, and what was interrupted is simply applied once more. Processors and the platform API wait for it.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sentinel-migrate", version)]
pub struct Command {
    #[command(flatten)]
    pub how: How,

    #[command(flatten)]
    pub store: StoreArgs,
}

/// One of both is asked for.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// Print the statements that would run, and change nothing.
    #[arg(long)]
    pub plan: bool,

    /// Run them, and set how long rows are kept.
    #[arg(long)]
    pub apply: bool,
}

/// Does what was asked for, and gives the exit code.
pub fn run(command: Command) -> ExitCode {
    let (text, code) = match carry_out(command) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (format!("error: {:#}\n", Chain(&*error)), ExitCode::FAILURE),
    };
    // Nobody is left to tell when the output is closed.
    let _closed = if code == ExitCode::SUCCESS {
        io::stdout().write_all(text.as_bytes())
    } else {
        io::stderr().write_all(text.as_bytes())
    };
    code
}

fn carry_out(command: Command) -> anyhow::Result<String> {
    // Positions in the queue are no matter of migrations.
    let config = command.store.config("")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        if command.how.apply {
            Ok(applied(&config, &apply(&config).await?))
        } else {
            Ok(planned(&config, &plan(&config).await?))
        }
    })
}

fn planned(config: &Config, planned: &[Planned]) -> String {
    let mut text = String::new();
    for Planned { migration, statements } in planned {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "-- migration {}: {}", migration.version, migration.name);
        for statement in statements {
            let _infallible = writeln!(text, "{statement};\n");
        }
    }
    if planned.is_empty() {
        let _infallible = writeln!(text, "-- database {} has every migration of this program", config.database);
    }
    text
}

fn applied(config: &Config, applied: &[Planned]) -> String {
    let mut text = String::new();
    for Planned { migration, statements } in applied {
        let (version, name, count) = (migration.version, migration.name, statements.len());
        let _infallible = writeln!(text, "applied migration {version}: {name} ({count} statements)");
    }
    if applied.is_empty() {
        let _infallible = writeln!(text, "database {} has every migration of this program", config.database);
    }
    let days = |kept: Option<std::time::Duration>| {
        kept.map_or_else(|| "for ever".to_owned(), |kept| format!("{} days", kept.as_secs() / 86_400))
    };
    let (events, hours) = (days(config.retention), days(config.hourly_retention));
    let _infallible = writeln!(text, "events are kept {events}, hourly rollups {hours}, daily ones for ever");
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn help_is_as_agreed() {
        insta::assert_snapshot!(Command::command().term_width(100).render_long_help());
    }

    #[test]
    fn either_planning_or_applying_is_asked_for() {
        assert!(Command::try_parse_from(["sentinel-migrate"]).is_err());
        assert!(Command::try_parse_from(["sentinel-migrate", "--plan", "--apply"]).is_err());
        assert!(Command::try_parse_from(["sentinel-migrate", "--plan"]).unwrap().how.plan);
    }

    #[test]
    fn what_is_done_is_told_for_people() {
        let command = Command::try_parse_from(["sentinel-migrate", "--plan"]).unwrap();
        let config = command.store.config("").unwrap();
        assert_eq!(
            applied(&config, &[]),
            "database mcp has every migration of this program\nevents are kept 90 days, hourly rollups 400 days, daily ones for ever\n"
        );
        assert_eq!(planned(&config, &[]), "-- database mcp has every migration of this program\n");
    }
}
