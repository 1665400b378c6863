//! The store as its callers use it, in a temporary folder.

mod appending;
pub(crate) mod conformance;
mod damage;
mod directory;
mod failing;
mod migration;
mod restart;
mod retention;
mod sequencing;
mod syncing;

use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::medium::{Disk, Medium};
use super::open::Surroundings;
use super::*;
use crate::types::JsonMap;

/// A journal in a temporary folder that can be closed, killed and opened again.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    /// The journal's folder, in `dir`.
    pub(super) folder: PathBuf,
    pub(super) config: Config,
    pub(super) boot_id: String,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) open_files: usize,
    pub(super) metrics: Metrics,
}

impl Bench {
    pub(super) fn new() -> Self {
        // In memory if possible: the tests make hundreds of journals.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temporary folder");
        let folder = dir.path().join("journal");
        let config = Config { retention: None, ..Config::default() };
        let metrics = Metrics::default();
        Self { dir, folder, config, boot_id: "boot 1".into(), medium: Arc::new(Disk), open_files: 1000, metrics }
    }

    pub(super) fn try_open(&self) -> Result<Arc<Embedded>, OpenError> {
        let around = Surroundings {
            boot_id: self.boot_id.clone(),
            medium: Arc::clone(&self.medium),
            open_files: self.open_files,
            header_of,
        };
        Embedded::open_in(&self.folder, &self.config, self.metrics.clone(), around)
    }

    pub(super) fn open(&self) -> Arc<Embedded> {
        self.try_open().expect("opens")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn log_path(&self, call: &CallId) -> PathBuf {
        self.folder.join(format!("calls/{:02x}/{call}.log", super::folder::shard(call)))
    }
}

pub(super) fn call(name: &str) -> CallId {
    CallId::parse(name).expect("id")
}

pub(super) fn entry(name: &str) -> Entry {
    Entry {
        call_id: call(name),
        epoch: format!("epoch of {name}"),
        state: CallState::Open,
        meta: JsonMap::new(),
        started_at_ms: 1_000,
        ended_at_ms: None,
        open_streams: 1,
        turns: 0,
        connections: Default::default(),
        positions: Default::default(),
        outline: None,
        due_at_ms: None,
    }
}

pub(super) fn over(name: &str, ended_at_ms: i64) -> Entry {
    Entry { state: CallState::Completed, ended_at_ms: Some(ended_at_ms), open_streams: 0, ..entry(name) }
}

pub(super) fn record(text: &str) -> NewRecord {
    let frame = Bytes::from(format!("{{\"text\":\"{text}\"}}"));
    NewRecord { header: header_of(&frame), frame, private: Bytes::from(format!("p{text}")) }
}

/// Any header, but the same one for the same frame.
pub(super) fn header_of(frame: &[u8]) -> Header {
    let number = crc32fast::hash(frame);
    Header {
        kind: KindCode(number.to_le_bytes()[0]),
        analysis: number.is_multiple_of(3).then(|| format!("analysis {number}").into()),
        turn: number.is_multiple_of(2).then_some(number.into()),
    }
}

pub(super) fn batch(texts: &[&str]) -> Vec<NewRecord> {
    texts.iter().map(|text| record(text)).collect()
}

/// The result of an append that is durable at once.
pub(super) fn now(future: Answer<Commit>) -> Result<Commit, JournalError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the append is not durable yet"),
    }
}

/// The result of an append, once it is durable.
pub(super) fn wait(future: Answer<Commit>) -> Result<Commit, JournalError> {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

/// All events of a call, read in pieces, as (seq, order, frame, private).
pub(super) fn all(store: &Embedded, call: &CallId) -> Vec<(u64, u64, String, String)> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let records = store.read(call, after, 100).expect("reads");
        let Some(last) = records.last() else { return found };
        after = last.seq;
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        for record in records {
            assert_eq!(record.header, header_of(&record.frame), "event {}", record.seq);
            found.push((record.seq, record.order, text(&record.frame), text(&record.private)));
        }
    }
}

pub(super) fn texts(store: &Embedded, call: &CallId) -> Vec<String> {
    let frames = all(store, call).into_iter().map(|(_, _, frame, _)| frame);
    frames.map(|frame| frame["{\"text\":\"".len()..frame.len() - 2].to_owned()).collect()
}

/// The records that the tail's listener received.
#[derive(Default)]
pub(super) struct Heard(pub(super) Mutex<Vec<(CallId, u64, u64)>>, pub(super) Mutex<Vec<CallId>>);

impl Tail for Heard {
    fn committed(&self, call: &CallId, records: &[Arc<Record>]) {
        self.0.lock().unwrap().extend(records.iter().map(|record| (call.clone(), record.seq, record.order)));
    }

    fn erased(&self, call: &CallId) {
        self.1.lock().unwrap().push(call.clone());
    }
}

pub(super) fn flip(path: &Path, at: u64, bits: u8) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("byte");
    file.write_all_at(&[byte[0] ^ bits], at).expect("flipped");
}
