use clap::CommandFactory as _;

use crate::args::Cli;

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
