//! `docs/api.md`: every route with its shapes, made from the `OpenAPI` document.
//!
//! The test compares. `UPDATE_DOCS=1 cargo test -p platform-api --test it reference` writes the page anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use platform_api::{Need, ROUTES};
use serde_json::Value;

use crate::described::document;

const START: &str = "<!-- What follows is made from the code. -->\n";

fn page() -> String {
    let document = document();
    let mut text = String::from(START);
    let mut group = "";
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let path = route.path.trim_start_matches("/api/v1/").trim_start_matches("/api/");
        let area = match path.split('/').next().unwrap() {
            "auth" | "user" | "users" | "service-keys" | "invitations" | "teams" => "Identity",
            "runtime" if path.contains("components") || path.contains("server-events") => "Analytics and operations",
            "runtime" => match path.split('/').nth(1).unwrap() {
                "teams" | "namespaces" => "Teams",
                "servers" | "tools" => "Servers",
                _ => "Access",
            },
            "registry" => "Registry",
            _ => "Analytics and operations",
        };
        if area != group {
            group = area;
            write!(text, "\n## {area}\n").unwrap();
        }
        let who = match route.need {
            Need::Nobody => "anybody",
            Need::Caller => "any caller",
            Need::Admin => "administrators",
        };
        write!(
            text,
            "\n### `{} {}`\n\n{}. For {who}.\n",
            route.method.as_str(),
            route.path,
            route.summary
        )
        .unwrap();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let own: Vec<_> = parameters
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| format!("`{}`", parameter["name"].as_str().unwrap()))
            .collect();
        let filters = if route.filters == platform_api::Filters::All {
            ", and every column of an event"
        } else {
            ""
        };
        if !own.is_empty() {
            write!(text, "\nParameters: {}{filters}.\n", own.join(", ")).unwrap();
        }
        let schema = |content: &Value| {
            let schema = &content["application/json"]["schema"]["$ref"];
            schema.as_str().map(|target| target.rsplit('/').next().unwrap().to_owned())
        };
        if let Some(name) = schema(&operation["requestBody"]["content"]) {
            write!(text, "\nBody: [`{name}`](#{}).\n", name.to_lowercase()).unwrap();
        }
        for status in ["200", "201"] {
            if let Some(name) = schema(&operation["responses"][status]["content"]) {
                write!(text, "\nAnswer {status}: [`{name}`](#{}).\n", name.to_lowercase()).unwrap();
            }
        }
    }
    text.push_str("\n## Shapes\n\nA field with `?` may be absent.\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(fields) = schema["properties"].as_object() else {
            continue;
        };
        write!(text, "\n### {name}\n\n").unwrap();
        for (field, of) in fields {
            let mark = if required.contains(field.as_str()) { "" } else { "?" };
            writeln!(text, "- `{field}{mark}`: {}", word(of)).unwrap();
        }
    }
    text
}

fn word(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(word).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap_or_default()))
            .collect();
        return words.join(", ");
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("array"), _) => format!("list of {}", word(&schema["items"])),
        (_, Some("date-time")) => "time".to_owned(),
        (Some(kind), _) => kind.to_owned(),
        (None, _) => "any JSON".to_owned(),
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever changes a route writes the page anew with a variable"
)]
fn the_page_tells_every_route() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let kept = std::fs::read_to_string(&path).unwrap();
    let (head, made) = kept.split_at(kept.find(START).expect("the page has its marker"));
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{page}")).unwrap();
        return;
    }
    assert!(
        made == page,
        "docs/api.md is not up to date: UPDATE_DOCS=1 cargo test -p platform-api --test it reference"
    );
}

#[test]
fn every_test_named_beside_a_gap_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/known-gaps.md")).unwrap();
    let named = page.split('`').filter_map(|word| word.split_once("::"));
    let mut count = 0;
    for (file, test) in named.filter(|(file, _)| Path::new(file).extension().is_some_and(|end| end == "rs")) {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{file} has no test {test}");
        count += 1;
    }
    assert!(count > 40, "{count}");
}
