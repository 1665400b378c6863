//! `[record]`: the recordings of a daemon replay to the same turns, in every dialect; whatever happens to the daemon, a
//! file or the disk, complete lines are written, and no call is affected.

use std::path::{Path, PathBuf};

use sidetone::recording::{self, Recording};

use crate::support::daemon::{self, Daemon};
use crate::support::disk::SmallDisk;
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

fn config(dir: &Path, more: &str) -> String {
    // No analyses: this test is about turns.
    format!("[ingest]\nlinger_ms = 50\nanalyses = []\n[record]\ndir = {:?}\n{more}", dir.display().to_string())
}

/// The files of a stream in order of creation.
fn files(dir: &Path, stem: &str) -> Vec<PathBuf> {
    let name =
        |number: u32| dir.join(if number == 1 { format!("{stem}.jsonl") } else { format!("{stem}.{number}.jsonl") });
    (1..).map(name).take_while(|path| path.exists()).collect()
}

fn read(path: &Path) -> Recording {
    recording::parse(&std::fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// The file, once it contains this many frames.
async fn written(path: &Path, frames: usize) -> Recording {
    eventually(&format!("{frames} frames in {path:?}"), PATIENCE, || async {
        let recording = recording::parse(&std::fs::read_to_string(path).ok()?).ok()?;
        (recording.frames.len() == frames).then_some(recording)
    })
    .await
}

/// Replays a file into the daemon as `call`; returns the turns and the command's output.
async fn replayed(daemon: &Daemon, path: &Path, call: &str) -> (Vec<Json>, String) {
    let (path, url) = (path.display().to_string(), daemon.url());
    let output = daemon::run(&["replay", &path, "--to", &url, "--speed", "max", "--call-id", call]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{path}: {said}");
    (daemon.turns(call).await, said)
}

/// A turn's content, independent of its call. A turn without times in its frame has the time of its arrival, which
/// differs each time.
fn essence(turns: &[Json]) -> Vec<Json> {
    let of = |turn: &Json| {
        let times: &[&str] = if turn["start_ms"] == turn["end_ms"] { &[] } else { &["start_ms", "end_ms"] };
        let kept = ["turn", "vendor_turn", "speaker", "text", "language", "confidence"];
        kept.iter().chain(times).map(|&name| (name.to_owned(), turn[name].clone())).collect()
    };
    turns.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialect_replays_to_the_same_turns() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&config(folder.path(), "")).await;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stt");
    let listed = daemon.get_json("/v1/dialects").await;
    let mut in_all = 0;
    for dialect in listed["dialects"].as_array().unwrap() {
        let name = dialect["name"].as_str().unwrap();
        let frames = std::fs::read_to_string(golden.join(name).join("full.jsonl")).unwrap();
        let query = format!("call_id={name}&stream_id=s&dialect={name}&results=none");
        let (mut client, _) = ingest(&daemon, &query).await;
        for frame in frames.lines() {
            client.send_text(frame).await;
        }
        client.send(&json!({"type": "end", "scope": "call"})).await;
        daemon.completed(name, PATIENCE).await;
        drop(client);
        let turns = daemon.turns(name).await;
        assert!(!turns.is_empty(), "{name}");
        let path = folder.path().join(format!("{name}.s.jsonl"));
        assert_eq!(read(&path).header.dialect, name);
        let (again, _) = replayed(&daemon, &path, &format!("{name}-again")).await;
        assert_eq!(essence(&again), essence(&turns), "{name}");
        in_all += turns.len();
    }
    println!("{in_all} turns in {} dialects", listed["dialects"].as_array().unwrap().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_daemon_leaves_complete_lines_and_the_next_one_starts_a_file() {
    let _machine = shared().await;
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut daemon = Daemon::start_in(&config(folder.path(), ""), home.path()).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    for order in 0..1000 {
        producer.send(&turn(order, "agent", &format!("{order} {}", "and so on ".repeat(40)))).await;
    }
    let path = folder.path().join("c1.s_1.jsonl");
    // In the middle of recording.
    eventually("something is written", PATIENCE, || async {
        std::fs::metadata(&path).is_ok_and(|file| file.len() > 1000).then_some(())
    })
    .await;
    daemon.kill9();
    let bytes = std::fs::read(&path).unwrap();
    // A kill may cut off a write of many lines; only complete lines count.
    let recording = read(&path);
    assert!(recording.frames.len() > 1, "{} frames", recording.frames.len());
    daemon.up().await;
    let (turns, _) = replayed(&daemon, &path, "again").await;
    assert_eq!(turns.len(), recording.frames.len());
    // Either the recording or the journal may be further ahead at the end.
    let journalled = essence(&daemon.turns("c1").await);
    let both = turns.len().min(journalled.len());
    assert_eq!(essence(&turns)[..both], journalled[..both]);
    // The producer reconnects twice: each connection has a file, and none is overwritten.
    for connection in 2..4_u64 {
        let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
        let order = 1000 * connection;
        producer.send(&turn(order, "agent", "Back again.")).await;
        producer.acked(order).await;
        let next = written(&folder.path().join(format!("c1.s_1.{connection}.jsonl")), 1).await;
        assert!(next.frames[0].message.contains("Back again."));
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    // Cut in the middle of the last line, and of a character: the turns before it are replayed, and the loss is
    // reported.
    let mut torn = bytes[..=bytes.iter().rposition(|&byte| byte == b'\n').unwrap()].to_vec();
    torn.extend_from_slice("{\"at_ms\":999999,\"message\":{\"type\":\"turn\",\"text\":\"caf\u{e9}".as_bytes());
    torn.pop();
    let cut = home.path().join("torn.jsonl");
    std::fs::write(&cut, torn).unwrap();
    let (again, said) = replayed(&daemon, &cut, "torn").await;
    assert!(said.contains("cut short"), "{said}");
    assert_eq!(essence(&again), essence(&turns)[..again.len()]);
    assert!(turns.len() - again.len() <= usize::from(recording.cut));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_is_followed_by_another_and_all_together_replay_to_the_same_turns() {
    const LIMIT: u64 = 4096;
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&config(folder.path(), &format!("max_file_bytes = {LIMIT}\n"))).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    for order in 0..60 {
        producer.send(&turn(order, if order % 2 == 0 { "agent" } else { "customer" }, &"blah ".repeat(40))).await;
    }
    // A frame that is larger than any file may be gets a separate file.
    producer.send(&turn(60, "agent", &"long ".repeat(2000))).await;
    producer.acked(60).await;
    let stem = "c1.s_1";
    let parts = eventually("all frames are written", PATIENCE, || async {
        let parts = files(folder.path(), stem);
        let read = |path: &PathBuf| recording::parse(&std::fs::read_to_string(path).ok()?).ok();
        let frames = parts.iter().map(|path| read(path).map_or(0, |recording| recording.frames.len())).sum::<usize>();
        (frames == 61).then_some(parts)
    })
    .await;
    let sizes: Vec<u64> = parts.iter().map(|path| std::fs::metadata(path).unwrap().len()).collect();
    assert!(sizes.len() > 4, "{sizes:?}");
    assert!(sizes[..sizes.len() - 1].iter().all(|&size| size > LIMIT / 2 && size <= LIMIT), "{sizes:?}");
    let whole = folder.path().join("whole.jsonl");
    let text: String = parts.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    std::fs::write(&whole, text).unwrap();
    let (turns, _) = replayed(&daemon, &whole, "again").await;
    assert_eq!(essence(&turns), essence(&daemon.turns("c1").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_affects_only_recordings() {
    let _machine = shared().await;
    let Some(disk) = SmallDisk::mount("512k") else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 256 << 10]).unwrap();
    let daemon = Daemon::start(&config(disk.path(), "")).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    let mut order = 0;
    let mut say = async |producer: &mut Client| {
        producer.send(&turn(order, "agent", &format!("{order} {}", "more and more ".repeat(80)))).await;
        // No client waits for the disk.
        producer.acked(order).await;
        order += 1;
        order
    };
    let lost = "sidetone_record_dropped_frames_total";
    while daemon.metric(lost, &[]).await == 0.0 {
        assert!(say(&mut producer).await < 2000, "the disk is not full");
    }
    let mut said = 0;
    for _ in 0..50 {
        said = say(&mut producer).await;
    }
    let path = disk.path().join("c1.s_1.jsonl");
    eventually("there are whole lines only", PATIENCE, || async {
        let full = recording::parse(&std::fs::read_to_string(&path).ok()?).ok()?;
        (!full.cut && !full.frames.is_empty()).then_some(())
    })
    .await;
    assert_eq!(daemon.log().matches("frames could not be recorded").count(), 1, "said once");
    std::fs::remove_file(&ballast).unwrap();
    let freed = said;
    while written_last(&path).is_none_or(|last| last < freed) {
        said = say(&mut producer).await;
        assert!(said < freed + 2000, "it is not recorded again");
    }
    assert_eq!(daemon.turns("c1").await.len() as u64, said, "no turn is lost");
    eventually("every frame is in the file or counted", PATIENCE, || async {
        let kept = recording::parse(&std::fs::read_to_string(&path).ok()?).ok()?.frames.len() as u64;
        (kept + daemon.metric(lost, &[]).await as u64 == said).then_some(())
    })
    .await;
}

/// The turn of the file's last line.
fn written_last(path: &Path) -> Option<u64> {
    let recording = recording::parse(&std::fs::read_to_string(path).ok()?).ok()?;
    let last: Json = serde_json::from_str(&recording.frames.last()?.message).ok()?;
    last["turn_order"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_without_a_call_creates_and_replaces_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.jsonl");
    std::fs::write(&path, "kept").unwrap();
    let file = path.display().to_string();
    let nobody = format!("http://127.0.0.1:{}", daemon::free_port());
    for (call, why) in [("c1", "sidetone serve"), ("no id/", "CALL: expected")] {
        for more in [["--force", "-o", &file], ["-o", "unused.jsonl", "--no-words"]] {
            let output = daemon::run(&[&["record", call, "--to", &nobody][..], &more].concat()).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), said.contains(why)), (Some(1), true), "{said}");
        }
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    assert!(!Path::new("unused.jsonl").exists());
}
