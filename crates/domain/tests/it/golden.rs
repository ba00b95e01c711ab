//! Every file in `tests/golden` is a policy document and the decisions expected of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use domain::Timestamp;
use domain::policy::table::{Case, Table};
use domain::policy::{Call, Document, Policy, Reason, Target, token_hash};

const CASES_MIN: usize = 200;

/// Reasons that no document can bring about: said where there is none, and by the keeper of rates.
const OF_OTHERS: [Reason; 2] = [Reason::PolicyUnavailable, Reason::RateExceeded];

/// A table with the number of faults its document has.
#[derive(serde::Deserialize)]
struct Golden {
    #[serde(default)]
    faults: usize,
    #[serde(flatten)]
    table: serde_json::Value,
}

/// Puts the hash of a credential where a file says `HASH(credential)`.
fn with_hashes(text: &str) -> String {
    let mut parts = text.split("HASH(");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (credential, rest) = part.split_once(')').expect("HASH( needs its )");
        let hash = token_hash(credential);
        whole.extend(["\"", &hash, "\"", rest]);
    }
    whole
}

fn read(path: &Path) -> (Policy, Table) {
    let text = with_hashes(&fs::read_to_string(path).unwrap());
    let golden: Golden = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table: Table = serde_json::from_value(golden.table).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let json = table.document.as_ref().expect("a golden table has its document").to_string();
    let (document, faults) = Document::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(faults.len(), golden.faults, "{}: {faults:?}", path.display());
    (Policy::compile(&document), table)
}

fn tables() -> Vec<(String, Policy, Table)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let (policy, table) = read(path);
        (path.file_name().unwrap().to_string_lossy().into_owned(), policy, table)
    };
    paths.iter().map(read).collect()
}

#[test]
fn decisions_are_as_agreed() {
    let (mut wrong, mut seen, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for (file, policy, table) in tables() {
        for case in &table.cases {
            let (verdict, mismatches) = case.run(&policy, table.at.unwrap_or_default());
            seen.insert(verdict.reason);
            count += 1;
            wrong.extend(mismatches.iter().map(|mismatch| format!("{file}: {}: {mismatch}", case.name)));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} expectations are not met:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count >= CASES_MIN, "{count} cases");
    let unseen: Vec<&Reason> = Reason::ALL
        .iter()
        .filter(|reason| !seen.contains(reason) && !OF_OTHERS.contains(reason))
        .collect();
    assert!(unseen.is_empty(), "no case ends with {unseen:?}");
}

#[test]
fn without_a_policy_only_handshakes_pass() {
    let policy = Policy::unavailable();
    for (target, reason) in [
        (Target::Open, Reason::Allowed),
        (Target::Tool("list"), Reason::PolicyUnavailable),
        (Target::Resource("file:///a"), Reason::PolicyUnavailable),
        (Target::Task, Reason::PolicyUnavailable),
    ] {
        assert_eq!(
            policy.decide(&Call::of(target), Timestamp::default()).reason,
            reason,
            "{target:?}"
        );
    }
}

#[test]
fn an_expectation_that_is_not_met_is_told() {
    let case: Case =
        serde_json::from_value(serde_json::json!({"name": "n", "tool": "list", "expect": "allow", "grant": "acme/g"})).unwrap();
    let (_, mismatches) = case.run(&Policy::compile(&Document::default()), Timestamp::default());
    let told: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "expect: expected \"allow\", got \"deny\"",
            "grant: expected \"acme/g\", got \"\""
        ]
    );
}

#[test]
fn every_reason_has_a_status_and_a_hint() {
    for reason in Reason::ALL {
        assert_eq!(reason.hint().is_empty(), *reason == Reason::Allowed, "{reason}");
        assert_eq!(reason.status() == 200, *reason == Reason::Allowed, "{reason}");
        assert!(!reason.is_left_to_default() || reason.status() == 403, "{reason}");
    }
}
