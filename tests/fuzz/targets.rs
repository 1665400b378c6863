//! Decodes bytes from outside, and checks what must hold for any bytes. The fuzz targets of this folder call these
//! functions, and so does the test `bounds`, with changed fixtures and with limits on time and memory.
//!
//! Knows no source of bytes. The first byte, or the first two, choose among vendors, so that one target is enough for
//! all.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use sidetone::base::budget::{Budget, Exceeded};
use sidetone::gateway::transport::framing::{FramingError, Parser};
use sidetone::journal::{self, CallState, Config, Entry, Header, JournalError, NewRecord, Store as _};
use sidetone::llm::repair::{self, REPAIRING};
use sidetone::llm::{ChatResponse, Framing, PROVIDERS};
use sidetone::protocol::{ErrorCode, sniff};
use sidetone::stt::DIALECTS;
use sidetone::types::{CallId, JsonMap, SttEvent};

/// Longest body of a vendor that the gateway reads, and longest body of an error, bytes.
const MAX_BODY_BYTES: usize = 16 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Framings of streams.
pub const FRAMINGS: [Framing; 3] = [Framing::Sse, Framing::AwsEventStream, Framing::JsonLines];

/// The lines are frames of one connection; the first byte chooses the dialect. An error leaves events and decoder
/// unchanged, and words have plausible times.
pub fn stt(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let dialect = DIALECTS[usize::from(first) % DIALECTS.len()];
    let mut decoder = dialect.open();
    let mut events = Vec::new();
    for frame in text.lines() {
        let (before, version) = (events.len(), decoder.carry_version());
        let errors = match decoder.decode(frame, &mut events) {
            Ok(errors) => errors,
            Err(error) => {
                let after = (events.len(), decoder.carry_version());
                assert_eq!(
                    after,
                    (before, version),
                    "{}: the error of a frame changed something: {frame}",
                    dialect.name()
                );
                vec![error]
            }
        };
        for error in errors {
            assert!([ErrorCode::BadJson, ErrorCode::BadField].contains(&error.code), "{}", error.code);
            assert!(!error.message.is_empty(), "an error without a message");
        }
    }
    decoder.finish(&mut events);
    for event in &events {
        if let SttEvent::Final(turn) = event {
            assert!(turn.words.iter().all(|word| word.start_ms <= word.end_ms), "a word ends before it begins");
        }
    }
}

/// The first byte chooses the vendor; the rest is a body, read as an answer, an error, a list of models, and a stream.
pub fn llm(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let provider = PROVIDERS[usize::from(first) % PROVIDERS.len()];
    let body = &rest[..rest.len().min(MAX_BODY_BYTES)];
    let _ = provider.answer(body);
    let _ = provider.read_list(body);
    let _ = provider.error(429, &http::HeaderMap::new(), &body[..body.len().min(MAX_ERROR_BYTES)]);
    let mut decoder = provider.stream();
    let (mut pieces, mut whole) = (Vec::new(), ChatResponse::default());
    // An error of the framing ends the stream.
    let _ = each_event(provider.framing(), body, 4096, |event| {
        let _ = decoder.decode(event, &mut pieces);
        pieces.drain(..).for_each(|piece| whole.absorb(&piece));
    });
}

/// Divides a stream that arrives in pieces of `piece` bytes into events.
fn each_event(
    framing: Framing,
    stream: &[u8],
    piece: usize,
    mut take: impl FnMut(sidetone::llm::sse::Event<'_>),
) -> Result<(), FramingError> {
    let mut parser = Parser::new(framing);
    for bytes in stream.chunks(piece) {
        parser.push(bytes)?;
        while let Some(event) = parser.next()? {
            take(event);
        }
    }
    if let Some(event) = parser.finish()? {
        take(event);
    }
    Ok(())
}

/// The first byte chooses the framing, the second where the stream is cut: the events must not depend on the cuts.
pub fn framing(data: &[u8]) {
    let [first, piece, stream @ ..] = data else { return };
    let events = |piece: usize| {
        let mut events = Vec::new();
        let framing = FRAMINGS[usize::from(*first) % FRAMINGS.len()];
        let ended =
            each_event(framing, stream, piece, |event| events.push((event.name.to_owned(), event.data.to_vec())));
        (events, ended)
    };
    let piece = 1 + usize::from(*piece);
    assert_eq!(events(piece), events(stream.len().max(1)), "cut after every {piece} bytes");
}

/// An answer of a model when JSON is requested: valid JSON is read unchanged, and repaired text is valid JSON.
pub fn repair(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut budget = Budget::new(REPAIRING);
    match repair::parse(&text, &mut budget) {
        Ok(Some((value, true))) => {
            assert_eq!(serde_json::from_str::<serde_json::Value>(text.trim()).ok(), Some(value), "JSON was changed");
        }
        Ok(Some((value, false))) => {
            let again = repair::parse(&value.to_string(), &mut Budget::new(REPAIRING));
            assert!(matches!(again, Ok(Some((_, true)))), "what was repaired is no JSON");
        }
        Ok(None) => assert!(serde_json::from_str::<serde_json::Value>(text.trim()).is_err(), "JSON was refused"),
        Err(exceeded) => assert!(matches!(exceeded, Exceeded::Limit(_)), "{exceeded:?}"),
    }
}

/// A journal of one call: its files by path, and the frames in it.
pub struct Journal {
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Index of the file that is the call's log.
    pub log: usize,
    pub frames: Vec<Bytes>,
}

fn call() -> CallId {
    CallId::parse("c_1").expect("an id")
}

fn open(folder: &Path) -> Result<std::sync::Arc<journal::Embedded>, journal::OpenError> {
    journal::open(folder, &Config::default(), journal::Metrics::default(), sniff::header)
}

/// A temporary folder, in memory if possible; the caller removes it.
fn folder() -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static MADE: AtomicU64 = AtomicU64::new(0);
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    parent.join(format!("sidetone-fuzz-{}-{number}", std::process::id()))
}

fn files_below(folder: &Path, root: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("read the folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, root, into);
        } else {
            into.push((path.strip_prefix(root).expect("below").to_owned(), std::fs::read(&path).expect("read")));
        }
    }
}

/// A complete journal, made once.
pub fn whole_journal() -> &'static Journal {
    static JOURNAL: OnceLock<Journal> = OnceLock::new();
    JOURNAL.get_or_init(|| {
        let folder = folder();
        let store = open(&folder).expect("a journal");
        let mut frames: Vec<Bytes> = Vec::new();
        for batch in 1..=4_usize {
            let entry = Entry {
                call_id: call(),
                epoch: "0123456789abcdefghjk".to_owned(),
                state: CallState::Open,
                meta: JsonMap::new(),
                started_at_ms: 1_700_000_000_000,
                ended_at_ms: None,
                open_streams: 1,
                turns: 0,
                connections: Default::default(),
                positions: Default::default(),
                outline: None,
                due_at_ms: None,
            };
            let after = frames.len() as u64;
            let made: Vec<Bytes> = (0..batch)
                .map(|number| Bytes::from(format!("{{\"type\":\"gap\",\"x\":\"{:x<1$}\"}}", "", batch * 300 * number)))
                .collect();
            let record = |frame: &Bytes| NewRecord {
                header: Header::default(),
                frame: frame.clone(),
                private: Bytes::from_static(b"{}"),
            };
            let records = made.iter().map(record).collect();
            let appended = store.append(&call(), after, records, (after == 0).then_some(entry));
            futures::executor::block_on(appended).expect("appended");
            frames.extend(made);
        }
        futures::executor::block_on(store.close()).expect("closed");
        drop(store);
        let mut files = Vec::new();
        files_below(&folder, &folder, &mut files);
        std::fs::remove_dir_all(&folder).expect("removed");
        let log = files.iter().position(|(path, _)| path.to_string_lossy().ends_with("c_1.log")).expect("the log");
        Journal { files, log, frames }
    })
}

/// The bytes are the log of a call: the records that are read are complete, were written, and are in order without a
/// gap, or else an error says where reading ended.
pub fn journal(data: &[u8]) {
    let Journal { files, log, frames } = whole_journal();
    let folder = folder();
    for (at, (path, bytes)) in files.iter().enumerate() {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, if at == *log { data } else { bytes }).expect("written");
    }
    let store = open(&folder).expect("one log that is damaged keeps no journal from opening");
    let mut after = 0;
    loop {
        match futures::executor::block_on(store.read(&call(), after, 1024)) {
            Ok(records) if records.is_empty() => break,
            Ok(records) => {
                for record in records {
                    after += 1;
                    assert_eq!(record.seq, after, "a hole");
                    // A checksum of 32 bits protects a record that differs from the written one.
                    let written = usize::try_from(after - 1).ok().and_then(|at| frames.get(at));
                    assert_eq!(Some(&record.frame), written, "a record that nobody wrote");
                }
            }
            Err(JournalError::UnknownCall) if after == 0 => break,
            Err(JournalError::Damaged { after: readable, message }) => {
                assert!(readable <= after && !message.is_empty(), "damaged after {readable}, read up to {after}");
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    drop(store);
    std::fs::remove_dir_all(&folder).expect("removed");
}
