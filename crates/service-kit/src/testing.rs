//! What the tests of this crate share.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Longest wait for anything in a test; a test that gets here has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits `future`, and fails the test by name when it takes too long.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: still waiting after {DEADLINE:?}"))
}

/// Waits until `check` is content; it says what it saw when not.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut turns = tokio::time::interval(Duration::from_millis(2));
    loop {
        match check().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => panic!("{what}: last saw {seen}"),
            Err(_) => turns.tick().await,
        };
    }
}
