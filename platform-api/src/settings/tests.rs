use clap::{CommandFactory as _, Parser};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "mcp-platform-api")]
struct Command {
    #[command(flatten)]
    args: Args,
}

#[test]
fn help_is_as_agreed() {
    insta::assert_snapshot!(Command::command().term_width(120).render_long_help());
}

#[test]
fn defaults_are_those_that_help_shows() {
    let config = Config::try_from(Command::parse_from(["x"]).args).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn keys_are_read_from_a_file_and_faults_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::try_from(Command::parse_from(["x", "--service-keys-file", path.to_str().unwrap()]).args)
    };
    let good = format!("# keys\n\ngrafana sha256:{} admin\n", "0".repeat(64));
    assert_eq!(read(&good).unwrap().service_keys.len(), 1);
    let error = read("# keys\ngrafana\n").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
    let zero = Config::try_from(Command::parse_from(["x", "--queries-max", "0"]).args).unwrap_err();
    assert_eq!(zero.to_string(), "`--queries-max` must be at least 1");
}
