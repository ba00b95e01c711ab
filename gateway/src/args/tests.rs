use clap::{CommandFactory as _, Parser as _};

use super::{Args, Config};
use crate::delivery::ApiKey;

#[test]
fn help_is_as_agreed() {
    let mut command = Args::command().term_width(100);
    insta::assert_snapshot!(command.render_long_help().to_string());
}

#[test]
fn the_defaults_are_those_of_a_sidecar() {
    let args = Args::try_parse_from(["mcp-gateway", "--server-name", "payments"]).unwrap();
    let config = Config::try_from(args.gateway).unwrap();
    assert_eq!((config.address.port(), config.admin_address.port()), (8091, 9103));
    assert_eq!(config.route.upstream, "http://127.0.0.1:8088/");
    assert!(config.delivery.is_none() && !config.limits.callers.loopback_only);
}

#[test]
fn keys_are_not_shown() {
    let args = [
        "mcp-gateway",
        "--server-name=payments",
        "--host=127.0.0.1",
        "--analytics-ingest-url=http://ingest:8081/events",
        "--analytics-api-key=mcpi_a_secret",
    ];
    let config = Config::try_from(Args::try_parse_from(args).unwrap().gateway).unwrap();
    let delivery = config.delivery.as_ref().unwrap();
    assert_eq!(delivery.api_key, ApiKey::Value("mcpi_a_secret".to_owned()));
    assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    assert!(config.limits.callers.loopback_only);
}

#[test]
fn wrong_addresses_name_the_option() {
    for (option, value) in [("--upstream-url", "/path"), ("--analytics-ingest-url", "ftp://x/")] {
        let args = Args::try_parse_from(["mcp-gateway", "--server-name=x", option, value]).unwrap();
        let error = Config::try_from(args.gateway).unwrap_err().to_string();
        assert!(error.contains(option) && error.contains(value), "{error}");
    }
    let args = Args::try_parse_from(["mcp-gateway", "--server-name= "]).unwrap();
    assert!(
        Config::try_from(args.gateway)
            .unwrap_err()
            .to_string()
            .contains("--server-name")
    );
}
