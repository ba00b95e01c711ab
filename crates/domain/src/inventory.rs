//! What tools a server has, as its gateway saw it list them: the event of a listing, written by gateways and read by the catalogue.
//!
//! The event is of type [`EVENT_TYPE`] and carries, as attributes, `change` = `tools_listed`, `complete` = `true` when the listing was the
//! whole one, and `tools`, `tools_1`, `tools_2`, … each with a JSON list of `[name, hash, hint]`. The hash is that of the definition,
//! shortened; the hint is `read` or `destructive` where the server's annotations say so, else empty.

use std::collections::BTreeMap;

use crate::event::columns::ATTRIBUTE_VALUE_BYTES_MAX;
use crate::policy::SideEffect;

/// Type of events about lists.
pub const EVENT_TYPE: &str = "mcp.list";
/// What the attribute `change` says of a listing.
pub const LISTED: &str = "tools_listed";
/// Attributes that one listing may fill; what does not fit is left out, and then it is not complete.
const PARTS_MAX: usize = 32;

/// A listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The tools listed.
    pub tools: Vec<ListedTool>,
    /// Whether these are all there are.
    pub is_complete: bool,
}

/// A tool as a server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTool {
    /// Its name.
    pub name: String,
    /// Start of the hash of its definition.
    pub hash: String,
    /// What the server says it does.
    pub hint: Option<SideEffect>,
}

impl Inventory {
    /// The attributes of the event.
    pub fn to_attributes(&self) -> BTreeMap<String, String> {
        let mut parts: Vec<String> = Vec::new();
        let (mut part, mut is_whole) = (String::new(), true);
        for tool in &self.tools {
            let hint = tool.hint.map_or("", SideEffect::as_str);
            let entry = serde_json::json!([tool.name, tool.hash, hint]).to_string();
            if entry.len() + 2 > ATTRIBUTE_VALUE_BYTES_MAX {
                is_whole = false;
                continue;
            }
            if part.len() + entry.len() + 2 > ATTRIBUTE_VALUE_BYTES_MAX {
                parts.push(std::mem::take(&mut part));
            }
            if !part.is_empty() {
                part.push(',');
            }
            part.push_str(&entry);
        }
        parts.push(part);
        is_whole &= parts.len() <= PARTS_MAX;
        let mut attributes: BTreeMap<String, String> = [
            ("change".to_owned(), LISTED.to_owned()),
            ("complete".to_owned(), (self.is_complete && is_whole).to_string()),
        ]
        .into();
        for (number, part) in parts.into_iter().take(PARTS_MAX).enumerate() {
            attributes.insert(key(number), format!("[{part}]"));
        }
        attributes
    }

    /// Reads the attributes of an event; `None` when it is about something else.
    pub fn of_attributes(attributes: &BTreeMap<String, String>) -> Option<Self> {
        if attributes.get("change").is_none_or(|change| change != LISTED) {
            return None;
        }
        let mut tools = Vec::new();
        for number in 0..PARTS_MAX {
            let Some(part) = attributes.get(&key(number)) else { break };
            let entries: Vec<(String, String, String)> = serde_json::from_str(part).ok()?;
            tools.extend(entries.into_iter().map(|(name, hash, hint)| ListedTool {
                name,
                hash,
                hint: SideEffect::parse(&hint),
            }));
        }
        Some(Self {
            tools,
            is_complete: attributes.get("complete").is_some_and(|word| word == "true"),
        })
    }
}

fn key(number: usize) -> String {
    match number {
        0 => "tools".to_owned(),
        number => format!("tools_{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> ListedTool {
        ListedTool {
            name: name.to_owned(),
            hash: "0123456789abcdef".to_owned(),
            hint: Some(SideEffect::Read),
        }
    }

    #[test]
    fn a_listing_is_read_as_it_was_written() {
        for count in [0, 1, 300] {
            let written = Inventory {
                tools: (0..count).map(|number| tool(&format!("tool \"{number}\""))).collect(),
                is_complete: true,
            };
            let attributes = written.to_attributes();
            assert!(attributes.values().all(|value| value.len() <= ATTRIBUTE_VALUE_BYTES_MAX));
            assert_eq!(Inventory::of_attributes(&attributes), Some(written));
        }
        assert_eq!(Inventory::of_attributes(&BTreeMap::new()), None);
    }

    #[test]
    fn what_does_not_fit_is_not_called_complete() {
        let long = Inventory {
            tools: vec![tool(&"x".repeat(5_000)), tool("y")],
            is_complete: true,
        };
        let read = Inventory::of_attributes(&long.to_attributes()).unwrap();
        assert_eq!((read.tools.len(), read.is_complete), (1, false));
    }
}
