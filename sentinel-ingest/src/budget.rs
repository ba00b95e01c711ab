//! The memory that all requests in flight share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;

/// Bytes that may be held at once. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    bytes: AtomicUsize,
    gauge: Gauge,
}

/// No room at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Bytes one request holds, given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize, gauge: Gauge) -> Self {
        Self(Arc::new(Shared {
            bytes_max,
            bytes: AtomicUsize::new(0),
            gauge,
        }))
    }

    pub(crate) fn hold(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    /// Holds more, at once or not at all.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Shared {
            bytes_max,
            bytes: held,
            gauge,
        } = &*self.budget.0;
        let fits = |now: usize| now.checked_add(bytes).filter(|sum| sum <= bytes_max);
        // The number orders nothing but itself.
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| NoRoom)?;
        self.bytes += bytes;
        gauge.inc_by(signed(bytes));
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.0.gauge.dec_by(signed(self.bytes));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_comes_back() {
        let budget = Budget::new(10, Gauge::default());
        let mut first = budget.hold();
        let mut second = budget.hold();
        assert_eq!(first.grow(6), Ok(()));
        assert_eq!(second.grow(5), Err(NoRoom));
        assert_eq!(second.grow(4), Ok(()));
        assert_eq!(first.grow(usize::MAX), Err(NoRoom));
        drop(first);
        assert_eq!(second.grow(6), Ok(()));
    }
}
