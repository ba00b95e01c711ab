use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use domain::Timestamp;
use service_kit::Clock;
use tempfile::TempDir;

use super::{KeyRefusal, KeyRing, KeyStore, KeyStoreError, NewKeyRequest};

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);

fn place() -> (TempDir, PathBuf, KeyStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/on/the/way/keys.json");
    let (clock, _hand) = Clock::manual(NOW.nanos());
    let store = KeyStore::new(&path, clock);
    (folder, path, store)
}

fn acme() -> NewKeyRequest {
    NewKeyRequest {
        namespace: "acme".to_owned(),
        ..NewKeyRequest::default()
    }
}

#[test]
fn a_new_key_has_its_form_and_only_its_hash_is_kept() {
    let (_folder, path, store) = place();
    let made = store.create(acme()).unwrap();
    let parts: Vec<_> = made.key.split('_').collect();
    assert_eq!(
        (parts.len(), parts[0], parts[1], parts[2].len()),
        (3, "mcpi", &*made.view.id, 43)
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&made.view.id) && !text.contains(parts[2]), "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&made.view));
    assert!(!format!("{made:?}").contains(parts[2]));
    let other = store.create(acme()).unwrap();
    assert_ne!((&other.key, &other.view.id), (&made.key, &made.view.id));
}

#[test]
fn a_missing_file_lists_nothing() {
    let (_folder, _path, store) = place();
    assert_eq!(store.list().unwrap(), []);
    assert!(matches!(store.revoke("x"), Err(KeyStoreError::NotFound(_))));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (_folder, path, store) = place();
    let requests = [
        NewKeyRequest {
            namespace: String::new(),
            ..acme()
        },
        NewKeyRequest {
            namespace: "Acme".to_owned(),
            ..acme()
        },
        NewKeyRequest {
            server: Some("not a server".to_owned()),
            ..acme()
        },
        NewKeyRequest {
            namespace: "*".to_owned(),
            server: Some("payments".to_owned()),
            ..acme()
        },
        NewKeyRequest {
            expires_at: Some(NOW),
            ..acme()
        },
        NewKeyRequest {
            note: "two\nlines".to_owned(),
            ..acme()
        },
        NewKeyRequest {
            note: "x".repeat(257),
            ..acme()
        },
    ];
    for request in requests {
        assert!(
            matches!(store.create(request.clone()), Err(KeyStoreError::Request(_))),
            "{request:?}"
        );
    }
    assert!(!path.exists(), "nothing was made");
}

#[test]
fn ended_keys_are_not_rotated_and_stay_revoked_since_the_first_time() {
    let (_folder, _path, store) = place();
    let id = store.create(acme()).unwrap().view.id;
    assert_eq!(store.revoke(&id).unwrap().revoked_at, Some(NOW));
    assert_eq!(store.revoke(&id).unwrap().revoked_at, Some(NOW));
    assert!(matches!(store.rotate(&id, Duration::ZERO), Err(KeyStoreError::Ended(_))));
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn rotation_never_lengthens_the_life_of_the_old_key() {
    let (_folder, _path, store) = place();
    let end = NOW.plus(Duration::from_mins(1));
    let old = store
        .create(NewKeyRequest {
            expires_at: Some(end),
            ..acme()
        })
        .unwrap()
        .view;
    store.rotate(&old.id, Duration::from_hours(1)).unwrap();
    assert_eq!(store.list().unwrap()[0].expires_at, Some(end));
}

#[test]
fn writers_at_once_lose_nothing() {
    let (_folder, path, store) = place();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..8).for_each(|_| drop(store.create(acme()).unwrap())));
        }
    });
    assert_eq!(store.list().unwrap().len(), 64);
    assert_eq!(KeyRing::open(&path).state(NOW).usable, 64);
}

#[test]
fn what_a_dead_writer_left_is_cleared_away() {
    let (_folder, path, store) = place();
    store.create(acme()).unwrap();
    std::fs::write(super::file::beside(&path, ".new"), "half").unwrap();
    store.create(acme()).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn a_linked_file_is_replaced_behind_its_link() {
    let (folder, path, store) = place();
    store.create(acme()).unwrap();
    let link = folder.path().join("link.json");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    KeyStore::new(&link, Clock::system()).create(acme()).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn a_key_in_the_place_of_an_id_is_not_repeated_in_the_fault() {
    let (_folder, path, store) = place();
    let made = store.create(acme()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&made.view.id, &made.key)).unwrap();
    let fault = KeyRing::open(&path).state(NOW).fault.unwrap();
    assert!(fault.contains("number 1") && !fault.contains(&made.key), "{fault}");
}

#[test]
fn a_ring_without_its_file_refuses_everyone() {
    let (_folder, path, store) = place();
    let ring = KeyRing::open(&path);
    assert_eq!(ring.find("anything", NOW).unwrap_err(), KeyRefusal::NoKeys);
    let made = store.create(acme()).unwrap();
    ring.refresh();
    assert_eq!(ring.find(&made.key, NOW).unwrap().id(), made.view.id);
    assert_eq!(ring.find(&made.key.to_lowercase(), NOW).unwrap_err(), KeyRefusal::Unknown);
}
