//! Which call comes next. Pure: a choice depends on the seed and on who chooses, never on what happened.
//!
//! Tools are chosen by Zipf's law, as in real traffic: few of them make most of the calls. Each caller has favourites of
//! its own, so breaking the calls down by agent shows something.

use rand::{Rng as _, rngs::SmallRng};
use rmcp::model::JsonObject;
use serde_json::json;

/// From common to rare. The first five change places from caller to caller.
const TOOLS: [&str; 8] = [
    "list_invoices",
    "get_invoice",
    "flaky_lookup",
    "export_report",
    "create_invoice",
    "refund_invoice",
    "ask_approval",
    "broken_ledger",
];
const FAVOURITES: usize = 5;
const ZIPF_EXPONENT: f64 = 1.1;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Tool {
        name: &'static str,
        arguments: JsonObject,
        patience: Patience,
    },
    Resource(String),
    Prompt {
        name: &'static str,
        arguments: JsonObject,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    WaitsForTheResult,
    CancelsAfterFirstProgress,
}

#[derive(Debug)]
pub(super) struct Mix {
    tools: [&'static str; TOOLS.len()],
    /// Upper ends of each tool's share of 0 to 1.
    shares: [f64; TOOLS.len()],
    random: SmallRng,
}

impl Mix {
    pub(super) fn new(caller: usize, random: SmallRng) -> Self {
        let mut tools = TOOLS;
        tools[..FAVOURITES].rotate_left(caller % FAVOURITES);
        let mut shares = [0.0; TOOLS.len()];
        let mut sum = 0.0;
        for (rank, share) in (1_u32..).zip(&mut shares) {
            sum += f64::from(rank).powf(-ZIPF_EXPONENT);
            *share = sum;
        }
        for share in &mut shares {
            *share /= sum;
        }
        Self { tools, shares, random }
    }

    pub(super) fn next_step(&mut self) -> Step {
        match self.random.random_range(0..100) {
            0..5 => Step::Resource(self.resource()),
            5..8 => self.prompt(),
            // Models invent tools now and then.
            8..10 => self.tool("close_account"),
            _ => {
                let at = self.random.random::<f64>();
                let rank = self.shares.iter().position(|share| at < *share).unwrap_or(0);
                self.tool(self.tools[rank])
            }
        }
    }

    fn tool(&mut self, name: &'static str) -> Step {
        let month = self.month();
        let arguments = match name {
            "list_invoices" => {
                json!({ "status": self.one_of(&["open", "overdue", "paid"]), "limit": self.random.random_range(3..40) })
            }
            "export_report" => json!({ "month": month, "steps": 5, "duration_ms": self.random.random_range(300..1_200) }),
            "create_invoice" => {
                json!({ "customer": self.one_of(crate::books::Books::customers()), "amount_cents": self.random.random_range(0..90_000) })
            }
            "flaky_lookup" => json!({ "customer": self.one_of(crate::books::Books::customers()) }),
            "get_invoice" | "refund_invoice" | "ask_approval" => json!({ "id": self.invoice() }),
            _ => json!({}),
        };
        let cancels = name == "export_report" && self.random.random_bool(0.15);
        let patience = if cancels {
            Patience::CancelsAfterFirstProgress
        } else {
            Patience::WaitsForTheResult
        };
        Step::Tool {
            name,
            arguments: object(arguments),
            patience,
        }
    }

    fn prompt(&mut self) -> Step {
        let id = self.invoice();
        let month = self.month();
        if self.random.random() {
            Step::Prompt {
                name: "dunning_letter",
                arguments: object(json!({ "id": id })),
            }
        } else {
            Step::Prompt {
                name: "monthly_summary",
                arguments: object(json!({ "month": month })),
            }
        }
    }

    fn resource(&mut self) -> String {
        match self.random.random_range(0..4) {
            0 => "payments://policy/refunds".to_owned(),
            1 => "payments://customers".to_owned(),
            _ => format!("payments://invoices/{}", self.invoice()),
        }
    }

    /// A known invoice, or one in twelve times a mistaken one.
    fn invoice(&mut self) -> String {
        let known = 1_001..1_121;
        let number = if self.random.random_bool(0.08) {
            9_000
        } else {
            self.random.random_range(known)
        };
        format!("INV-{number}")
    }

    fn month(&mut self) -> String {
        format!("2026-{:02}", self.random.random_range(7..11))
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[self.random.random_range(0..all.len())]
    }
}

fn object(value: serde_json::Value) -> JsonObject {
    match value {
        serde_json::Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::{Mix, Step, TOOLS};

    fn tools(caller: usize) -> HashMap<&'static str, usize> {
        let mut mix = Mix::new(caller, SmallRng::seed_from_u64(7));
        let mut counts = HashMap::new();
        for _ in 0..5_000 {
            if let Step::Tool { name, .. } = mix.next_step() {
                *counts.entry(name).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn equal_seeds_choose_equal_calls() {
        let mut one = Mix::new(3, SmallRng::seed_from_u64(7));
        let mut other = Mix::new(3, SmallRng::seed_from_u64(7));
        assert!((0..500).all(|_| one.next_step() == other.next_step()));
    }

    #[test]
    fn few_tools_make_most_calls_but_every_tool_is_called() {
        let counts = tools(0);
        assert!(TOOLS.iter().all(|tool| counts.contains_key(tool)), "{counts:?}");
        assert!(counts["list_invoices"] > 4 * counts["broken_ledger"], "{counts:?}");
        assert!(counts.contains_key("close_account"), "an invented tool");
    }

    #[test]
    fn callers_have_favourites_of_their_own() {
        let favourite = |caller| {
            tools(caller)
                .into_iter()
                .max_by_key(|(_, count)| *count)
                .map(|(tool, _)| tool)
        };
        assert_ne!(favourite(0), favourite(1));
    }
}
