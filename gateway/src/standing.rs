//! What keeps a stream open: the policy that allowed it. It is asked again whenever it changes, and every second as long as a session
//! is presented, which may end. The proof of who called ends, too.

use std::time::Duration;

use domain::policy::{Arguments, Call, Target};
use domain::{Decision, Timestamp};
use service_kit::Clock;
use tokio::time::sleep;

use crate::identify::Caller;
use crate::policy::PolicyCell;

/// Sessions end at a second.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// A proof that ends says when.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_mins(1);

/// What is known of an open stream.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) cell: PolicyCell,
    pub(crate) clock: Clock,
    pub(crate) caller: Caller,
    pub(crate) method: String,
    pub(crate) name: Option<String>,
    pub(crate) uri: Option<String>,
}

impl Standing {
    /// Waits until the stream is not allowed any more, and tells why.
    pub(crate) async fn falls(self) -> &'static str {
        let mut changes = self.cell.changes();
        loop {
            if let Some(reason) = self.refusal() {
                return reason;
            }
            let pause = async {
                match self.pause() {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The cell outlives its receivers, since we hold it.
                _changed = changes.changed() => {}
                () = pause => {}
            }
        }
    }

    /// When to look again although nothing changed.
    fn pause(&self) -> Option<Duration> {
        if self.caller.session.is_some() || self.caller.certified.is_some() {
            return Some(LOOK_PAUSE);
        }
        // The wall clock may be set meanwhile.
        let remaining = self.caller.expires_at?.nanos().saturating_sub(self.clock.unix_ns());
        Some(Duration::from_nanos(u64::try_from(remaining).unwrap_or_default()).clamp(LOOK_PAUSE_MIN, LOOK_PAUSE_MAX))
    }

    fn refusal(&self) -> Option<&'static str> {
        let now = Timestamp::from_nanos(self.clock.unix_ns());
        let policy = self.cell.current();
        if policy.enforces() && self.caller.expires_at.is_some_and(|end| end <= now) {
            return Some("identity_expired");
        }
        let target = if self.method.is_empty() {
            Target::Open
        } else {
            Target::of(&self.method, self.name.as_deref(), self.uri.as_deref())
        };
        let call = Call {
            arguments: Arguments::Any,
            claims: self.caller.claims(),
            presented: self.caller.presented(),
            ..Call::of(target)
        };
        // Being open is no use of a session, so its pauses are none of ours.
        let verdict = policy.look(&call, now)?;
        (verdict.decision == Decision::Deny).then_some(verdict.reason.as_str())
    }
}
