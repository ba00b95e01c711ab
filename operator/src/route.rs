//! Who owns which route: the first server to claim a host and path keeps it until it lets go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::object::Key;

/// A claim's place in the line: older objects first, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    created: String,
    key: Key,
}

/// What a server claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Empty: every host.
    pub host: String,
    /// Such as `/payments/mcp`.
    pub path: String,
}

impl Claim {
    /// Whether two claims of one path cannot stand beside each other.
    fn meets(&self, host: &str) -> bool {
        self.host.is_empty() || host.is_empty() || self.host == host
    }
}

/// All claims of the cluster, by path.
#[derive(Debug, Default)]
pub struct Claims {
    by_path: HashMap<String, BTreeMap<Place, String>>,
    of: HashMap<Key, (Place, Claim)>,
}

impl Claims {
    /// Takes in the claim of a server, or that it has none. Gives the servers whose right may have changed.
    pub fn set(&mut self, key: &Key, created: &str, claim: Option<Claim>) -> BTreeSet<Key> {
        let place = Place {
            created: created.to_owned(),
            key: key.clone(),
        };
        if self.of.get(key).map(|(place, claim)| (place, Some(claim))) == Some((&place, claim.as_ref())) {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        if let Some((place, claim)) = self.of.remove(key)
            && let Some(line) = self.by_path.get_mut(&claim.path)
        {
            line.remove(&place);
            touched.extend(line.keys().map(|place| place.key.clone()));
            if line.is_empty() {
                self.by_path.remove(&claim.path);
            }
        }
        if let Some(claim) = claim {
            let line = self.by_path.entry(claim.path.clone()).or_default();
            touched.extend(line.keys().map(|place| place.key.clone()));
            line.insert(place.clone(), claim.host.clone());
            self.of.insert(key.clone(), (place, claim));
        }
        touched.remove(key);
        touched
    }

    /// The server that would rule a claim out: one before this server in the line, or any where it does not stand in it yet.
    pub fn rival<'a>(&'a self, key: &Key, claim: &Claim) -> Option<&'a Key> {
        if self.of.get(key).is_some_and(|(_, known)| known == claim) {
            return self.holder_before(key);
        }
        let line = self.by_path.get(&claim.path)?;
        let mut others = line.iter().filter(|(place, host)| place.key != *key && claim.meets(host));
        others.next().map(|(place, _)| &place.key)
    }

    /// The server whose earlier claim rules this one's out.
    pub fn holder_before(&self, key: &Key) -> Option<&Key> {
        let (place, claim) = self.of.get(key)?;
        let line = self.by_path.get(&claim.path)?;
        line.range(..place)
            .find(|(_, host)| claim.meets(host))
            .map(|(place, _)| &place.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(host: &str) -> Claim {
        Claim {
            host: host.to_owned(),
            path: "/payments/mcp".to_owned(),
        }
    }

    #[test]
    fn the_first_claimant_keeps_a_route_until_it_lets_go() {
        let (first, second, third) = (
            Key::new("b", "payments"),
            Key::new("a", "payments"),
            Key::new("c", "payments"),
        );
        let mut claims = Claims::default();
        assert!(claims.set(&second, "2026-01-02T00:00:00Z", Some(claim("h"))).is_empty());
        assert_eq!(claims.holder_before(&second), None);
        // A restart may show the younger claim before the older one.
        assert_eq!(
            claims.set(&first, "2026-01-01T00:00:00Z", Some(claim("h"))),
            [second.clone()].into()
        );
        assert_eq!(claims.holder_before(&first), None);
        assert_eq!(claims.holder_before(&second), Some(&first));
        claims.set(&third, "2026-01-03T00:00:00Z", Some(claim("other")));
        assert_eq!(claims.holder_before(&third), None, "another host is another route");
        assert_eq!(claims.set(&first, "", None), [second.clone(), third.clone()].into());
        assert_eq!(claims.holder_before(&second), None);
    }

    #[test]
    fn a_claim_of_every_host_meets_all_of_them() {
        let (first, second) = (Key::new("a", "x"), Key::new("b", "x"));
        let mut claims = Claims::default();
        claims.set(&first, "1", Some(claim("h")));
        claims.set(&second, "2", Some(claim("")));
        assert_eq!(claims.holder_before(&second), Some(&first));
    }

    #[test]
    fn saying_the_same_again_touches_nobody() {
        let key = Key::new("a", "x");
        let mut claims = Claims::default();
        claims.set(&Key::new("b", "x"), "1", Some(claim("")));
        claims.set(&key, "2", Some(claim("")));
        assert!(claims.set(&key, "2", Some(claim(""))).is_empty());
    }
}
