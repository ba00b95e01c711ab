//! What every test of the whole product needs: processes in folders of their own, HTTP, and waiting for conditions.

mod answer;
mod ledger;
mod process;
mod senders;

use std::time::Duration;

use domain::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};

pub(crate) use answer::Answer;
pub(crate) use ledger::Ledger;
pub(crate) use process::{Home, Launch, Standalone, program, run};
pub(crate) use senders::{Load, Sender, event, verify};

/// Longest wait for a condition. Machines are shared and builds are not optimised, so it is long; who waits for it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until the probe says `Ok`. At the deadline the last `Err` is the message.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match probe().await {
            Ok(value) => return value,
            Err(state) if start.elapsed() > DEADLINE => {
                panic!("{what}: not within {} s; last seen: {state}", DEADLINE.as_secs())
            }
            Err(_) => {}
        }
    }
}

/// Says that a test cannot run here. In CI that is a failure.
pub(crate) fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    assert!(setting("CI").as_deref() != Some("true"), "{test} was skipped: {reason}");
    // Past the capture of test output, so that whoever reads the run sees it.
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").ok();
}

/// A setting of the suite.
#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The time as the processes under test see it.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests stand outside the process, whose clock is the system's"
)]
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::default().plus(since_epoch.expect("a clock after 1970"))
}
