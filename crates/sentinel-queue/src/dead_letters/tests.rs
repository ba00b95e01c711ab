use std::fs;

use tempfile::TempDir;

use super::*;
use crate::contract::event;
use crate::memory;
use crate::{BatchLimit, EventTail as _};

fn letter(offset: u64) -> NewDeadLetter {
    NewDeadLetter {
        set_aside_at: Timestamp::from_seconds(1_800_000_000),
        partition: 0,
        offset,
        reason: "the record is no event".to_owned(),
        record: format!("record {offset}").into_bytes(),
    }
}

async fn offsets(letters: &dyn DeadLetters) -> Vec<(u64, u64)> {
    letters
        .list(0, 1_000)
        .await
        .unwrap()
        .into_iter()
        .map(|letter| (letter.id, letter.offset))
        .collect()
}

/// What both places promise.
async fn keeps_lists_shows_and_forgets(letters: &dyn DeadLetters) {
    letters.put(vec![letter(5), letter(9), letter(5)]).await.unwrap();
    letters.put(vec![letter(9), letter(12)]).await.unwrap();
    assert_eq!(
        offsets(letters).await,
        [(1, 5), (2, 9), (3, 12)],
        "a record handed out again is the same letter"
    );
    assert_eq!(letters.list(1, 1).await.unwrap()[0].offset, 9);
    assert_eq!(letters.show(3).await.unwrap().unwrap().record, "record 12");
    assert_eq!(letters.show(4).await.unwrap(), None);
    assert_eq!(letters.discard(vec![1, 1, 77]).await.unwrap(), 1);
    assert_eq!(letters.count(), 2);
    letters.put(vec![letter(20)]).await.unwrap();
    assert_eq!(offsets(letters).await, [(2, 9), (3, 12), (4, 20)], "ids are not given again");
}

#[tokio::test]
async fn memory_and_file_keep_the_same_promises() {
    let dir = TempDir::new().unwrap();
    keeps_lists_shows_and_forgets(&MemoryDeadLetters::new(1 << 20)).await;
    let path = dir.path().join("dead-letters");
    let file = FileDeadLetters::open(&path, 1 << 20).unwrap();
    keeps_lists_shows_and_forgets(&file).await;
    assert!(matches!(
        FileDeadLetters::open(&path, 1 << 20),
        Err(DeadLetterError::InUse { .. })
    ));
    drop(file);
    let file = FileDeadLetters::open(&path, 1 << 20).unwrap();
    assert_eq!(offsets(&file).await, [(2, 9), (3, 12), (4, 20)]);
}

#[tokio::test]
async fn a_full_place_refuses_and_keeps_what_it_has() {
    let letters = MemoryDeadLetters::new(400);
    letters.put(vec![letter(1), letter(2)]).await.unwrap();
    let error = letters.put(vec![letter(3)]).await.unwrap_err();
    assert!(
        matches!(error, DeadLetterError::Full { .. }) && error.remedy() == Remedy::Retry,
        "{error:?}"
    );
    letters.put(vec![letter(2)]).await.unwrap();
    letters.discard(vec![1]).await.unwrap();
    letters.put(vec![letter(3)]).await.unwrap();
    assert_eq!(offsets(&letters).await, [(2, 2), (3, 3)]);
}

#[tokio::test]
async fn a_torn_journal_keeps_every_whole_line_and_damage_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("dead-letters");
    let file = FileDeadLetters::open(&path, 1 << 20).unwrap();
    let mut lengths = vec![0, fs::metadata(&path).unwrap().len()];
    for offset in 0..3 {
        file.put(vec![letter(offset)]).await.unwrap();
        lengths.push(fs::metadata(&path).unwrap().len());
    }
    drop(file);
    let bytes = fs::read(&path).unwrap();
    for length in (0..=bytes.len()).step_by(7).chain([bytes.len()]) {
        fs::write(&path, &bytes[..length]).unwrap();
        let whole = lengths
            .iter()
            .filter(|whole| **whole <= length as u64)
            .count()
            .saturating_sub(2);
        let file = FileDeadLetters::open(&path, 1 << 20).unwrap();
        assert_eq!(file.count(), whole as u64, "cut at byte {length}");
        file.put(vec![letter(77)]).await.unwrap();
        drop(file);
        assert_eq!(
            FileDeadLetters::open(&path, 1 << 20).unwrap().count(),
            whole as u64 + 1,
            "cut at byte {length}, gone on"
        );
    }
    let mut flipped = bytes;
    flipped[usize::try_from(lengths[2]).unwrap() + 20] ^= 1;
    fs::write(&path, flipped).unwrap();
    let text = FileDeadLetters::open(&path, 1 << 20).unwrap_err().to_string();
    assert!(
        text.contains(&format!("damaged at byte {}", lengths[2])) && text.contains("move it away"),
        "{text}"
    );
}

#[tokio::test]
async fn the_journal_does_not_grow_with_what_is_gone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("dead-letters");
    let file = FileDeadLetters::open(&path, 1 << 20).unwrap();
    for turn in 0..100_u64 {
        let many = (0..20).map(|offset| NewDeadLetter {
            record: vec![b'x'; 200],
            ..letter(turn * 100 + offset)
        });
        file.put(many.collect()).await.unwrap();
        let ids = file
            .list(0, 1_000)
            .await
            .unwrap()
            .into_iter()
            .map(|letter| letter.id)
            .collect();
        assert_eq!(file.discard(ids).await.unwrap(), 20);
    }
    let bytes = fs::metadata(&path).unwrap().len();
    assert!(bytes < 128 << 10, "{bytes} bytes for no letters");
    drop(file);
    let file = FileDeadLetters::open(&path, 1 << 20).unwrap();
    file.put(vec![letter(1)]).await.unwrap();
    assert_eq!(offsets(&file).await, [(2_001, 1)], "ids are not given again after shortening");
}

#[test]
fn the_checksum_is_the_one_of_zip() {
    let dir = TempDir::new().unwrap();
    drop(FileDeadLetters::open(dir.path().join("letters"), 1).unwrap());
    #[cfg(feature = "log")]
    assert_eq!(file::checksum(b"123456789"), crc32fast::hash(b"123456789"));
    assert_eq!(file::checksum(b"123456789"), 0xcbf4_3926);
}

#[tokio::test]
async fn replay_appends_what_is_an_event_by_now_and_keeps_the_rest() {
    let letters = MemoryDeadLetters::new(1 << 20);
    let good = NewDeadLetter {
        record: serde_json::to_vec(&event(7)).unwrap(),
        ..letter(1)
    };
    letters.put(vec![good, letter(2)]).await.unwrap();
    let (appender, mut tail) = memory::queue(1 << 20);
    let replayed = replay(&[1, 2, 3], &letters, &appender).await.unwrap();
    assert_eq!((replayed.appended, replayed.unknown), (vec![1], vec![3]));
    assert_eq!(replayed.unreadable[0].0, 2);
    assert_eq!(offsets(&letters).await, [(2, 2)]);
    let lease = tail
        .next(BatchLimit {
            events: 10,
            bytes: 1 << 20,
        })
        .await
        .unwrap();
    assert_eq!(
        lease.records,
        [crate::Record::Event {
            offset: 0,
            event: event(7)
        }]
    );
    let (full, _tail) = memory::queue(1);
    let error = replay(&[2], &letters, &full).await.unwrap();
    assert_eq!(error.unreadable.len(), 1);
}
