//! Settings of the processor.

use std::path::PathBuf;
use std::time::Duration;

use sentinel_queue::BatchLimit;
use service_kit::{BackoffPolicy, parse_duration};

/// Options of the processor. Flatten this group into the arguments of a service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Processor")]
pub struct Args {
    /// Most events of one insert.
    #[arg(
        id = "processor_batch_events_max",
        long = "processor-batch-events-max",
        env = "SENTINEL_PROCESSOR_BATCH_EVENTS_MAX",
        hide_env_values = true,
        default_value_t = 8_192,
        value_name = "COUNT"
    )]
    pub batch_events_max: usize,

    /// Most bytes of one insert, as the queue keeps the events.
    #[arg(
        id = "processor_batch_bytes_max",
        long = "processor-batch-bytes-max",
        env = "SENTINEL_PROCESSOR_BATCH_BYTES_MAX",
        hide_env_values = true,
        default_value_t = 8 << 20,
        value_name = "BYTES"
    )]
    pub batch_bytes_max: usize,

    /// How long an insert may wait for more events, such as `200ms`. Zero inserts what is there at once; a store that dislikes
    /// small inserts wants more. It is added to the time until events are visible.
    #[arg(
        id = "processor_batch_age_max",
        long = "processor-batch-age-max",
        env = "SENTINEL_PROCESSOR_BATCH_AGE_MAX",
        hide_env_values = true,
        default_value = "0s",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    pub batch_age_max: Duration,

    /// Longest pause between attempts while the store or the dead letters refuse, such as `20s`.
    #[arg(
        id = "processor_retry_pause_max",
        long = "processor-retry-pause-max",
        env = "SENTINEL_PROCESSOR_RETRY_PAUSE_MAX",
        hide_env_values = true,
        default_value = "20s",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    pub retry_pause_max: Duration,

    /// How long the processor goes on with what waits in the queue once it is asked to stop, such as `5s`; the queue keeps the rest
    /// for the next. Keep it below the shutdown timeout.
    #[arg(
        id = "processor_drain_time_max",
        long = "processor-drain-time-max",
        env = "SENTINEL_PROCESSOR_DRAIN_TIME_MAX",
        hide_env_values = true,
        default_value = "5s",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    pub drain_time_max: Duration,
}

impl Default for Args {
    /// The values that `--help` shows.
    fn default() -> Self {
        Self {
            batch_events_max: 8_192,
            batch_bytes_max: 8 << 20,
            batch_age_max: Duration::ZERO,
            retry_pause_max: Duration::from_secs(20),
            drain_time_max: Duration::from_secs(5),
        }
    }
}

/// Checked settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bounds of one insert.
    pub limit: BatchLimit,
    /// How long an insert may wait for more events.
    pub age_max: Duration,
    /// Pauses between attempts.
    pub retry: BackoffPolicy,
    /// How long it goes on once it is asked to stop.
    pub drain_time_max: Duration,
    /// Where the completeness ledger outlives the process; `None`: it begins anew with each.
    pub ledger_file: Option<PathBuf>,
}

/// A setting is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} must be {expected}, got {got}")]
pub struct ConfigError {
    option: &'static str,
    expected: &'static str,
    got: String,
}

/// One insert of a columnar store is one block; more rows than this are several.
const EVENTS_MAX: usize = 500_000;
const BYTES_MAX: usize = 256 << 20;
const AGE_MAX: Duration = Duration::from_mins(1);
const PAUSE_MIN: Duration = Duration::from_millis(10);

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let check = |option, expected, fits: bool, got: &dyn ToString| {
            if fits {
                Ok(())
            } else {
                Err(ConfigError {
                    option,
                    expected,
                    got: got.to_string(),
                })
            }
        };
        let (events, bytes) = (args.batch_events_max, args.batch_bytes_max);
        check(
            "--processor-batch-events-max",
            "1 to 500000 events",
            (1..=EVENTS_MAX).contains(&events),
            &events,
        )?;
        check(
            "--processor-batch-bytes-max",
            "1024 to 268435456 bytes",
            (1_024..=BYTES_MAX).contains(&bytes),
            &bytes,
        )?;
        let seconds = |duration: Duration| format!("{}s", duration.as_secs_f64());
        check(
            "--processor-batch-age-max",
            "at most 60s",
            args.batch_age_max <= AGE_MAX,
            &seconds(args.batch_age_max),
        )?;
        check(
            "--processor-retry-pause-max",
            "at least 10ms",
            args.retry_pause_max >= PAUSE_MIN,
            &seconds(args.retry_pause_max),
        )?;
        let retry = BackoffPolicy {
            pause_max: args.retry_pause_max,
            ..BackoffPolicy::default()
        };
        Ok(Self {
            limit: BatchLimit { events, bytes },
            age_max: args.batch_age_max,
            retry,
            drain_time_max: args.drain_time_max,
            ledger_file: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "processor", term_width = 100)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn help_is_as_reviewed() {
        insta::assert_snapshot!(Command::command().render_long_help().to_string());
    }

    #[test]
    fn defaults_of_help_and_code_agree_and_are_sound() {
        let parsed = Config::try_from(Command::parse_from(["processor"]).args).unwrap();
        assert_eq!(parsed, Config::try_from(Args::default()).unwrap());
    }

    #[test]
    fn each_option_out_of_range_is_named_with_what_would_be_right() {
        let cases = [
            (
                "--processor-batch-events-max=0",
                "--processor-batch-events-max must be 1 to 500000 events, got 0",
            ),
            (
                "--processor-batch-bytes-max=1",
                "--processor-batch-bytes-max must be 1024 to 268435456 bytes, got 1",
            ),
            (
                "--processor-batch-age-max=2m",
                "--processor-batch-age-max must be at most 60s, got 120s",
            ),
            (
                "--processor-retry-pause-max=0s",
                "--processor-retry-pause-max must be at least 10ms, got 0s",
            ),
        ];
        for (option, text) in cases {
            let args = Command::parse_from(["processor", option]).args;
            assert_eq!(Config::try_from(args).unwrap_err().to_string(), text);
        }
    }
}
