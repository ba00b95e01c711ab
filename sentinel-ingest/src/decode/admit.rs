//! Checking each event and completing it.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use domain::event::{Draft, Receipt};
use domain::{Event, EventFault, EventId, FaultCode, Timestamp};

use serde_json::value::RawValue;

use super::Job;
use super::split::Item;
use crate::answer::Rejections;

#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) events: Vec<Event>,
    pub(super) duplicates: usize,
    pub(super) rejections: Rejections,
}

/// Takes what is fine, and notes of the rest what is wrong with it.
#[derive(Debug)]
pub(super) struct Admitter<'a> {
    receipt: Receipt<'a>,
    ids: FreshIds,
    admitted: Admitted,
    /// Ids so far; `None` where one event cannot repeat itself, as in most requests of older senders.
    seen: Option<HashSet<EventId>>,
}

impl<'a> Admitter<'a> {
    /// For the events of a job, at most `count`.
    pub(super) fn new(job: &'a Job, count: usize) -> Self {
        Self {
            receipt: Receipt {
                now: job.now,
                key: Some(job.sender.id()),
                rule: job.sender.rule(),
                trace_id: job.trace_id,
                age_max: job.config.event_age_max,
                ahead_max: job.config.event_ahead_max,
            },
            ids: FreshIds::new(job.now),
            admitted: Admitted {
                events: Vec::with_capacity(count),
                duplicates: 0,
                rejections: Rejections::default(),
            },
            seen: (count > 1).then(|| HashSet::with_capacity(count)),
        }
    }

    pub(super) fn add(&mut self, index: usize, draft: Result<Draft, EventFault>) {
        let Self {
            receipt,
            ids,
            admitted,
            seen,
        } = self;
        match draft.and_then(|draft| draft.admit(receipt, || ids.next())) {
            Ok(event) if seen.as_mut().is_some_and(|seen| !seen.insert(event.id)) => admitted.duplicates += 1,
            Ok(event) => admitted.events.push(event),
            Err(fault) => admitted.rejections.add(index, fault),
        }
    }

    pub(super) fn finish(self) -> Admitted {
        self.admitted
    }
}

/// An event as posted.
pub(super) fn draft(item: &Item<'_>, bytes_max: usize) -> Result<Draft, EventFault> {
    let json = match item {
        Item::Json(json) => json,
        Item::Broken(fault) => return Err(fault.clone()),
    };
    if json.len() > bytes_max {
        return Err(EventFault {
            code: FaultCode::TooLarge,
            message: format!(
                "the event has {} bytes, at most {bytes_max} are taken; shorten it",
                json.len()
            ),
        });
    }
    Draft::parse(json).map_err(|fault| syntax_first(fault, json))
}

/// A field that breaks off looks like a field of a wrong type from within; whether the text is JSON at all is asked of the whole.
fn syntax_first(fault: EventFault, json: &[u8]) -> EventFault {
    match serde_json::from_slice::<&RawValue>(json) {
        Err(error) if fault.code == FaultCode::InvalidField => EventFault {
            code: FaultCode::InvalidJson,
            message: format!("the event is not valid JSON: {error}"),
        },
        _ => fault,
    }
}

/// Makes ids of version 7 that share the time of a request and count up from a random start, so that ids have the order of events.
#[derive(Debug)]
struct FreshIds {
    millis: u64,
    salt: u64,
    next: u64,
}

impl FreshIds {
    fn new(now: Timestamp) -> Self {
        // The system seeds each thread's first state, and each later one differs: unique, though not fit for secrets.
        let random = RandomState::new();
        Self {
            millis: u64::try_from(now.millis()).unwrap_or(0),
            salt: random.hash_one(0_u8),
            next: random.hash_one(now.nanos()),
        }
    }

    fn next(&mut self) -> EventId {
        let number = self.next;
        self.next = number.wrapping_add(1);
        // Of these ten bytes, six bits give way to version and variant; the count goes on in the lower 62.
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&self.salt.to_be_bytes()[..2]);
        bytes[2..].copy_from_slice(&number.to_be_bytes());
        EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(self.millis, &bytes).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ids_are_version_seven_in_order_and_apart() {
        let now = Timestamp::from_millis(1_795_000_000_123);
        let (mut ids, mut others) = (FreshIds::new(now), FreshIds::new(now));
        let made: Vec<_> = (0..1_000).map(|_| ids.next()).collect();
        assert!(made.iter().all(|id| id.made_at_millis() == Some(1_795_000_000_123)));
        assert!(
            made.windows(2).filter(|pair| pair[0] > pair[1]).count() <= 1,
            "the count may wrap once"
        );
        assert!(!made.contains(&others.next()));
    }
}
