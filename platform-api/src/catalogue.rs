//! The tools there are: what servers declare, compared with what their gateways saw them list. Pure, so that every rule has a test.

use std::collections::{BTreeMap, HashMap};

use crds::server::ToolSpec;
use domain::Timestamp;
use domain::inventory::{Inventory, ListedTool};
use domain::policy::{Risk, SideEffect, Trust};

/// How long before the newest listing another one still counts as part of it: long lists come in pages.
const PAGES_WITHIN: std::time::Duration = std::time::Duration::from_mins(10);

/// How what is declared stands to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// Declared, and there as far as known.
    Declared,
    /// Declared, and no longer listed.
    Missing,
    /// Listed, and not declared: nobody may call it.
    Ungoverned,
    /// Declared and listed, and its definition is not the approved one.
    Changed,
}

impl Drift {
    pub(crate) const WORDS: &'static [&'static str] = &["declared", "missing", "ungoverned", "changed"];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Missing => "missing",
            Self::Ungoverned => "ungoverned",
            Self::Changed => "changed",
        }
    }
}

/// What a server was last seen to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    tools: HashMap<String, ListedTool>,
    is_complete: bool,
    at: Option<Timestamp>,
}

impl Seen {
    /// Takes in a listing, the newest first. Pages of one listing are put together; what is older than that is not looked at.
    pub(crate) fn add(&mut self, at: Timestamp, listing: Inventory) {
        let newest = *self.at.get_or_insert(at);
        let is_first = self.tools.is_empty() && newest == at;
        if !is_first && (self.is_complete || newest.since(at) > PAGES_WITHIN) {
            return;
        }
        self.is_complete = listing.is_complete;
        for tool in listing.tools {
            self.tools.entry(tool.name.clone()).or_insert(tool);
        }
    }

    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.at
    }
}

/// A tool as the catalogue tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) declared: Option<ToolSpec>,
    /// Whether the server has it; `None` while nobody knows.
    pub(crate) live: Option<bool>,
    pub(crate) drift: Drift,
    pub(crate) risk: Option<Risk>,
    /// What the server itself says the tool does.
    pub(crate) hint: Option<SideEffect>,
}

/// Every tool of a server, by name.
pub(crate) fn entries(declared: &[ToolSpec], seen: &Seen) -> Vec<Entry> {
    let mut entries: BTreeMap<&str, Entry> = BTreeMap::new();
    for tool in declared {
        let listed = seen.tools.get(&tool.name);
        let live = match listed {
            Some(_) => Some(true),
            None => seen.is_complete.then_some(false),
        };
        let is_changed = tool.pin.as_deref().zip(listed).is_some_and(|(pin, listed)| {
            !listed.hash.is_empty() && !pin.trim_start_matches("sha256:").starts_with(&listed.hash)
        });
        entries.insert(
            &tool.name,
            Entry {
                name: tool.name.clone(),
                live,
                drift: match live {
                    Some(false) => Drift::Missing,
                    _ if is_changed => Drift::Changed,
                    _ => Drift::Declared,
                },
                risk: risk(tool),
                hint: listed.and_then(|listed| listed.hint),
                declared: Some(tool.clone()),
            },
        );
    }
    for listed in seen.tools.values() {
        entries.entry(&listed.name).or_insert_with(|| Entry {
            name: listed.name.clone(),
            declared: None,
            live: Some(true),
            drift: Drift::Ungoverned,
            risk: None,
            hint: listed.hint,
        });
    }
    entries.into_values().collect()
}

/// The rating that is declared, else the one that follows from side effect and trust.
fn risk(tool: &ToolSpec) -> Option<Risk> {
    let named = tool.risk_level.and_then(|risk| Risk::parse(risk.as_str()));
    let trust = Trust::parse(tool.required_trust().as_str()).unwrap_or(Trust::Low);
    named.or_else(|| Risk::rate(SideEffect::parse(tool.side_effect.as_str()), trust))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared(name: &str, extra: &serde_json::Value) -> ToolSpec {
        let mut spec = json!({"name": name, "sideEffect": "read"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn listing(names: &[&str], is_complete: bool) -> Inventory {
        let tool = |name: &&str| ListedTool {
            name: (*name).to_owned(),
            hash: "aa".to_owned(),
            hint: None,
        };
        Inventory {
            tools: names.iter().map(tool).collect(),
            is_complete,
        }
    }

    fn told(declared: &[ToolSpec], seen: &Seen) -> Vec<(String, &'static str, Option<bool>)> {
        let entries = entries(declared, seen).into_iter();
        entries.map(|entry| (entry.name, entry.drift.as_str(), entry.live)).collect()
    }

    #[test]
    fn what_is_declared_is_compared_with_the_newest_whole_listing() {
        let declared = [declared("a", &json!({})), declared("b", &json!({}))];
        let at = Timestamp::from_seconds(10_000);
        assert_eq!(
            told(&declared, &Seen::default()),
            [("a".to_owned(), "declared", None), ("b".to_owned(), "declared", None)]
        );
        let mut seen = Seen::default();
        seen.add(at, listing(&["a", "c"], true));
        seen.add(at.minus(std::time::Duration::from_mins(1)), listing(&["b"], true));
        assert_eq!(
            told(&declared, &seen),
            [
                ("a".to_owned(), "declared", Some(true)),
                ("b".to_owned(), "missing", Some(false)),
                ("c".to_owned(), "ungoverned", Some(true)),
            ]
        );
    }

    #[test]
    fn pages_are_put_together_and_a_part_proves_nothing_missing() {
        let declared = [declared("a", &json!({})), declared("z", &json!({}))];
        let at = Timestamp::from_seconds(10_000);
        let mut seen = Seen::default();
        seen.add(at, listing(&["b"], false));
        assert_eq!(told(&declared, &seen)[0], ("a".to_owned(), "declared", None));
        seen.add(at.minus(std::time::Duration::from_secs(1)), listing(&["a"], false));
        assert_eq!(told(&declared, &seen)[0], ("a".to_owned(), "declared", Some(true)));
        seen.add(at.minus(std::time::Duration::from_hours(1)), listing(&["z"], false));
        assert_eq!(told(&declared, &seen)[2], ("z".to_owned(), "declared", None), "long ago");
    }

    #[test]
    fn a_definition_other_than_the_approved_one_is_drift() {
        let mut seen = Seen::default();
        seen.add(Timestamp::from_seconds(1), listing(&["a", "b"], true));
        let declared = [
            declared("a", &json!({"pin": "sha256:aabb"})),
            declared("b", &json!({"pin": "sha256:bbcc"})),
        ];
        let drifts: Vec<_> = told(&declared, &seen).into_iter().map(|(_, drift, _)| drift).collect();
        assert_eq!(drifts, ["declared", "changed"]);
    }

    #[test]
    fn risk_is_as_declared_or_follows_from_what_a_tool_does() {
        for (extra, expected) in [
            (json!({}), Risk::Low),
            (json!({"sideEffect": "write"}), Risk::Medium),
            (json!({"requiredTrust": "medium"}), Risk::Medium),
            (json!({"sideEffect": "destructive"}), Risk::High),
            (json!({"sideEffect": "destructive", "riskLevel": "low"}), Risk::Low),
        ] {
            assert_eq!(risk(&declared("a", &extra)), Some(expected), "{extra}");
        }
    }
}
