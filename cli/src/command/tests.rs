#[cfg(feature = "demo")]
use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::args::Cli;

/// Help of a command and of all below it.
#[cfg(feature = "demo")]
fn help_of(command: &mut clap::Command, path: &str, out: &mut String) {
    let path = format!("{path} {}", command.get_name());
    writeln!(out, "$ {} --help\n{}", path.trim(), command.render_long_help()).unwrap();
    for child in command.get_subcommands_mut().filter(|child| child.get_name() != "help") {
        help_of(child, &path, out);
    }
}

#[test]
#[cfg(feature = "demo")]
fn help_of_every_command() {
    let mut command = Cli::command().term_width(110);
    command.build();
    let mut out = String::new();
    help_of(&mut command, "", &mut out);
    insta::assert_snapshot!(out);
}

#[test]
fn every_command_that_does_something_shows_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let leaf = command.get_subcommands().next().is_none();
        assert!(!leaf || command.get_after_help().is_some(), "{path} has no example");
        command
            .get_subcommands()
            .filter(|child| child.get_name() != "help")
            .for_each(|child| check(child, &path));
    }
    Cli::command().debug_assert();
    check(&Cli::command(), "");
}
