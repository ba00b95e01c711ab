//! A policy from a file: in force within a second, kept when the file breaks, given up when it is too old.

use std::path::Path;
use std::time::Duration;

use gateway::{PolicyCell, PolicyConfig, watch_policy};
use serde_json::{Value, json};
use service_kit::Tasks;

use crate::governed::{document, parsed};
use crate::support::until;

fn write(path: &Path, document: &Value) {
    // As a config map is replaced: a new file in the old one's place.
    let next = path.with_extension("next");
    std::fs::write(&next, document.to_string()).unwrap();
    std::fs::rename(next, path).unwrap();
}

async fn until_revision(cell: &PolicyCell, wanted: &str) {
    until("the policy", || {
        let revision = cell.current().revision().to_owned();
        if revision == wanted { Ok(()) } else { Err(revision) }
    })
    .await;
}

async fn until_sizes(cell: &PolicyCell, wanted: (usize, usize)) {
    until("the policy", || {
        let size = cell.current().size();
        if size == wanted { Ok(()) } else { Err(format!("{size:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_changed_file_is_taken_in_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let running = Tasks::for_test();
    let tasks = running.tasks();
    let cell = PolicyCell::default();
    let config = PolicyConfig {
        file: Some(path.clone()),
        stream: None,
        age_max: None,
    };
    watch_policy(config, cell.clone(), &tasks).await;
    assert_eq!(
        (cell.mode(), cell.current().size()),
        ("enforce", (0, 0)),
        "without a file everything is refused"
    );
    let is_ready = || {
        tasks
            .ready_report()
            .conditions
            .iter()
            .any(|condition| condition.name == "policy" && condition.ready)
    };
    assert!(!is_ready());

    let first = document();
    write(&path, &first);
    until_revision(&cell, &parsed(&first).revision).await;
    assert!(is_ready());
    for broken in ["", "{", r#"{"schema_version":"v9"}"#] {
        std::fs::write(&path, broken).unwrap();
    }
    let mut second = document();
    second["grants"] = json!([]);
    write(&path, &second);
    until_revision(&cell, &parsed(&second).revision).await;
    std::fs::write(&path, "").unwrap();
    assert_eq!(
        cell.current().size(),
        (0, 1),
        "an empty file is a fault, and the last good policy stays"
    );
    drop(running);
}

#[tokio::test]
async fn a_policy_that_is_too_old_refuses_until_there_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    write(&path, &document());
    let running = Tasks::for_test();
    let cell = PolicyCell::default();
    let config = PolicyConfig {
        file: Some(path.clone()),
        stream: None,
        age_max: Some(Duration::from_millis(1)),
    };
    watch_policy(config, cell.clone(), &running.tasks()).await;
    assert_eq!(cell.current().size(), (1, 1));
    std::fs::remove_file(&path).unwrap();
    until_sizes(&cell, (0, 0)).await;
    write(&path, &document());
    until_sizes(&cell, (1, 1)).await;
}
