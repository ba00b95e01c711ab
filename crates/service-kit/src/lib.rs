//! Process start, tasks, shutdown, health, HTTP listener, problem bodies and telemetry. No domain words.
