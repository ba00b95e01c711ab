//! What a benchmark prints: the machine, the moment, and a table of figures with their bars, in Markdown.

use std::fs;
use std::path::Path;

use comfy_table::Table;
use domain::Timestamp;
use service_kit::Clock;

/// A table of figures.
#[derive(Debug)]
pub struct Report {
    title: String,
    table: Table,
    notes: Vec<String>,
}

impl Report {
    /// An empty table under a title.
    pub fn new(title: impl Into<String>) -> Self {
        let mut table = Table::new();
        table
            .load_preset(comfy_table::presets::ASCII_MARKDOWN)
            .set_header(["figure", "value", "bar"]);
        Self {
            title: title.into(),
            table,
            notes: Vec::new(),
        }
    }

    /// One figure; `bar` says what quality asks for, or is empty for information.
    pub fn row(&mut self, figure: impl Into<String>, value: impl Into<String>, bar: &str) {
        self.table.add_row([figure.into(), value.into(), bar.to_owned()]);
    }

    /// A sentence under the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints everything.
    #[expect(clippy::print_stdout, reason = "this is what a benchmark is for")]
    pub fn print(&self) {
        println!("## {}\n\n{}", self.title, self.table);
        for note in &self.notes {
            println!("\n{note}");
        }
        println!();
    }
}

/// Prints where and when this runs, and in which profile the programs were built.
#[expect(clippy::print_stdout, reason = "this is what a benchmark is for")]
pub fn print_machine(profile: &str) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    // Not what this process may use: the script confines clients to one core.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let now = Timestamp::from_seconds(Clock::system().unix_ns() / 1_000_000_000);
    println!(
        "{now}; {cores} cores of {model}; Linux {}; load before the run {}; profile {profile}\n",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    );
}

/// The middle one of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes of all files in a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
