//! A folder of format 1 is migrated at the start, has the same contents afterwards, and survives every interruption.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::frame::{FILE_HEADER, Kind, Next, Scanner, seal, versioned_header};
use super::super::record::decode;
use super::failing::Flaky;
use super::*;

/// All events of a call as (seq, order, frame, private).
type Events = Vec<(u64, u64, String, String)>;

/// The contents of a journal.
#[derive(Debug, PartialEq)]
struct Said {
    entries: Vec<Entry>,
    events: Vec<Events>,
    generation: u64,
}

fn said(store: &Embedded) -> Said {
    let entries = store.page(None, None, 99);
    let events = entries.iter().map(|entry| all(store, &entry.call_id)).collect();
    Said { entries, events, generation: store.generation() }
}

/// Makes a journal with some calls and closes it; returns its contents.
fn filled(bench: &Bench) -> Said {
    let store = bench.open();
    for number in 0..8_u64 {
        let name = format!("c_{number}");
        let mut head = 0;
        for round in 0..=number {
            let texts: Vec<String> = (0..=round % 3).map(|part| format!("{round}.{part}.{:x<1$}", "", 37)).collect();
            let records = texts.iter().map(|text| record(text)).collect();
            let changed = (round == 0).then(|| entry(&name));
            head = now(store.append(&call(&name), head, records, changed)).expect("commit").head;
        }
        if number % 2 == 1 {
            now(store.append(&call(&name), head, batch(&["end"]), Some(over(&name, 9)))).expect("commit");
        }
    }
    let long = "x".repeat((1 << 20) + 5);
    now(store.append(&call("c_long"), 0, batch(&["a", &long, "b"]), Some(entry("c_long")))).expect("commit");
    let said = said(&store);
    store.close();
    said
}

fn logs(bench: &Bench) -> Vec<PathBuf> {
    let shards = fs::read_dir(bench.path("calls")).expect("shards").flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).expect("shard").flatten());
    files.map(|file| file.path()).collect()
}

/// Rewrites `log` in format 1, up to the part that cannot be read, which is not changed.
fn make_old(log: &Path) {
    let file = File::open(log).expect("log");
    let len = file.metadata().expect("log").len();
    let mut out = versioned_header(Kind::Call, 1).to_vec();
    let mut scanner = Scanner::new(&file, FILE_HEADER as u64, len);
    while let Next::Record { payload, .. } = scanner.next().expect("reads") {
        let stored = decode(payload).expect("a record");
        seal(&mut out, |out| {
            out.extend_from_slice(&payload[..24]);
            out.extend_from_slice(&payload[stored.frame]);
            out.extend_from_slice(&payload[stored.private]);
        });
    }
    let rest = scanner.position() as usize;
    out.extend_from_slice(&fs::read(log).expect("log")[rest..]);
    fs::write(log, out).expect("written");
}

/// Turns the folder of a closed journal into one of format 1.
fn make_folder_old(bench: &Bench) {
    for log in logs(bench) {
        make_old(&log);
    }
    let mut directory = fs::read(bench.path("directory.log")).expect("directory");
    directory[..FILE_HEADER].copy_from_slice(&versioned_header(Kind::Directory, 1));
    fs::write(bench.path("directory.log"), directory).expect("written");
    let state = fs::read_to_string(bench.path("state")).expect("state");
    let old = state.replace("\"version\":2", "\"version\":1");
    assert_ne!(old, state);
    fs::write(bench.path("state"), old).expect("written");
}

/// The versions of a folder's logs, its directory and its state, and whether the state says that it is being migrated.
fn versions(bench: &Bench) -> (Vec<u8>, u64, bool) {
    let files = logs(bench).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log"));
    let files = files.chain([bench.path("directory.log")]);
    let of_files = files.map(|path| fs::read(path).expect("file")[10]).collect();
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(bench.path("state")).expect("state")).expect("json");
    (of_files, state["version"].as_u64().expect("version"), state["migrating"] == true)
}

fn copies(bench: &Bench) -> Vec<PathBuf> {
    logs(bench).into_iter().filter(|path| path.extension().is_some_and(|end| end == "migrated")).collect()
}

fn assert_migrated(bench: &Bench, expected: &Said) {
    let (files, state, migrating) = versions(bench);
    assert!(files.iter().all(|version| *version == 2), "{files:?}");
    assert_eq!((state, migrating), (2, false));
    assert!(copies(bench).is_empty() && !bench.path("directory.migrated").exists(), "no copy is left");
    let store = bench.open();
    assert_eq!(said(&store), *expected);
    assert_eq!(bench.metrics.damaged.get(), 0);
    // The calls of the migrated folder continue.
    let head = expected.events[0].len() as u64;
    now(store.append(&call("c_0"), head, batch(&["more"]), None)).expect("commit");
}

/// A folder of format 1 that tests copy.
struct Old {
    bench: Bench,
    said: Said,
}

impl Old {
    fn new() -> Self {
        let bench = Bench::new();
        let said = filled(&bench);
        make_folder_old(&bench);
        Self { bench, said }
    }

    fn copy(&self) -> Bench {
        let copy = Bench::new();
        copy_folder(&self.bench.folder, &copy.folder);
        copy
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("folder");
    for item in fs::read_dir(from).expect("folder").flatten() {
        let to = to.join(item.file_name());
        if item.path().is_dir() {
            copy_folder(&item.path(), &to);
        } else {
            fs::copy(item.path(), to).expect("copied");
        }
    }
}

#[test]
fn folder_of_format_1_says_the_same_after_its_migration() {
    let old = Old::new();
    let bench = old.copy();
    let log = bench.log_path(&call("c_3"));
    let modified = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    File::options().write(true).open(&log).expect("log").set_modified(modified).expect("set");
    assert_eq!(versions(&bench).1, 1);
    let store = bench.open();
    assert_eq!(said(&store), old.said);
    assert_eq!(fs::metadata(&log).expect("log").modified().expect("a time"), modified);
    store.close();
    drop(store);
    assert_migrated(&bench, &old.said);
    assert_eq!(bench.metrics.cut_tails.get(), 0);
}

/// A disk that ends the daemon at one of its operations.
struct Deadly {
    left: AtomicU64,
    in_sync: AtomicBool,
}

impl Deadly {
    fn step(&self) -> bool {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        left == 0
    }
}

impl Medium for Deadly {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.step() {
            Disk.write(file, &bytes[..bytes.len() / 2], offset)?;
            panic!("killed in a write");
        }
        Disk.write(file, bytes, offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        assert!(!self.step(), "killed before a truncation");
        Disk.truncate(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        assert!(!self.step(), "killed before a sync");
        Disk.sync(file)
    }

    fn sync_all(&self, dir: &File) -> io::Result<()> {
        if self.step() {
            self.in_sync.store(true, Ordering::SeqCst);
            panic!("killed before a sync of all");
        }
        Disk.sync_all(dir)
    }
}

#[test]
fn migration_that_is_killed_anywhere_is_finished_by_the_next_start() {
    let old = Old::new();
    let mut half_done = 0;
    for survived in 0.. {
        let mut bench = old.copy();
        let deadly = Arc::new(Deadly { left: survived.into(), in_sync: AtomicBool::new(false) });
        bench.medium = deadly.clone();
        let opened = catch_unwind(AssertUnwindSafe(|| bench.try_open().map(drop)));
        let killed = opened.is_err();
        if let Ok(opened) = opened {
            opened.expect("opens");
        }
        let (files, state, _) = versions(&bench);
        if files.contains(&2) {
            assert_eq!(state, 2, "an older build refuses the folder");
            half_done += usize::from(files.contains(&1));
        }
        if deadly.in_sync.load(Ordering::SeqCst)
            && let Some(copy) = copies(&bench).first()
        {
            // As if the daemon was killed between two renames, and not before the first.
            fs::rename(copy, copy.with_extension("log")).expect("renamed");
        }
        bench.medium = Arc::new(Disk);
        drop(bench.open());
        assert_migrated(&bench, &old.said);
        if !killed {
            assert!(survived > 20, "{survived} operations");
            break;
        }
    }
    assert!(half_done > 3, "{half_done} folders with files of both formats");
}

#[test]
fn full_disk_ends_the_start_with_an_error_and_loses_nothing() {
    let old = Old::new();
    let mut refused = 0;
    for room in (0..).step_by(100_003) {
        let mut bench = old.copy();
        bench.medium = Flaky::with_room(room);
        match bench.try_open() {
            Ok(store) => {
                assert_eq!(said(&store), old.said, "{room}");
                break;
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error, OpenError::Migration { .. }), "{error}");
                let message = error.to_string();
                assert!(message.contains(bench.folder.to_str().expect("path")), "{message}");
                assert!(message.contains("Nothing is lost") && message.contains("64 MiB"), "{message}");
                assert!(copies(&bench).is_empty(), "copies are removed");
            }
        }
        bench.medium = Arc::new(Disk);
        drop(bench.open());
        assert_migrated(&bench, &old.said);
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn migration_without_space_ends_with_an_error_at_any_file() {
    let old = Old::new();
    for room in (0..9_000).step_by(333) {
        let mut bench = old.copy();
        fs::remove_file(bench.log_path(&call("c_long"))).expect("removed");
        bench.medium = Flaky::with_room(room);
        let opened = bench.try_open();
        bench.medium = Arc::new(Disk);
        drop(opened);
        let store = bench.open();
        for (entry, events) in old.said.entries.iter().zip(&old.said.events) {
            if entry.call_id != call("c_long") {
                assert_eq!(all(&store, &entry.call_id), *events, "{room}: {}", entry.call_id);
            }
        }
    }
}

#[test]
fn migration_keeps_damage_at_its_event_and_truncates_torn_tails() {
    let old = Old::new();
    let bench = old.copy();
    let (damaged, torn, empty, newer, strange) = (call("c_7"), call("c_6"), call("c_4"), call("c_2"), call("c_long"));
    let path = bench.log_path(&damaged);
    let good = fs::read(&path).expect("log");
    flip(&path, good.len() as u64 / 2, 1);
    let bytes = fs::read(&path).expect("log");
    let path = bench.log_path(&torn);
    let len = fs::metadata(&path).expect("log").len();
    File::options().write(true).open(&path).expect("log").set_len(len - 9).expect("cut");
    let path = bench.log_path(&empty);
    let cut = fs::read(&path).expect("log")[..13].to_vec();
    fs::write(&path, cut).expect("cut");
    let mut file = versioned_header(Kind::Call, 9).to_vec();
    file.extend_from_slice(b"of another build");
    fs::write(bench.log_path(&newer), &file).expect("log");
    fs::write(bench.log_path(&strange), "this is no journal, but a poem").expect("log");

    let store = bench.open();
    let Err(JournalError::Damaged { after, message }) = store.head(&damaged) else { panic!("not damaged") };
    assert!(after > 3 && message.contains("at byte"), "{after}: {message}");
    let before = store.read(&damaged, 0, usize::MAX).expect("reads");
    let frame = |seq: u64| old.said.events[7][seq as usize - 1].2.clone();
    assert_eq!(before.len() as u64, after);
    assert!(before.iter().all(|record| record.frame == frame(record.seq).as_bytes()));
    let migrated = fs::read(bench.log_path(&damaged)).expect("log");
    let same = migrated.iter().rev().zip(bytes.iter().rev()).take_while(|(new, old)| new == old).count();
    assert!(same > bytes.len() / 3, "{same} of {} bytes are kept as they were", bytes.len());

    let events = all(&store, &torn);
    assert_eq!(events, old.said.events[6][..events.len()]);
    assert!(events.len() < old.said.events[6].len() && events.len() > 3, "{}", events.len());
    assert!(matches!(store.head(&empty), Err(JournalError::UnknownCall)));
    assert_eq!(bench.metrics.cut_tails.get(), 1);
    let Err(JournalError::Damaged { after: 0, message }) = store.head(&newer) else { panic!("not refused") };
    assert!(message.contains("version 9"), "{message}");
    assert_eq!(fs::read(bench.log_path(&newer)).expect("log"), file, "it is left as it was");
    assert!(matches!(store.head(&strange), Err(JournalError::Damaged { after: 0, .. })));
    assert_eq!(all(&store, &call("c_5")), old.said.events[5]);
}

#[test]
fn restored_folder_of_format_1_is_migrated_without_its_state() {
    let old = Old::new();
    let bench = old.copy();
    fs::remove_file(bench.path("state")).expect("removed");
    let store = bench.open();
    let found = said(&store);
    assert_eq!(found.events, old.said.events);
    assert_ne!(found.generation, old.said.generation);
    assert_ne!(found.entries[0].epoch, old.said.entries[0].epoch, "open calls get new epochs");
    store.close();
    drop(store);
    assert_migrated(&bench, &found);
}

#[test]
fn log_of_format_1_in_a_migrated_folder_is_refused_until_the_state_is_deleted() {
    let old = Old::new();
    let bench = old.copy();
    drop(bench.open());
    let log = bench.log_path(&call("c_2"));
    fs::copy(old.bench.log_path(&call("c_2")), &log).expect("copied");
    let store = bench.open();
    let Err(JournalError::Damaged { after: 0, message }) = store.head(&call("c_2")) else { panic!("not refused") };
    assert!(message.contains("format version 1") && message.contains("'state'"), "{message}");
    drop(store);
    fs::remove_file(bench.path("state")).expect("removed");
    assert_eq!(all(&bench.open(), &call("c_2")), old.said.events[2]);
}
