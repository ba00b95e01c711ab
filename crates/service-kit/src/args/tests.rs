use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use super::{DurationError, ProcessArgs, parse_duration};

#[test]
fn durations_read_every_unit() {
    for (text, ms) in [
        ("250ms", 250),
        ("5s", 5_000),
        ("7", 7_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
    ] {
        assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
    }
}

#[test]
fn durations_refuse_what_is_unclear() {
    for text in ["", "s", "-1s", "1.5s", "5 weeks", "1s2s", "five"] {
        assert!(matches!(parse_duration(text), Err(DurationError::Shape)), "{text}");
    }
    assert!(matches!(parse_duration("18446744073709551615d"), Err(DurationError::TooLong)));
    assert!(matches!(parse_duration("36501d"), Err(DurationError::TooLong)));
}

#[test]
fn default_is_what_the_command_line_gives() {
    let parsed = ProbeArgs::try_parse_from(["probe"]).unwrap();
    assert_eq!(format!("{:?}", parsed.process), format!("{:?}", ProcessArgs::default()));
}

/// Does nothing.
#[derive(clap::Parser)]
#[command(name = "probe")]
struct ProbeArgs {
    #[command(flatten)]
    process: ProcessArgs,
}

#[test]
fn help_is_as_agreed() {
    let mut command = ProbeArgs::command().term_width(100);
    insta::assert_snapshot!(command.render_long_help());
}
