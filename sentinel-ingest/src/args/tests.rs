use clap::{CommandFactory as _, Parser as _};

use super::{Args, Config, ConfigError};

/// Does nothing.
#[derive(clap::Parser)]
#[command(name = "probe")]
struct Probe {
    #[command(flatten)]
    ingest: Args,
}

#[test]
fn default_is_what_the_command_line_gives() {
    let parsed = Probe::try_parse_from(["probe"]).unwrap();
    assert_eq!(Config::try_from(&parsed.ingest), Ok(Config::default()));
}

#[test]
fn settings_that_refuse_everything_are_refused() {
    let config = |option: &str, value: &str| {
        let parsed = Probe::try_parse_from(["probe", option, value]).unwrap();
        Config::try_from(&parsed.ingest)
    };
    for option in [
        "--ingest-body-bytes-max",
        "--ingest-events-max",
        "--ingest-event-bytes-max",
        "--ingest-memory-bytes-max",
        "--ingest-decompressed-bytes-max",
    ] {
        assert!(matches!(config(option, "0"), Err(ConfigError::TooSmall { option: named, .. }) if named == option));
    }
    for option in ["--ingest-event-age-max", "--ingest-append-timeout"] {
        assert_eq!(config(option, "0s"), Err(ConfigError::Zero { option }));
    }
}

#[test]
fn help_is_as_agreed() {
    let mut command = Probe::command().term_width(100);
    insta::assert_snapshot!(command.render_long_help());
}
