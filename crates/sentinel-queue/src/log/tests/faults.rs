//! A disk that fails on command: no acknowledgement without durability, and service again when it is well.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use super::disk::{Disk, DiskFile, RealDisk};
use super::*;
use crate::AppendError;

/// What the disk does at the moment, and what it was asked.
#[derive(Debug, Clone, Default)]
struct Mood(Arc<Mutex<State>>);

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault on its own")]
struct State {
    create_fails: bool,
    write_fails_after: Option<usize>,
    sync_fails: bool,
    cut_fails: bool,
    syncs: usize,
    created: usize,
    /// Holds syncs back while set.
    stalled: bool,
}

impl Mood {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn syncs(&self) -> usize {
        self.0.lock().unwrap().syncs
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl Disk for Mood {
    type File = MoodFile;

    fn create(&mut self, path: &Path, header: &[u8]) -> io::Result<MoodFile> {
        if self.0.lock().unwrap().create_fails {
            return Err(full());
        }
        self.0.lock().unwrap().created += 1;
        Ok(MoodFile {
            file: RealDisk.create(path, header)?,
            mood: self.clone(),
        })
    }
}

struct MoodFile {
    file: File,
    mood: Mood,
}

impl DiskFile for MoodFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.mood.0.lock().unwrap().write_fails_after;
        match room {
            Some(room) => {
                DiskFile::write_all(&mut self.file, &bytes[..room.min(bytes.len())])?;
                Err(full())
            }
            None => DiskFile::write_all(&mut self.file, bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        while self.mood.0.lock().unwrap().stalled {
            std::thread::yield_now();
        }
        let mut state = self.mood.0.lock().unwrap();
        state.syncs += 1;
        if state.sync_fails {
            Err(io::Error::from_raw_os_error(5))
        } else {
            Ok(())
        }
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        if self.mood.0.lock().unwrap().cut_fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.cut(bytes)
    }
}

fn open_moody(dir: &Path) -> (Mood, LogAppender, LogTail) {
    let mood = Mood::default();
    let (appender, tail) = open_on(small(dir), Arc::new(clock()), mood.clone()).unwrap();
    (mood, appender, tail)
}

async fn refused(appender: &LogAppender, numbers: std::ops::Range<u64>) {
    let error = appender.append(&events(numbers)).await.unwrap_err();
    assert!(matches!(error, AppendError::Unavailable(_)), "{error:?}");
}

type Worsen = fn(&mut State);

/// Each way of failing, in the middle of a log: nothing is acknowledged meanwhile, nothing acknowledged is lost, and the
/// log goes on afterwards, also when it is opened again.
#[tokio::test]
async fn a_failing_disk_acknowledges_nothing_and_loses_nothing() {
    let moods: [(&str, Worsen); 5] = [
        ("no room for a segment", |state| {
            (state.create_fails, state.write_fails_after) = (true, Some(0));
        }),
        ("a write that ends half way", |state| state.write_fails_after = Some(100)),
        ("a failing sync", |state| state.sync_fails = true),
        ("a failing sync, and no cut", |state| {
            (state.sync_fails, state.cut_fails) = (true, true);
        }),
        ("half a write, and no cut", |state| {
            (state.write_fails_after, state.cut_fails) = (Some(100), true);
        }),
    ];
    for (name, worsen) in moods {
        let dir = TempDir::new().unwrap();
        let (mood, appender, mut tail) = open_moody(dir.path());
        appender.append(&events(0..5)).await.unwrap();
        mood.set(worsen);
        refused(&appender, 900..903).await;
        refused(&appender, 903..904).await;
        mood.set(|state| *state = State::default());
        appender.append(&events(5..8)).await.unwrap();
        assert_eq!(drain(&mut tail).await, (0..8).map(|n| (n, n)).collect::<Vec<_>>(), "{name}");
        drop((appender, tail));
        let (_appender, mut tail) = open_small(dir.path());
        assert_eq!(
            drain(&mut tail).await,
            (0..8).map(|n| (n, n)).collect::<Vec<_>>(),
            "{name}, opened again"
        );
    }
}

#[tokio::test]
async fn a_failed_sync_is_never_tried_again_on_the_same_file() {
    let dir = TempDir::new().unwrap();
    let (mood, appender, _tail) = open_moody(dir.path());
    appender.append(&events(0..1)).await.unwrap();
    mood.set(|state| state.sync_fails = true);
    refused(&appender, 1..2).await;
    mood.set(|state| state.sync_fails = false);
    let created = mood.0.lock().unwrap().created;
    appender.append(&events(1..2)).await.unwrap();
    assert_eq!(mood.0.lock().unwrap().created, created + 1, "a new segment");
}

#[tokio::test]
async fn room_of_failed_appends_is_given_back() {
    let dir = TempDir::new().unwrap();
    let (mood, appender, mut tail) = open_moody(dir.path());
    mood.set(|state| state.sync_fails = true);
    for _ in 0..200 {
        // 200 times some 8 KiB: more than the whole log may hold.
        refused(&appender, 0..200).await;
    }
    mood.set(|state| state.sync_fails = false);
    appender.append(&events(0..1)).await.unwrap();
    assert_eq!(drain(&mut tail).await, [(0, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_that_wait_share_one_sync() {
    let dir = TempDir::new().unwrap();
    let (mood, appender, mut tail) = open_moody(dir.path());
    appender.append(&events(0..1)).await.unwrap();
    let before = mood.syncs();
    mood.set(|state| state.stalled = true);
    let mut sides = tokio::task::JoinSet::new();
    let begun = Arc::new(tokio::sync::Barrier::new(101));
    for number in 1..=100_u64 {
        let (appender, begun) = (appender.clone(), Arc::clone(&begun));
        sides.spawn(async move {
            let event = event(number);
            let append = appender.append(std::slice::from_ref(&event));
            tokio::pin!(append);
            // Polled once, so that it is queued; then all are, and the disk goes on.
            assert!(futures_poll_once(append.as_mut()).await.is_none());
            begun.wait().await;
            append.await.unwrap();
        });
    }
    begun.wait().await;
    mood.set(|state| state.stalled = false);
    while let Some(side) = sides.join_next().await {
        side.unwrap();
    }
    let syncs = mood.syncs() - before;
    assert!(syncs <= 2, "100 appends took {syncs} syncs");
    assert_eq!(drain(&mut tail).await.len(), 101);
}

async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut future).poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
