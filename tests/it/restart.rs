//! Stops, starts, and what a disk can do meanwhile.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Home, Launch, Load, Sender, Standalone, event, run, skip, until, verify};

fn events(count: usize) -> Vec<Value> {
    (0..count).map(|_| event("probe")).collect()
}

/// Files below a folder whose name ends so, in the order of their names.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The file among these that grew last.
fn largest(paths: &[PathBuf]) -> &PathBuf {
    paths
        .iter()
        .max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .expect("at least one file")
}

/// Turns some bytes of a file into others.
fn damage(path: &Path, at: u64) {
    let bytes: Vec<u8> = fs::read(path)
        .expect("a readable file")
        .into_iter()
        .skip(usize::try_from(at).unwrap())
        .take(16)
        .map(|byte| !byte)
        .collect();
    assert!(!bytes.is_empty(), "{} has fewer than {at} bytes", path.display());
    let mut file = OpenOptions::new().write(true).open(path).expect("a writable file");
    file.seek(SeekFrom::Start(at)).expect("a place in the file");
    file.write_all(&bytes).expect("writing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_under_load_loses_nothing() {
    let home = Home::new();
    let launch = home.launch().busy_store();
    let mut senders = Sender::some(4, 77);
    for round in 1..=3 {
        let mut standalone = launch.start().await;
        let mut load = Load::start(&standalone, senders);
        load.reaches(1_500).await;
        standalone.ask_to_stop().await;
        let status = standalone.ended().await;
        assert_eq!(status.code(), Some(0), "round {round}: under load it ended with {status}");
        senders = load.end().await;
    }
    let standalone = launch.start().await;
    verify(&standalone, &senders, "after three stops under load").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_on_one_folder_names_the_first() {
    let home = Home::new();
    let first = home.launch().start().await;
    first.send(&events(3)).await;
    let exit = home.launch().refused().await;
    assert!(!exit.status.success(), "{exit:?}");
    assert!(
        exit.stderr.contains(&first.pid.to_string()),
        "the refusal does not name process {}: {exit:?}",
        first.pid
    );
    first.is_ready().await;
    first.send(&events(3)).await;
    first.counts(6, "the first process goes on").await;
    let run: Value = serde_json::from_str(&fs::read_to_string(home.data().join("run.json")).unwrap()).unwrap();
    assert_eq!(
        run,
        json!({ "url": first.url, "pid": first.pid }),
        "the second start must leave the note of the first"
    );
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_of_the_log_is_cut_and_nothing_acknowledged_is_lost() {
    let home = Home::new();
    let launch = home.launch().idle_store();
    let mut expected = 0;
    for (round, torn) in [
        &b"MQR1"[..],
        &[0; 4_096],
        b"MQR1 garbage that looks like the beginning of a record, and goes on for longer than a header has bytes",
    ]
    .iter()
    .enumerate()
    {
        let standalone = launch.start().await;
        standalone.counts(expected, &format!("after {round} torn tails")).await;
        for _ in 0..5 {
            standalone.send(&events(10)).await;
        }
        expected += 50;
        standalone.kill().await;
        let segments = files(&home.data(), ".log");
        let newest = segments.last().expect("a segment of the log");
        OpenOptions::new().append(true).open(newest).unwrap().write_all(torn).unwrap();
    }
    let standalone = launch.start().await;
    standalone.counts(expected, "after three torn tails").await;
    standalone.send(&events(10)).await;
    standalone.counts(expected + 10, "new events after a torn tail").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_stops_the_start_and_can_be_moved_away() {
    let home = Home::new();
    let launch = home.launch().idle_store();
    let standalone = launch.start().await;
    for _ in 0..20 {
        standalone.send(&events(10)).await;
    }
    standalone.counts(200, "before the damage").await;
    standalone.kill().await;
    let segments = files(&home.data(), ".log");
    let segment = largest(&segments);
    // Within the first record: many later ones prove that it had been acknowledged.
    damage(segment, 200);

    let exit = launch.refused().await;
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        !exit.status.success() && exit.stderr.contains(&name),
        "the refusal does not name {name}: {exit:?}"
    );
    assert!(
        exit.stderr.contains("damaged at byte"),
        "the refusal does not say where: {exit:?}"
    );
    assert!(
        exit.stderr.contains("move it away"),
        "the refusal does not say what to do: {exit:?}"
    );
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");

    fs::rename(segment, home.path().join("moved-away.log")).unwrap();
    let standalone = launch.start().await;
    let left = standalone.number("select count(*) from events").await;
    assert!(left <= 200, "{left} events after moving a segment away");
    standalone.send(&events(10)).await;
    standalone.counts(left + 10, "new events after moving a segment away").await;
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_of_the_store_is_told_and_does_not_hide() {
    for (fault, harm) in [
        ("bytes changed", (|path: &Path| damage(path, 40)) as fn(&Path)),
        ("cut short", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("missing", |path| fs::remove_file(path).unwrap()),
    ] {
        let home = Home::new();
        let launch = home.launch().busy_store();
        let standalone = launch.start().await;
        standalone.send(&events(2_000)).await;
        standalone.counts(2_000, fault).await;
        standalone.stop().await;
        let parquet = files(&home.data(), ".parquet");
        assert!(
            !parquet.is_empty(),
            "{fault}: an orderly stop leaves the events in Parquet files"
        );
        harm(largest(&parquet));
        told(&launch, fault).await;
    }
}

/// Either it refuses to start and names the file, or it runs and whoever asks for the damaged rows gets an error rather than a part.
async fn told(launch: &Launch, fault: &str) {
    let mut standalone = launch.spawn();
    let pid = standalone.pid;
    let refused = tokio::select! {
        status = standalone.ended() => Some(status),
        () = launch.noted(pid) => None,
    };
    if let Some(status) = refused {
        let log = standalone.log();
        assert!(
            !status.success() && log.contains(".parquet") && !log.contains("panicked"),
            "{fault}: {status}: {log}"
        );
        return;
    }
    standalone.kill().await;
    let standalone = launch.start().await;
    let answer = standalone
        .ask_sql("select count(distinct id), max(received_at), max(request_id) from events")
        .await;
    let rows = answer.body["rows"][0][0].as_u64();
    assert!(
        answer.status >= 400 || rows == Some(2_000),
        "{fault}: a part of the events passes for all of them: {answer:?}"
    );
    assert!(!standalone.log().contains("panicked"), "{fault}: it panicked: {answer:?}");
    standalone.send(&events(1)).await;
    standalone.stop().await;
}

/// A small file system of its own, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: PathBuf, options: &str) -> Result<Self, String> {
        fs::create_dir_all(&dir).map_err(|error| format!("making {}: {error}", dir.display()))?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&dir)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(dir)),
            Ok(output) => Err(format!(
                "mounting a small file system needs root: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Err(format!("running mount: {error}")),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_folder_is_refused_by_name() {
    let home = Home::new();
    let mount = match Mount::new(home.path().join("read-only"), "ro,size=8m") {
        Ok(mount) => mount,
        Err(reason) => return skip("a_read_only_folder_is_refused_by_name", &reason),
    };
    let exit = home.launch().data(mount.0.clone()).refused().await;
    assert!(!exit.status.success(), "{exit:?}");
    assert!(
        exit.stderr.contains("read-only"),
        "the refusal does not name the folder: {exit:?}"
    );
    assert!(
        exit.stderr.contains("error:") && !exit.stderr.contains("panicked"),
        "{exit:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_events_and_recovers() {
    let home = Home::new();
    let mount = match Mount::new(home.path().join("small"), "size=48m") {
        Ok(mount) => mount,
        Err(reason) => return skip("a_full_disk_refuses_events_and_recovers", &reason),
    };
    let launch = home.launch().data(mount.0.clone()).busy_store();
    let standalone = launch.start().await;
    standalone.send(&events(100)).await;
    let mut acknowledged = 100;

    let filler = mount.0.join("filler");
    fill(&filler);
    let refusal = until("events are refused once the disk is full", async || {
        let batch = events(100);
        let answer = standalone
            .ask(standalone.ingest("application/json", json!(batch).to_string()))
            .await;
        if answer.status == 202 {
            acknowledged += 100;
            fill(&filler);
            return Err(format!("{acknowledged} events taken, the disk is not full yet"));
        }
        Ok(answer)
    })
    .await;
    assert_eq!(refusal.status, 503, "{refusal:?}");
    assert!(
        refusal.header("retry-after").is_some() && !refusal.code().is_empty(),
        "the sender is not told when to come again: {refusal:?}"
    );
    let ready = standalone.get("/ready").await;
    assert!(ready.status == 503 || ready.status == 200, "{ready:?}");
    standalone
        .get("/live")
        .await
        .expect(200, "a full disk is no reason to be restarted");

    fs::remove_file(&filler).unwrap();
    until("events are taken again once there is room", async || {
        let answer = standalone
            .ask(standalone.ingest("application/json", json!(events(10)).to_string()))
            .await;
        if answer.status == 202 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    acknowledged += 10;
    at_least_and_once(&standalone, acknowledged, "after the disk had room again").await;
    standalone.stop().await;
    let standalone = launch.start().await;
    at_least_and_once(&standalone, acknowledged, "after a restart").await;
    standalone.stop().await;
}

/// Refused events are of unknown fate and may be there, but each once.
async fn at_least_and_once(standalone: &Standalone, acknowledged: u64, when: &str) {
    until(when, async || {
        let (raw, distinct) = (
            standalone.number("select count(*) from events").await,
            standalone.number("select count(distinct id) from events").await,
        );
        let hourly = standalone.number("select sum(events) from calls_hourly").await;
        let state = format!("{raw} rows, {distinct} ids, {hourly} in hours, {acknowledged} acknowledged");
        if raw >= acknowledged && distinct == raw && hourly == raw {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}

/// Takes all the room there is.
fn fill(path: &Path) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file to fill the disk with");
    let mut piece = vec![7; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_costs_no_event() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    let Some(library) = library.into_iter().find(|path| Path::new(path).exists()) else {
        return skip(
            "a_clock_that_jumps_costs_no_event",
            "libfaketime is not installed (Debian package libfaketime)",
        );
    };
    let home = Home::new();
    let offset = home.path().join("clock-offset");
    fs::write(&offset, "+0").unwrap();
    let launch = home
        .launch()
        .busy_store()
        .env("LD_PRELOAD", library)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let launch = launch.env("FAKETIME_TIMESTAMP_FILE", offset.to_string_lossy());
    let mut sent = 0;
    let mut standalone = launch.start().await;
    // Forwards, back to before the start, and forwards by more than a day; while it runs and across a restart.
    for (round, jump) in ["+2h", "-3h", "+0", "+30h", "-1d", "+0"].into_iter().enumerate() {
        let before = fs::read_to_string(&offset).unwrap();
        fs::write(&offset, jump).unwrap();
        standalone.send(&events(50)).await;
        sent += 50;
        at_least_and_once(&standalone, sent, &format!("the clock went from {before} to {jump}")).await;
        if round % 2 == 1 {
            standalone.stop().await;
            standalone = launch.start().await;
            at_least_and_once(&standalone, sent, &format!("restarted at {jump}")).await;
        }
    }
    standalone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_command_line_is_told_before_anything_is_touched() {
    let home = Home::new();
    let data = home.data().to_string_lossy().into_owned();
    let cases: [(&[&str], &str); 5] = [
        (&["--listen", "here"], "--listen"),
        (&["--server", "payments"], "payments"),
        (&["--server", "payments=ftp://127.0.0.1/mcp"], "payments"),
        (&["--retention", "soon"], "--retention"),
        (&["--memory-limit", "lots"], "--memory-limit"),
    ];
    for (args, named) in cases {
        let all: Vec<&str> = ["up", "--data-dir", &data].into_iter().chain(args.iter().copied()).collect();
        let exit = run(&crate::harness::program("mcp-runtime"), home.path(), &all).await;
        assert_eq!(exit.status.code(), Some(2), "{args:?}: {exit:?}");
        assert!(
            exit.stderr.contains(named) && exit.stderr.contains("error:"),
            "{args:?} is not named: {exit:?}"
        );
        assert!(
            !home.data().exists(),
            "{args:?}: the data folder was made for a wrong command line"
        );
    }
}
