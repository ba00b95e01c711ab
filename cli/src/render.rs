//! The only file that prints.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anstream::{eprint, eprintln, print, println};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::args::Output;
use crate::fault::{Exit, Fault};

/// How a command ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is as asked.
    Well,
    /// It ran, and what it shows is not well: exit code 1.
    ButNotWell,
}

/// Prints a fault and turns the end of a command into an exit code.
pub(crate) fn finish(result: Result<Done, Fault>) -> ExitCode {
    match result {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::ButNotWell) => ExitCode::from(Exit::Failed as u8),
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(fault.exit as u8)
        }
    }
}

/// Prints one document.
pub(crate) fn document<T: Serialize>(output: Output, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Fault> {
    match output {
        Output::Table => line(&table(value)),
        Output::Json => line(&serde_json::to_string_pretty(value).map_err(unprintable)?),
        Output::Yaml => text(&serde_saphyr::to_string(value).map_err(unprintable)?),
        Output::Name => names(&serde_json::to_value(value).map_err(unprintable)?)
            .iter()
            .try_for_each(|name| line(name)),
    }
}

/// What the things in an answer are called: of a list all of them, of one thing its own name.
fn names(value: &Value) -> Vec<String> {
    const KEYS: [&str; 5] = ["name", "slug", "tool_name", "email", "id"];
    let name = |value: &Value| KEYS.iter().find_map(|key| value.get(key)?.as_str().map(crate::text::safe));
    if let Some(own) = name(value) {
        return vec![own];
    }
    let inner: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    let list = inner.iter().find_map(|inner| inner.as_array());
    match list {
        Some(items) => items.iter().filter_map(name).collect(),
        None => inner.into_iter().filter_map(name).collect(),
    }
}

/// Prints one of many documents that follow each other.
pub(crate) fn item<T: Serialize>(output: Output, value: &T, row: impl FnOnce(&T) -> String) -> Result<(), Fault> {
    match output {
        Output::Table => line(&row(value)),
        Output::Json => line(&serde_json::to_string(value).map_err(unprintable)?),
        Output::Yaml => text(&format!("---\n{}", serde_saphyr::to_string(value).map_err(unprintable)?)),
        Output::Name => names(&serde_json::to_value(value).map_err(unprintable)?)
            .iter()
            .try_for_each(|name| line(name)),
    }
}

/// A line on standard output. A reader that went away ends the command without a word, as with other tools in a pipe.
pub(crate) fn line(text: &str) -> Result<(), Fault> {
    writeln!(anstream::stdout(), "{text}").map_err(|error| gone(&error))
}

/// Text as it is, for documents that bring their own line ends.
pub(crate) fn text(text: &str) -> Result<(), Fault> {
    write!(anstream::stdout(), "{text}").map_err(|error| gone(&error))
}

/// Bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Fault> {
    std::io::stdout().write_all(bytes).map_err(|error| gone(&error))
}

/// Something beside the answer, for people only.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// A question to the person at the terminal; the answer is typed behind it.
pub(crate) fn question(text: &str) {
    eprint!("{text}");
}

/// Clears the screen for the next picture of `--watch`; on anything but a terminal it only parts the pictures.
pub(crate) fn next_picture() {
    if std::io::stdout().is_terminal() {
        print!("\x1b[2J\x1b[H");
    } else {
        println!();
    }
}

/// A table with plain columns, cut to the terminal's width.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(Cell::new));
    for row in rows {
        table.add_row(row.into_iter().map(Cell::new));
    }
    // The preset pads lines to equal width; the ends are of no use to anybody.
    table
        .to_string()
        .lines()
        .map(|line| line.trim_end().trim_start_matches(' '))
        .collect::<Vec<_>>()
        .join("\n")
}

fn unprintable<E: std::error::Error + 'static>(error: E) -> Fault {
    Fault::new(Exit::Failed, "writing the answer").caused_by(&error)
}

fn gone(error: &std::io::Error) -> Fault {
    Fault::new(Exit::Failed, "writing to standard output").caused_by(error)
}
