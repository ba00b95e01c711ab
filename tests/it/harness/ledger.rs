//! What a sender knows: which events were acknowledged, and of which nothing is known.

use std::collections::HashSet;

use uuid::Uuid;

/// Most ids that a failure shows of each kind.
const SHOWN_MAX: usize = 5;

/// The sender's own account, to be compared with the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    acknowledged: HashSet<Uuid>,
    /// Sent, and neither acknowledged nor known to be refused.
    uncertain: HashSet<Uuid>,
}

impl Ledger {
    pub(crate) fn acknowledge(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        self.acknowledged.extend(ids);
    }

    pub(crate) fn doubt(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        self.uncertain.extend(ids);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.acknowledged.extend(&other.acknowledged);
        self.uncertain.extend(&other.uncertain);
    }

    /// Events acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Every acknowledged event is there once, those in doubt at most once, and nothing else is there.
    pub(crate) fn compare(&self, stored: &[Uuid]) -> Result<(), String> {
        let mut seen = HashSet::with_capacity(stored.len());
        let twice: Vec<&Uuid> = stored.iter().filter(|id| !seen.insert(**id)).collect();
        let lost: Vec<&Uuid> = self.acknowledged.iter().filter(|id| !seen.contains(*id)).collect();
        let foreign: Vec<&Uuid> = seen
            .iter()
            .filter(|id| !self.acknowledged.contains(*id) && !self.uncertain.contains(*id))
            .collect();
        if twice.is_empty() && lost.is_empty() && foreign.is_empty() {
            return Ok(());
        }
        let shown = |ids: &[&Uuid]| {
            ids.iter()
                .take(SHOWN_MAX)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        Err(format!(
            "{} stored, {} acknowledged, {} in doubt; {} acknowledged but not stored [{}], {} stored twice [{}], {} never sent [{}]",
            stored.len(),
            self.acknowledged.len(),
            self.uncertain.len(),
            lost.len(),
            shown(&lost),
            twice.len(),
            shown(&twice),
            foreign.len(),
            shown(&foreign),
        ))
    }
}

#[test]
fn the_ledger_notices_losses_repeats_and_strangers() {
    let ids: Vec<Uuid> = (0..4).map(|number| Uuid::from_u128(number + 1)).collect();
    let mut ledger = Ledger::default();
    ledger.acknowledge(ids[..2].iter().copied());
    ledger.doubt([ids[2]]);
    assert_eq!(ledger.compare(&ids[..2]), Ok(()));
    assert_eq!(ledger.compare(&ids[..3]), Ok(()));
    let fault = |stored: &[Uuid]| ledger.compare(stored).expect_err("a fault");
    assert!(fault(&ids[..1]).contains("1 acknowledged but not stored"));
    assert!(fault(&[ids[0], ids[1], ids[1]]).contains("1 stored twice"));
    assert!(fault(&[ids[0], ids[1], ids[2], ids[2]]).contains("1 stored twice"));
    assert!(fault(&ids).contains("1 never sent"));
}
