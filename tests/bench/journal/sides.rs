//! The journal and what it is measured against: what is written, by whom, and the figures.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use sidetone::journal::{
    self, Answer, CallState, Commit, Config, Durability, Embedded, Entry, Header, JournalError, KindCode, NewRecord,
    Store as _,
};
use sidetone::types::{CallId, JsonMap};

/// Two events of a turn: the turn itself, with its words as private fields, and an insight. Clones share the bytes.
pub(super) fn turn() -> Vec<NewRecord> {
    static TURN: LazyLock<[NewRecord; 2]> = LazyLock::new(|| {
        let turn = Header { kind: KindCode(5), turn: Some(7), analysis: None };
        let insight = Header { kind: KindCode(8), turn: None, analysis: Some("summary".into()) };
        let event = |bytes: usize| Bytes::from(format!("{{\"type\":\"turn.final\",\"text\":\"{:x<bytes$}\"}}", ""));
        [
            NewRecord { header: turn, frame: event(350), private: event(500) },
            NewRecord { header: insight, frame: event(700), private: Bytes::from_static(b"{}") },
        ]
    });
    TURN.to_vec()
}

pub(super) fn entry(call: &CallId) -> Entry {
    Entry {
        call_id: call.clone(),
        epoch: "0123456789abcdefghjk".to_owned(),
        state: CallState::Open,
        meta: JsonMap::new(),
        started_at_ms: 1_700_000_000_000,
        ended_at_ms: None,
        open_streams: 1,
        turns: 0,
        connections: std::collections::BTreeMap::new(),
        positions: Default::default(),
        outline: None,
        due_at_ms: None,
    }
}

pub(super) fn calls(count: usize) -> Vec<CallId> {
    (0..count).map(|number| CallId::parse(&format!("c_{number:0>20}")).expect("id")).collect()
}

pub(super) fn open(dir: &Path, durability: Durability) -> Arc<Embedded> {
    let config = Config { durability, ..Config::default() };
    journal::open(dir, &config, journal::Metrics::default(), sidetone::protocol::sniff::header).expect("journal")
}

/// The journal's side: each call's head.
pub(super) struct Appender {
    store: Arc<Embedded>,
    calls: Vec<CallId>,
    heads: Vec<u64>,
}

impl Appender {
    pub(super) fn new(store: &Arc<Embedded>, calls: Vec<CallId>) -> Self {
        let heads = vec![0; calls.len()];
        let mut appender = Self { store: Arc::clone(store), calls, heads };
        for which in 0..appender.calls.len() {
            appender.append(which, turn());
        }
        appender
    }

    pub(super) fn append(&mut self, which: usize, batch: Vec<NewRecord>) -> Commit {
        let call = &self.calls[which];
        let entry = (self.heads[which] == 0).then(|| entry(call));
        let commit = answered(self.store.append(call, self.heads[which], batch, entry)).expect("commit");
        self.heads[which] = commit.head;
        commit
    }
}

/// The answer's result. Waits if a batch of another thread is written first.
pub(super) fn answered<T: Unpin>(mut answer: Answer<T>) -> Result<T, JournalError> {
    let result = answer.poll_with(Waker::noop());
    result.unwrap_or_else(|| futures::executor::block_on(answer))
}

/// The floor: one file per call, a length and a checksum before each event, one `write`.
pub(super) struct Bare {
    files: Vec<File>,
    buffer: Vec<u8>,
}

impl Bare {
    pub(super) fn new(dir: &tempfile::TempDir, count: usize) -> Self {
        let files = (0..count).map(|number| File::create(dir.path().join(number.to_string())).expect("file")).collect();
        Self { files, buffer: Vec::new() }
    }

    pub(super) fn append(&mut self, which: usize, batch: &[NewRecord]) {
        self.buffer.clear();
        encode(&mut self.buffer, batch);
        self.files[which].write_all(&self.buffer).expect("written");
    }
}

pub(super) fn encode(buffer: &mut Vec<u8>, batch: &[NewRecord]) {
    for record in batch {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&record.frame);
        crc.update(&record.private);
        buffer.extend_from_slice(&(record.frame.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&crc.finalize().to_le_bytes());
        buffer.extend_from_slice(&record.frame);
        buffer.extend_from_slice(&record.private);
    }
}

pub(super) struct Times(pub(super) Vec<Duration>);

impl Times {
    fn at(&mut self, part: f64) -> Duration {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }

    pub(super) fn row(&mut self, name: &str, floor: Option<&mut Self>) {
        let (p50, p99, max) = (self.at(0.5), self.at(0.99), self.at(1.0));
        let ratio = floor.map_or(String::new(), |floor| {
            let mut ratio = |part: f64| self.at(part).as_secs_f64() / floor.at(part).as_secs_f64();
            format!("   {:.2}x {:.2}x of the floor", ratio(0.5), ratio(0.99))
        });
        println!("  {name:<34} p50 {p50:>9.1?}  p99 {p99:>9.1?}  max {max:>9.1?}{ratio}");
    }
}
