//! What keeps a stream open: the policy that allowed it. It is asked again whenever it changes, and every second as long as a session
//! is presented, which may end.

use std::time::Duration;

use domain::policy::{Arguments, Call, Target};
use domain::{Decision, Timestamp};
use service_kit::Clock;
use tokio::time::sleep;

use crate::identify::Caller;
use crate::policy::PolicyCell;

/// Sessions end at a second.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

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
        let may_end = self.caller.session.is_some() || self.caller.certified.is_some();
        loop {
            if let Some(reason) = self.refusal() {
                return reason;
            }
            let pause = async {
                if may_end {
                    sleep(LOOK_PAUSE).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                // The cell outlives its receivers, since we hold it.
                _changed = changes.changed() => {}
                () = pause => {}
            }
        }
    }

    fn refusal(&self) -> Option<&'static str> {
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
        let verdict = self.cell.current().look(&call, Timestamp::from_nanos(self.clock.unix_ns()))?;
        (verdict.decision == Decision::Deny).then_some(verdict.reason.as_str())
    }
}
