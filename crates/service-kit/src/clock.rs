//! The one place that reads the wall clock. Code that needs the time takes a [`Clock`].

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Where [`Clock::monotonic`] counts from.
static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tells the time: the system's, or the one a test sets. Clones tell the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Mutex<Manual>>),
}

#[derive(Debug)]
struct Manual {
    unix_ns: i64,
    monotonic: Duration,
}

impl Clock {
    /// The clock of the operating system.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `unix_ns` until its [`ManualClock`] moves it.
    pub fn manual(unix_ns: i64) -> (Self, ManualClock) {
        let state = Arc::new(Mutex::new(Manual {
            unix_ns,
            monotonic: Duration::ZERO,
        }));
        (Self(Source::Manual(Arc::clone(&state))), ManualClock(state))
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z. May jump either way when the system's clock is set.
    pub fn unix_ns(&self) -> i64 {
        match &self.0 {
            Source::System => system_unix_ns(),
            Source::Manual(state) => state.lock().unwrap_or_else(PoisonError::into_inner).unix_ns,
        }
    }

    /// Time since some moment in this process. Never goes backwards; for measuring and for deadlines.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System => Instant::now().saturating_duration_since(*PROCESS_START),
            Source::Manual(state) => state.lock().unwrap_or_else(PoisonError::into_inner).monotonic,
        }
    }
}

/// Moves a [`Clock`] made by [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Manual>>);

impl ManualClock {
    /// Lets time pass: the wall clock and the monotonic clock move together.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unix_ns = state.unix_ns.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
        state.monotonic = state.monotonic.saturating_add(by);
    }

    /// Sets the wall clock alone, as an operator or NTP would; it may go backwards.
    pub fn set_unix_ns(&self, unix_ns: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unix_ns = unix_ns;
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn system_unix_ns() -> i64 {
    // A clock before 1970 or after 2262 is wrong; the nearest number we can hold is as good as any.
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Clock;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let (clock, hand) = Clock::manual(1_000);
        let other = clock.clone();
        assert_eq!((clock.unix_ns(), clock.monotonic()), (1_000, Duration::ZERO));
        hand.advance(Duration::from_nanos(5));
        assert_eq!((other.unix_ns(), other.monotonic()), (1_005, Duration::from_nanos(5)));
        hand.set_unix_ns(7);
        assert_eq!((clock.unix_ns(), clock.monotonic()), (7, Duration::from_nanos(5)));
    }

    #[test]
    fn system_clock_is_in_this_century_and_does_not_go_back() {
        let clock = Clock::system();
        assert!(clock.unix_ns() > 1_700_000_000_000_000_000);
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }
}
