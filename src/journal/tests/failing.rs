//! Full and broken disks: a failed write is never read, an acknowledged write always is, and the journal recovers by
//! itself.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

/// A disk with limited space, which may also refuse to truncate files.
pub(super) struct Flaky {
    room: AtomicU64,
    no_cut: AtomicBool,
}

impl Flaky {
    pub(super) fn with_room(room: u64) -> Arc<Self> {
        Arc::new(Self { room: AtomicU64::new(room), no_cut: AtomicBool::new(false) })
    }

    pub(super) fn set_room(&self, room: u64) {
        self.room.store(room, Ordering::SeqCst);
    }
}

const PLENTY: u64 = u64::MAX / 2;

impl Medium for Flaky {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Overwriting existing bytes needs no space.
        let over = file.metadata()?.len().saturating_sub(offset);
        let needed = (bytes.len() as u64).saturating_sub(over);
        let take = |room: u64| Some(room.saturating_sub(needed));
        let had = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).expect("taken");
        let missing = needed.saturating_sub(had);
        Disk.write(file, &bytes[..bytes.len() - missing as usize], offset)?;
        if missing > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        if self.no_cut.load(Ordering::SeqCst) {
            return Err(io::Error::other("it does not cut"));
        }
        Disk.truncate(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Disk.sync(file)
    }

    fn sync_all(&self, dir: &File) -> io::Result<()> {
        Disk.sync_all(dir)
    }
}

#[derive(Debug, Clone)]
struct Step {
    /// The index of one of three calls.
    which: usize,
    sizes: Vec<usize>,
    /// Set if the step changes the entry.
    entry: bool,
    /// Free space of the disk during the step.
    room: Option<u64>,
    /// Set if the disk refuses to truncate files during the step.
    no_cut: bool,
    /// Set if the daemon is killed after the step.
    kill: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let room = prop_oneof![2 => Just(None), 1 => (0_u64..3000).prop_map(Some)];
    let odds = (any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    (0_usize..3, vec(0_usize..900, 1..4), room, odds).prop_map(|(which, sizes, room, (entry, no_cut, kill))| Step {
        which,
        sizes,
        entry,
        room,
        no_cut,
        kill,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..kept() })]

    #[test]
    fn what_failed_is_never_read_and_what_was_acknowledged_is(steps in vec(step(), 1..25)) {
        let flaky = Flaky::with_room(PLENTY);
        let bench = Bench { medium: flaky.clone(), ..Bench::new() };
        let names = ["c_0", "c_1", "c_2"];
        let mut store = bench.open();
        let mut acknowledged: [Vec<String>; 3] = Default::default();
        let mut turns = [0; 3];
        for (number, step) in steps.iter().enumerate() {
            let (name, texts_so_far) = (names[step.which], &mut acknowledged[step.which]);
            let head = texts_so_far.len() as u64;
            let batch: Vec<String> = step.sizes.iter().map(|size| format!("{number}.{:x<size$}", "")).collect();
            let records = batch.iter().map(|text| record(text)).collect();
            let changed = (step.entry || head == 0).then(|| Entry { turns: number as u64 + 1, ..entry(name) });
            flaky.no_cut.store(step.no_cut, Ordering::SeqCst);
            flaky.set_room(step.room.unwrap_or(PLENTY));
            match now(store.append(&call(name), head, records, changed.clone())) {
                Ok(commit) => {
                    texts_so_far.extend(batch);
                    prop_assert_eq!(commit.head, texts_so_far.len() as u64);
                    turns[step.which] = changed.map_or(turns[step.which], |entry| entry.turns);
                }
                // An append also fails with free space, while the remains of an earlier failure cannot be truncated.
                Err(JournalError::Unavailable(_)) => prop_assert!(step.room.is_some() || step.no_cut),
                Err(other) => prop_assert!(false, "{}", other),
            }
            if step.kill {
                drop(store);
                flaky.set_room(PLENTY);
                flaky.no_cut.store(false, Ordering::SeqCst);
                store = bench.open();
            }
            for (which, expected) in acknowledged.iter().enumerate() {
                if expected.is_empty() {
                    let refused = store.read(&call(names[which]), 0, 1);
                    prop_assert!(matches!(refused, Err(JournalError::UnknownCall)), "{:?}", refused);
                    prop_assert_eq!(store.entry(&call(names[which])), None);
                } else {
                    prop_assert_eq!(&texts(&store, &call(names[which])), expected);
                    prop_assert_eq!(store.entry(&call(names[which])).expect("entry").turns, turns[which]);
                }
            }
        }
        prop_assert_eq!(bench.metrics.damaged.get(), 0);
    }
}

/// Waits until `holds` returns true; fails after a minute.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn journal_opens_on_a_full_disk_and_recovers() {
    // A reboot in between changes the directory as well.
    for boot in ["boot 1", "boot 2"] {
        let flaky = Flaky::with_room(PLENTY);
        let mut bench = Bench { medium: flaky.clone(), ..Bench::new() };
        let store = bench.open();
        now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
        let order = store.order();
        drop(store);
        bench.boot_id = boot.into();
        flaky.set_room(0);
        let store = bench.open();
        assert!(store.health().is_err(), "{boot}");
        assert_eq!(texts(&store, &call("c_1")), ["a"], "{boot}: what is there is read");
        let refused = now(store.append(&call("c_1"), 1, batch(&["b"]), None));
        assert!(matches!(refused, Err(JournalError::Unavailable(_))), "{boot}: {refused:?}");
        let refused = now(store.append(&call("c_2"), 0, batch(&["b"]), Some(entry("c_2"))));
        assert!(matches!(refused, Err(JournalError::Unavailable(_))), "{boot}: {refused:?}");
        let epoch = store.entry(&call("c_1")).expect("entry").epoch;
        assert_eq!(epoch != entry("c_1").epoch, boot == "boot 2");
        flaky.set_room(PLENTY);
        eventually("it works again", || store.health().is_ok());
        let commit = now(store.append(&call("c_1"), 1, batch(&["b"]), None)).expect("commit");
        assert!(commit.records[0].order > order, "{boot}");
        drop(store);
        let store = bench.open();
        assert_eq!(texts(&store, &call("c_1")), ["a", "b"], "{boot}");
        assert_eq!(store.entry(&call("c_1")).expect("entry").epoch, epoch, "{boot}: it is kept");
        assert_eq!(store.entry(&call("c_2")), None, "{boot}");
    }
}

#[test]
fn health_says_so_and_recovers_without_an_append() {
    let flaky = Flaky::with_room(PLENTY);
    let bench = Bench { medium: flaky.clone(), ..Bench::new() };
    let store = bench.open();
    now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    store.health().expect("works");
    flaky.set_room(10);
    let Err(JournalError::Unavailable(message)) = now(store.append(&call("c_1"), 1, batch(&["b"]), None)) else {
        panic!("it was written");
    };
    assert!(message.contains(bench.folder.to_str().expect("path")), "{message}");
    let Err(JournalError::Unavailable(same)) = store.health() else { panic!("healthy") };
    assert_eq!(same, message);
    assert!(bench.metrics.failures.get() > 0);
    flaky.set_room(PLENTY);
    eventually("a probe finds that there is room again", || store.health().is_ok());
    assert!(!bench.path("probe").exists());
    now(store.append(&call("c_1"), 1, batch(&["c"]), None)).expect("commit");
    assert_eq!(texts(&store, &call("c_1")), ["a", "c"]);
}

#[test]
fn an_append_that_succeeds_is_health_too() {
    let flaky = Flaky::with_room(PLENTY);
    let bench = Bench { medium: flaky.clone(), ..Bench::new() };
    let store = bench.open();
    now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    flaky.set_room(0);
    now(store.append(&call("c_1"), 1, batch(&["b"]), None)).expect_err("full");
    flaky.set_room(1000);
    now(store.append(&call("c_1"), 1, batch(&["c"]), None)).expect("commit");
    store.health().expect("works");
}

/// A small file system that is really full; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).expect("folder");
        let options = format!("size={bytes},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).output();
        assert!(unmounted.is_ok_and(|output| output.status.success()), "unmounts");
    }
}

#[test]
fn full_disk_loses_nothing_and_appends_continue_once_there_is_space() {
    let bench = Bench::new();
    let Some(mounted) = Mounted::new(&bench.folder, 4 << 20) else {
        println!("SKIPPED: no tmpfs can be mounted here, so no disk can be really full");
        return;
    };
    let store = bench.open();
    let names = ["c_0", "c_1", "c_2", "c_3"];
    let mut acknowledged: [Vec<String>; 4] = Default::default();
    let mut append = |number: usize| {
        let which = number % 4;
        let (name, texts) = (names[which], &mut acknowledged[which]);
        let text = format!("{number}.{:x<1$}", "", number * 37 % 5000);
        let entry = texts.is_empty().then(|| entry(name));
        let result = now(store.append(&call(name), texts.len() as u64, vec![record(&text)], entry));
        if result.is_ok() {
            texts.push(text);
        }
        result.is_ok()
    };
    let filled = (0..100_000).find(|number| !append(*number)).expect("the disk is full some time");
    let failed = (1..200).filter(|more| !append(filled + more)).count();
    assert!(failed > 50, "{failed} of 200 failed");
    let filler = bench.path("filler");
    drop(std::fs::write(&filler, vec![1; 4 << 20]));
    assert!(!append(filled + 200));
    assert!(store.health().is_err());
    std::fs::remove_file(&filler).expect("removed");
    // Space becomes free when a completed call is erased.
    now(store.append(&call("c_3"), acknowledged[3].len() as u64, vec![], Some(over("c_3", 5)))).expect("entry");
    assert!(store.erase(&call("c_3")).expect("erased"));
    eventually("a probe finds that there is room again", || store.health().is_ok());
    drop(store);
    let store = bench.open();
    for (name, expected) in names.iter().zip(&acknowledged).take(3) {
        assert_eq!(&texts(&store, &call(name)), expected);
        let head = expected.len() as u64;
        now(store.append(&call(name), head, batch(&["more"]), None)).expect("there is room");
    }
    assert_eq!(bench.metrics.damaged.get(), 0);
    drop(store);
    drop(mounted);
}
