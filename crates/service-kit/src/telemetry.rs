//! Log records to standard error, for people or for machines, and into the in-process [`LogStore`].

use std::io::IsTerminal as _;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::logs::LogStore;

/// How log records look on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line per record, coloured on a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("reading the log filter `{filter}`")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Sends this process's records to standard error and to `logs`, both through `filter`.
///
/// A process has one subscriber: when a test or an embedder has already set one, that one stays.
pub fn install(format: LogFormat, filter: &str, logs: &LogStore) -> Result<(), TelemetryError> {
    let directives = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let subscriber = Registry::default()
        .with(directives)
        .with(lines(format, std::io::stderr))
        .with(logs.layer());
    if subscriber.try_init().is_err() {
        tracing::debug!("a subscriber is already set; keeping it");
    }
    Ok(())
}

/// Makes panics log records like any other fault, so that they reach the log store and machine-read logs. The text of a panic
/// is ours; it names a broken assumption and no data.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, text = panic.payload_as_str(), "a task panicked");
    }));
}

type FilteredRegistry = Layered<EnvFilter, Registry>;

fn lines<W>(format: LogFormat, writer: W) -> Box<dyn Layer<FilteredRegistry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{EnvFilter, Registry};

    use super::{LogFormat, lines};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = Registry::default()
            .with(EnvFilter::new("info"))
            .with(lines(format, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("request", trace_id = "4bf9").entered();
            tracing::debug!("left out");
            tracing::warn!(events = 3, "batch refused");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_objects_with_the_span() {
        let text = written(LogFormat::Json);
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(timestamp.as_str().unwrap().ends_with('Z'), "{timestamp}");
        insta::assert_json_snapshot!(line);
    }

    #[test]
    fn human_lines_are_one_per_record() {
        let text = written(LogFormat::Human);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(r#"WARN request{trace_id="4bf9"}: service_kit::telemetry::tests: batch refused events=3"#),
            "{text}"
        );
    }
}
