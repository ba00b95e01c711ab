//! One process at a time, and clear words for what cannot be opened.

use std::fs;

use super::*;

fn refused(dir: &Path) -> String {
    refused_with(small(dir))
}

fn refused_with(config: LogConfig) -> String {
    let error = open(config, clock()).expect_err("it must not open");
    error.to_string()
}

#[tokio::test]
async fn a_second_opening_names_the_process_that_has_it() {
    let dir = TempDir::new().unwrap();
    let (appender, tail) = open_small(dir.path());
    assert!(refused(dir.path()).contains(&format!("in use by process {}", std::process::id())));
    drop(appender);
    assert!(refused(dir.path()).contains("in use"), "the tail still reads");
    drop(tail);
    open_small(dir.path());
}

#[tokio::test]
async fn a_newer_format_and_a_strange_file_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let path = segment::path_of(dir.path(), 1);
    fs::write(&path, [b'x'; 100]).unwrap();
    let text = refused(dir.path());
    assert!(
        text.contains("0000000001.log is damaged at byte 0") && text.contains("move it away"),
        "{text}"
    );
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("committed"), b"17").unwrap();
    assert!(refused(dir.path()).contains("committed is damaged"));
}

#[tokio::test]
async fn a_file_in_the_place_of_the_folder_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("queue");
    fs::write(&path, b"").unwrap();
    let text = refused(&path);
    assert!(text.starts_with("creating the folder") && text.ends_with("queue"), "{text}");
}

#[tokio::test]
async fn leftovers_of_an_unfinished_creation_are_no_segments() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("0000000001.new"), b"half a hea").unwrap();
    fs::write(dir.path().join("0000000009.log"), b"").unwrap();
    fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
    let (appender, mut tail) = open_small(dir.path());
    appender.append(&events(0..3)).await.unwrap();
    assert_eq!(drain(&mut tail).await.len(), 3);
}

#[tokio::test]
async fn offsets_begin_where_the_store_is() {
    let dir = TempDir::new().unwrap();
    let (appender, mut tail) = open_small(dir.path());
    appender.append(&events(0..3)).await.unwrap();
    assert_eq!(drain(&mut tail).await.len(), 3);
    drop((appender, tail));
    let config = LogConfig {
        offset_min: 1_000,
        ..small(dir.path())
    };
    let (appender, mut tail) = open(config.clone(), clock()).unwrap();
    assert_eq!(tail.lag().events, 3);
    appender.append(&events(3..5)).await.unwrap();
    let before = tail.next(ALL).await.unwrap();
    assert_eq!((before.span.first, before.span.end), (0, 3), "a lease has no gap");
    let after = tail.next(ALL).await.unwrap();
    assert_eq!((after.span.first, after.span.end), (1_000, 1_002));
    tail.commit(0, 1_000).await.unwrap();
    drop((appender, tail));
    let (_appender, mut tail) = open(config, clock()).unwrap();
    assert_eq!(drain(&mut tail).await, [(1_000, 3), (1_001, 4)]);
}

#[tokio::test]
async fn a_segment_moved_away_loses_what_it_held_and_no_more() {
    let dir = TempDir::new().unwrap();
    let (appender, tail) = open_small(dir.path());
    for first in 0..100 {
        appender.append(&events(first..first + 1)).await.unwrap();
    }
    drop((appender, tail));
    let files = segment_files(dir.path());
    fs::remove_file(&files[2]).unwrap();
    let (appender, mut tail) = open_small(dir.path());
    appender.append(&events(100..101)).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&(100, 100)) {
        let lease = tail.next(ALL).await.unwrap();
        seen.extend(lease.records.iter().map(|record| match record {
            Record::Event { offset, event } => (*offset, event.producer_seq.unwrap()),
            Record::Undecodable { .. } => panic!("{record:?}"),
        }));
    }
    assert!(seen.len() > 70 && seen.len() < 101, "{} of 101 are left", seen.len());
    assert!(
        seen.iter().all(|(offset, number)| offset == number),
        "offsets stay with their events"
    );
    drop((appender, tail));
    fs::remove_file(&segment_files(dir.path())[0]).unwrap();
    let (_appender, mut tail) = open_small(dir.path());
    assert!(tail.next(ALL).await.unwrap().span.first > 0, "the first one as well");
}

#[tokio::test]
async fn damage_in_an_older_segment_is_named_when_it_is_reached() {
    let dir = TempDir::new().unwrap();
    let (appender, tail) = open_small(dir.path());
    for first in 0..100 {
        appender.append(&events(first..first + 1)).await.unwrap();
    }
    drop((appender, tail));
    let path = &segment_files(dir.path())[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[1_500] ^= 1;
    fs::write(path, bytes).unwrap();
    let (_appender, mut tail) = open_small(dir.path());
    let mut handed = 0;
    let error = loop {
        match tail.next(ALL).await {
            Ok(lease) => handed += lease.records.len(),
            Err(error) => break error,
        }
    };
    assert!(handed > 0, "what is before it comes first");
    let text = error.to_string();
    assert!(
        text.contains("0000000002.log is damaged at byte 1") && text.contains("move it away"),
        "{text}"
    );
}
