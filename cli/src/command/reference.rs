//! The reference of all commands, made from their definitions: as Markdown and as manual pages.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use serde_json::json;

use crate::args::{Cli, Output};
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};

/// Columns of help in the reference, whatever terminal it is made on.
const COLUMNS: usize = 110;

pub(crate) fn run(man: Option<&Path>) -> Result<Done, Fault> {
    match man {
        None => render::text(&markdown())?,
        Some(folder) => pages(folder)?,
    }
    Ok(Done::Well)
}

/// Every command with its help, as `docs/commands.md` has it.
pub(crate) fn markdown() -> String {
    let mut command = Cli::command().term_width(COLUMNS);
    command.build();
    let mut out =
        "# Commands\n\nWhat `--help` says, for every command. Made by `mcp-runtime reference`; a test compares.\n".to_owned();
    sections(&mut command, "", &mut out);
    out
}

fn sections(command: &mut Command, path: &str, out: &mut String) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    let help = command.render_long_help().to_string();
    let is_root = path == command.get_name();
    let mut is_global = false;
    let lines = help.lines().map(str::trim_end).filter(|line| {
        // What every command knows is told once.
        if !line.is_empty() && !line.starts_with(' ') {
            is_global = *line == "Everywhere:";
        }
        is_root || !is_global
    });
    let help: Vec<_> = lines.collect();
    // Writing to a String cannot fail.
    let _ignored = write!(out, "\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    let shown = |child: &&mut Command| child.get_name() != "help" && !child.is_hide_set();
    for child in command.get_subcommands_mut().filter(shown) {
        sections(child, &path, out);
    }
}

/// A manual page for each command.
fn pages(folder: &Path) -> Result<(), Fault> {
    let fault = |error: std::io::Error| {
        Fault::new(Exit::Failed, format!("writing manual pages into {}", folder.display())).caused_by(&error)
    };
    std::fs::create_dir_all(folder).map_err(fault)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(fault)?;
    render::document(Output::Table, &json!({ "folder": folder }), |_| {
        format!("Manual pages are in {}.", folder.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference without the sections of `up`, which builds without the standalone do not have.
    fn comparable(text: &str) -> String {
        let sections = text.split("\n## ");
        let kept = sections.filter(|section| cfg!(feature = "demo") || !section.starts_with("mcp-runtime up\n"));
        let text = kept.collect::<Vec<_>>().join("\n## ");
        if cfg!(feature = "demo") {
            return text;
        }
        // The first section lists it among the commands.
        text.lines()
            .filter(|line| !line.starts_with("  up "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn the_reference_is_what_the_commands_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
        let written = std::fs::read_to_string(path).unwrap();
        let (written, made) = (comparable(&written), comparable(&markdown()));
        let first = written.lines().zip(made.lines()).find(|(written, made)| written != made);
        assert!(
            written.trim() == made.trim(),
            "docs/commands.md is not what the commands say; run `cargo run -p cli -- reference > docs/commands.md`. First: {first:?}"
        );
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        pages(folder.path()).unwrap();
        for name in [
            "mcp-runtime",
            "mcp-runtime-adapter-stdio",
            "mcp-runtime-server-policy-explain",
        ] {
            let page = std::fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
    }
}
