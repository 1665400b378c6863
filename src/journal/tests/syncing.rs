//! Durability `"machine"`: nothing is published before it is synced, and records are published in the sequence of their
//! `order`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Condvar;

use super::*;

/// A disk whose syncs wait until the test allows them, or fail.
#[derive(Default)]
struct Gate {
    /// By inode: `None` = syncs wait, else whether they succeed. Syncs of other files succeed at once.
    files: Mutex<HashMap<u64, Option<bool>>>,
    moved: Condvar,
}

impl Gate {
    fn set(&self, path: &Path, to: Option<bool>) {
        let inode = std::fs::metadata(path).expect("file").ino();
        self.files.lock().unwrap().insert(inode, to);
        self.moved.notify_all();
    }

    /// Waits until syncs of all these files are allowed; fails if one of them must fail.
    fn pass(&self, which: impl Fn(u64) -> bool) -> io::Result<()> {
        let has = |files: &HashMap<u64, Option<bool>>, what| files.iter().any(|(file, to)| which(*file) && *to == what);
        let files = self.moved.wait_while(self.files.lock().unwrap(), |files| has(files, None)).unwrap();
        if has(&files, Some(false)) { Err(io::Error::other("it does not sync")) } else { Ok(()) }
    }
}

impl Medium for Gate {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        Disk.write(file, bytes, offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        Disk.truncate(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        self.pass(|file| file == inode)
    }

    fn sync_all(&self, _dir: &File) -> io::Result<()> {
        self.pass(|_| true)
    }
}

struct Fixture {
    bench: Bench,
    gate: Arc<Gate>,
    heard: Arc<Heard>,
    store: Arc<Embedded>,
}

/// Two calls with one event each.
fn fixture() -> Fixture {
    let gate = Arc::new(Gate::default());
    let mut bench = Bench { medium: gate.clone(), ..Bench::new() };
    bench.config.durability = Durability::Machine;
    let store = bench.open();
    let heard = Arc::new(Heard::default());
    for name in ["c_1", "c_2"] {
        wait(store.append(&call(name), 0, batch(&["a"]), Some(entry(name)))).expect("commit");
    }
    store.set_tail(heard.clone());
    Fixture { bench, gate, heard, store }
}

fn pending(answer: &mut Answer<Commit>) -> bool {
    answer.poll_with(Waker::noop()).is_none()
}

#[test]
fn nothing_is_seen_before_it_is_synced() {
    let Fixture { bench, gate, heard, store } = fixture();
    let (c, path) = (call("c_1"), bench.log_path(&call("c_1")));
    gate.set(&path, None);
    let mut append = store.append(&c, 1, batch(&["b", "c"]), Some(over("c_1", 7)));
    assert!(pending(&mut append));
    assert_eq!((store.head(&c).expect("head"), store.read(&c, 1, 9).expect("reads").len()), (1, 0));
    assert_eq!(store.entry(&c), Some(entry("c_1")));
    assert_eq!(*heard.0.lock().unwrap(), []);
    gate.set(&path, Some(true));
    assert_eq!(wait(append).expect("commit").head, 3);
    assert_eq!(texts(&store, &c), ["a", "b", "c"]);
    assert_eq!(store.entry(&c), Some(over("c_1", 7)));
    assert_eq!(heard.0.lock().unwrap().len(), 2);
}

#[test]
fn unsynced_batch_is_not_visible() {
    let Fixture { bench, gate, heard, store } = fixture();
    let (c, path) = (call("c_1"), bench.log_path(&call("c_1")));
    gate.set(&path, Some(false));
    let failed = wait(store.append(&c, 1, batch(&["b"]), Some(over("c_1", 7))));
    assert!(matches!(failed, Err(JournalError::Unavailable(_))), "{failed:?}");
    assert!(store.health().is_err());
    assert_eq!(texts(&store, &c), ["a"]);
    assert_eq!(store.entry(&c), Some(entry("c_1")));
    gate.set(&path, Some(true));
    assert_eq!(wait(store.append(&c, 1, batch(&["c"]), None)).expect("commit").head, 2);
    store.health().expect("works");
    assert_eq!(heard.0.lock().unwrap().len(), 1);
    drop(store);
    assert_eq!(texts(&bench.open(), &c), ["a", "c"]);
}

#[test]
fn call_whose_first_batch_cannot_be_synced_does_not_exist() {
    let Fixture { bench, gate, store, .. } = fixture();
    gate.set(&bench.path("directory.log"), Some(false));
    let new = call("c_new");
    let failed = wait(store.append(&new, 0, batch(&["a"]), Some(entry("c_new"))));
    assert!(matches!(failed, Err(JournalError::Unavailable(_))), "{failed:?}");
    assert_eq!(store.entry(&new), None);
    // If an entry cannot be synced, its batch fails too.
    let failed = wait(store.append(&call("c_1"), 1, batch(&["b"]), Some(over("c_1", 7))));
    assert!(matches!(failed, Err(JournalError::Unavailable(_))), "{failed:?}");
    assert_eq!(store.entry(&call("c_1")), Some(entry("c_1")));
    gate.set(&bench.path("directory.log"), Some(true));
    wait(store.append(&new, 0, batch(&["b"]), Some(entry("c_new")))).expect("commit");
    drop(store);
    let store = bench.open();
    assert_eq!(texts(&store, &new), ["b"]);
    assert_eq!(texts(&store, &call("c_1")), ["a"]);
    assert_eq!(store.entry(&call("c_1")), Some(entry("c_1")));
}

#[test]
fn second_writer_waits_for_the_batch_in_flight() {
    let Fixture { bench, gate, store, .. } = fixture();
    let (c, path) = (call("c_1"), bench.log_path(&call("c_1")));
    gate.set(&path, None);
    drop(store.append(&c, 1, batch(&["b"]), None));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| wait(store.append(&c, 1, batch(&["x"]), None)));
        gate.set(&path, Some(true));
        let refused = second.join().expect("ran");
        assert!(matches!(refused, Err(JournalError::Fenced { head: 2, after: 1 })), "{refused:?}");
    });
    assert_eq!(texts(&store, &c), ["a", "b"]);
}

#[test]
fn many_writers_at_once() {
    let Fixture { bench, heard, store, .. } = fixture();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for head in 0..50 {
                    let name = format!("m_{thread}");
                    let entry = (head % 7 == 0).then(|| entry(&name));
                    wait(store.append(&call(&name), head, batch(&["x"]), entry)).expect("commit");
                }
            });
        }
    });
    assert!(heard.0.lock().unwrap().windows(2).all(|pair| pair[0].2 < pair[1].2));
    store.close();
    drop(store);
    let store = bench.open();
    for thread in 0..4 {
        assert_eq!(texts(&store, &call(&format!("m_{thread}"))).len(), 50);
    }
}
