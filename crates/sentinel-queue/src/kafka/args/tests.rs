use clap::{CommandFactory as _, Parser};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "appender", term_width = 100)]
struct Appender {
    #[command(flatten)]
    args: AppenderArgs,
}

#[derive(Debug, Parser)]
#[command(name = "tail", term_width = 100)]
struct Tail {
    #[command(flatten)]
    args: TailArgs,
}

#[test]
fn help_of_the_appender_is_as_reviewed() {
    insta::assert_snapshot!(Appender::command().render_long_help().to_string());
}

#[test]
fn help_of_the_tail_is_as_reviewed() {
    insta::assert_snapshot!(Tail::command().render_long_help().to_string());
}

#[test]
fn the_defaults_are_sound() {
    AppenderConfig::try_from(Appender::parse_from(["appender"]).args).unwrap();
    TailConfig::try_from(Tail::parse_from(["tail"]).args).unwrap();
}

#[test]
fn what_cannot_be_is_named_with_what_would_be_right() {
    let mut cases = vec![
        (
            vec!["--kafka-brokers= "],
            "--kafka-brokers must be addresses, `host:port` with commas between, got ` `",
        ),
        (
            vec!["--kafka-topic=a b"],
            "--kafka-topic must be 1 to 249 letters, digits, `.`, `_` or `-`, got `a b`",
        ),
        (vec!["--kafka-partitions=0"], "--kafka-partitions must be 1 to 10000, got 0"),
        (
            vec!["--kafka-linger-ms=99999"],
            "--kafka-linger-ms must be 0 to 10000, got 99999",
        ),
        (
            vec!["--kafka-record-bytes-max=1"],
            "--kafka-record-bytes-max must be 1024 to 67108864, got 1",
        ),
        (
            vec!["--kafka-security=sasl_plaintext", "--kafka-sasl-username=ann"],
            "--kafka-security needs --kafka-sasl-password-file as well",
        ),
        (
            vec!["--kafka-tls-cert-file=cert.pem"],
            "--kafka-tls-cert-file needs --kafka-tls-key-file as well",
        ),
    ];
    if !cfg!(feature = "kafka-tls") {
        cases.push((
            vec!["--kafka-security=ssl"],
            "--kafka-security needs a build with the feature `kafka-tls`",
        ));
    }
    for (options, text) in cases {
        let args = Appender::parse_from(["appender"].into_iter().chain(options)).args;
        assert_eq!(AppenderConfig::try_from(args).unwrap_err().to_string(), text);
    }
}
