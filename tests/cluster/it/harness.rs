//! What the tests share: brokers and engine, processes, proxies that cut and lose, senders with a ledger.

pub(crate) mod backends;
pub(crate) mod installation;
pub(crate) mod ledger;
pub(crate) mod process;
pub(crate) mod proxy;

use std::time::Duration;

use domain::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Longest wait for a condition. Machines are shared and builds are not optimised, so it is long; who waits for it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

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

/// A setting of the suite.
#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says that something cannot be tested here. In CI that is a failure.
pub(crate) fn skip(what: &str, reason: &str) {
    use std::io::Write as _;
    assert!(setting("CI").as_deref() != Some("true"), "{what} was skipped: {reason}");
    // Past the capture of test output, so that whoever reads the run sees it.
    writeln!(std::io::stderr(), "skipped: {what}: {reason}").ok();
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

/// An HTTP client that waits for one answer as long as a sender would.
pub(crate) fn http(wait: Duration) -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().timeout(wait).build();
    client.expect("an HTTP client")
}
