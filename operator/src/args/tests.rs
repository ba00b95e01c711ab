use clap::CommandFactory as _;

use super::*;

fn config(options: &[&str]) -> Result<Config, ConfigError> {
    let args = Args::try_parse_from([&["mcp-operator"], options].concat()).unwrap();
    Config::try_from(args.operator)
}

#[test]
fn help_is_as_agreed() {
    insta::assert_snapshot!(Args::command().term_width(110).render_long_help());
}

#[test]
fn options_become_settings() {
    let config = config(&[
        "--default-gateway",
        "gateways/public",
        "--no-leader-election",
        "--ingest-url",
        "",
    ])
    .unwrap();
    assert_eq!(
        config.settings.default_gateway,
        Some(("gateways".to_owned(), "public".to_owned()))
    );
    assert!(config.lease.is_none());
    assert_eq!(config.settings.ingest_url, None);
}

#[test]
fn wrong_options_are_refused_by_name() {
    for (options, message) in [
        (
            ["--default-gateway", "public"],
            "`--default-gateway` must be NAMESPACE/NAME, got `public`",
        ),
        (
            ["--ingest-url", "ingest"],
            "`--ingest-url` must begin with http:// or https://, got `ingest`",
        ),
        (["--gateway-image", " "], "`--gateway-image` must not be blank"),
    ] {
        assert_eq!(config(&options).unwrap_err().to_string(), message);
    }
}

#[test]
fn printing_takes_no_options_of_running() {
    assert_eq!(
        Args::try_parse_from(["mcp-operator", "crds"]).unwrap().command,
        Some(Command::Crds)
    );
    assert!(Args::try_parse_from(["mcp-operator", "--port", "1", "crds"]).is_err());
}
