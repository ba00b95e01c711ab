//! Reaching what a process stands on before it can start: a database, brokers.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use crate::backoff::{Backoff, BackoffPolicy, Pause};
use crate::error::Chain;
use crate::readiness::ReadinessFlag;
use crate::tasks::{Stage, Tasks};

/// Whoever waits is looked at by people: half a minute without a sign would be long.
const PAUSES: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(200),
    pause_max: Duration::from_secs(5),
    attempts_max: None,
};

/// Tries until it is there, and gives it with the condition `name` of `/ready`, which says meanwhile what is waited for.
///
/// A fault that does not pass by waiting (`passes` says no) ends it, and so does the wish to stop.
pub async fn reach<T, E: Error + 'static>(
    name: impl Into<Cow<'static, str>>,
    tasks: &Tasks,
    passes: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<(T, ReadinessFlag), E> {
    let name = name.into();
    let flag = tasks.readiness(name.clone());
    let shutdown = tasks.shutdown(Stage::Intake);
    let mut backoff = Backoff::new(PAUSES);
    let mut said: Option<String> = None;
    loop {
        let error = match attempt().await {
            Ok(reached) => {
                flag.set_ready();
                return Ok((reached, flag));
            }
            Err(error) => error,
        };
        if !passes(&error) {
            return Err(error);
        }
        let why = Chain(&error).to_string();
        // Said once, and again when it is something else.
        if said.as_deref() != Some(&why) {
            tracing::warn!(what = &*name, error = why, "not reached yet; it is tried again");
            said = Some(why.clone());
        }
        flag.set_not_ready(why);
        if backoff.pause(&shutdown).await != Pause::Elapsed {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn what_is_away_is_waited_for_and_named() {
        let running = Tasks::for_test();
        let tasks = running.tasks();
        let mut attempts = 0;
        let reached = reach(
            "database",
            &tasks,
            |_: &io::Error| true,
            async || {
                attempts += 1;
                let report = tasks.ready_report();
                let condition = report.conditions.iter().find(|condition| condition.name == "database");
                let reason = condition
                    .and_then(|condition| condition.reason.as_deref())
                    .unwrap_or_default();
                match attempts {
                    1 => Err(io::Error::other("nobody answers")),
                    _ => Ok(reason.to_owned()),
                }
            },
        );
        let (reason, flag) = reached.await.unwrap();
        assert_eq!(reason, "nobody answers");
        flag.set_not_ready("gone again");
        assert!(!tasks.ready_report().ready);
    }

    #[tokio::test]
    async fn what_waiting_does_not_mend_ends_it_at_once() {
        let running = Tasks::for_test();
        let tasks = running.tasks();
        let mut attempts = 0;
        let reached = reach(
            "database",
            &tasks,
            |_: &io::Error| false,
            async || -> io::Result<()> {
                attempts += 1;
                Err(io::Error::other("wrong password"))
            },
        );
        assert_eq!(reached.await.unwrap_err().to_string(), "wrong password");
        assert_eq!(attempts, 1);
    }
}
