//! `[record]`: live sessions written to files as they come, in the form of recordings; one file a stream.
//!
//! Recording never makes a session wait: frames go through a bounded queue to a thread that writes them, and what that
//! cannot take is dropped, counted, and noted in the daemon's log. Every write ends with a whole line, so that a killed
//! daemon leaves files that can be replayed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use toml::Value;

use crate::base::settings::{Problems, Section};
use crate::base::ws::Utf8Bytes;
use crate::recording::{self, Header};
use crate::types::{CallId, StreamId};

/// Frames that wait for the disk.
const QUEUE: usize = 8192;
/// Files kept open.
const MAX_OPEN: usize = 256;
/// A stream is known this long after its last frame.
const FORGET: Duration = Duration::from_secs(3600);
/// Lines gathered before a write.
const BATCH_BYTES: usize = 64 << 10;

/// `[record]`.
#[derive(Debug, Clone)]
pub struct RecordConfig {
    /// Where files go: `CALL.STREAM.jsonl`, then `CALL.STREAM.2.jsonl` and so on.
    pub dir: PathBuf,
    /// Whether words are kept; without them, `words` is an empty list.
    pub words: bool,
    /// A file is followed by another one at this size, bytes.
    pub max_file_bytes: u64,
}

impl RecordConfig {
    /// Reads the section; relative paths are taken from `base`. `None` where there is none: nothing is recorded.
    pub fn read(value: Option<Value>, base: &Path, problems: &mut Problems) -> Option<Self> {
        value.as_ref()?;
        let mut section = Section::new("record", value, problems);
        let dir = section.string("dir");
        if dir.is_none() && !section.has("dir") {
            section.problem("dir", "required, the folder for recordings");
        }
        let words = section.boolean("words").unwrap_or(true);
        let max_file_bytes = section.integer("max_file_bytes", 4096..=1 << 40).unwrap_or(256 << 20);
        section.finish();
        Some(Self { dir: base.join(dir?), words, max_file_bytes })
    }
}

struct Line {
    track: Arc<Name>,
    at: Duration,
    message: Utf8Bytes,
}

#[derive(Debug)]
struct Name {
    stem: String,
    dialect: &'static str,
}

/// Writes what it is given, or nothing at all. Clones write to the same folder.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    queue: Option<SyncSender<Line>>,
    dropped: Counter<u64, AtomicU64>,
}

impl Recorder {
    /// Starts the writing thread, where there is something to record.
    ///
    /// # Errors
    /// The folder cannot be made, or the thread not be started.
    pub fn start(config: Option<RecordConfig>, registry: &mut Registry) -> std::io::Result<Self> {
        let dropped = Counter::default();
        registry.register("sidetone_record_dropped_frames", "Frames that were not recorded", dropped.clone());
        let Some(config) = config else { return Ok(Self { queue: None, dropped }) };
        std::fs::create_dir_all(&config.dir)?;
        let (queue, lines) = sync_channel(QUEUE);
        std::thread::Builder::new().name("record".to_owned()).spawn(move || write(&config, &lines))?;
        Ok(Self { queue: Some(queue), dropped })
    }

    /// The track of a stream; `None` where nothing is recorded.
    pub fn track(&self, call: &CallId, stream: &StreamId, dialect: &'static str) -> Option<Track> {
        let queue = self.queue.clone()?;
        let name = Arc::new(Name { stem: format!("{call}.{stream}"), dialect });
        Some(Track { name, queue, dropped: self.dropped.clone(), began: Instant::now() })
    }
}

/// A stream being recorded.
#[derive(Debug)]
pub struct Track {
    name: Arc<Name>,
    queue: SyncSender<Line>,
    dropped: Counter<u64, AtomicU64>,
    began: Instant,
}

impl Track {
    /// Records a frame, or counts it as dropped. Never waits.
    pub fn frame(&self, message: &Utf8Bytes) {
        let line = Line { track: Arc::clone(&self.name), at: self.began.elapsed(), message: message.clone() };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(line) {
            self.dropped.inc();
        }
    }
}

/// A stream's newest file.
struct Open {
    path: PathBuf,
    file: Option<File>,
    last: Instant,
    bytes: u64,
    number: u32,
    /// Lines that are not written yet.
    pending: Vec<u8>,
}

fn write(config: &RecordConfig, lines: &Receiver<Line>) {
    let mut open: std::collections::HashMap<String, Open> = std::collections::HashMap::new();
    while let Ok(first) = lines.recv() {
        let mut gathered = 0;
        let mut next = Some(first);
        while let Some(line) = next.take() {
            match add(config, &mut open, &line) {
                Ok(bytes) => gathered += bytes,
                Err(error) => tracing::warn!(%error, track = line.track.stem, "a frame is not recorded"),
            }
            if gathered < BATCH_BYTES {
                next = lines.try_recv().ok();
            }
        }
        for (stem, track) in &mut open {
            if let Err(error) = flush(track) {
                tracing::warn!(%error, track = stem, "frames are not recorded");
            }
        }
        if open.len() > MAX_OPEN {
            // A file is taken up again where a stream goes on; one that does not is forgotten.
            let now = Instant::now();
            open.retain(|_, track| now.duration_since(track.last) < FORGET);
            open.values_mut().for_each(|track| track.file = None);
        }
    }
}

fn flush(track: &mut Open) -> std::io::Result<()> {
    if track.pending.is_empty() {
        return Ok(());
    }
    let file = match &mut track.file {
        Some(file) => file,
        closed => closed.insert(OpenOptions::new().append(true).open(&track.path)?),
    };
    file.write_all(&track.pending)?;
    track.bytes += track.pending.len() as u64;
    track.pending.clear();
    Ok(())
}

/// Adds a line to its file, which is made, or followed by another, as need be.
fn add(
    config: &RecordConfig,
    open: &mut std::collections::HashMap<String, Open>,
    line: &Line,
) -> std::io::Result<usize> {
    let message = if config.words { line.message.to_string() } else { without_words(&line.message) };
    // What is no JSON object cannot stand in a recording.
    if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&message).is_err() {
        return Ok(0);
    }
    let mut text = recording::write_frame(line.at, &message);
    text.push('\n');
    let stem = &line.track.stem;
    let full = open
        .get(stem)
        .is_some_and(|track| track.bytes + (track.pending.len() + text.len()) as u64 > config.max_file_bytes);
    if full && let Some(mut track) = open.remove(stem) {
        flush(&mut track)?;
        open.insert(stem.clone(), begin(config, line, track.number + 1)?);
    }
    if !open.contains_key(stem) {
        open.insert(stem.clone(), begin(config, line, 1)?);
    }
    if let Some(track) = open.get_mut(stem) {
        track.pending.extend_from_slice(text.as_bytes());
        track.last = Instant::now();
    }
    Ok(text.len())
}

/// The next file of a stream that is not there yet, with its first line.
fn begin(config: &RecordConfig, line: &Line, number: u32) -> std::io::Result<Open> {
    let mut number = number;
    loop {
        let stem = &line.track.stem;
        let name = if number == 1 { format!("{stem}.jsonl") } else { format!("{stem}.{number}.jsonl") };
        let path = config.dir.join(name);
        match OpenOptions::new().create_new(true).append(true).open(&path) {
            Ok(file) => {
                let header = Header { dialect: line.track.dialect.to_owned(), ..Header::default() };
                let mut pending = recording::write_header(&header).into_bytes();
                pending.push(b'\n');
                return Ok(Open { path, file: Some(file), last: Instant::now(), bytes: 0, number, pending });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The same frame with every `words` list empty.
fn without_words(message: &str) -> String {
    fn clear(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        serde_json::Value::Array(words) if name == "words" => words.clear(),
                        field => clear(field),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(clear),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(message) else { return message.to_owned() };
    clear(&mut value);
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(config: RecordConfig, frames: &[&'static str]) -> Vec<(String, recording::Recording)> {
        let recorder = Recorder::start(Some(config.clone()), &mut Registry::default()).expect("recorder");
        let (call, stream) = (CallId::parse("c_1").expect("id"), StreamId::parse("s_1").expect("id"));
        let track = recorder.track(&call, &stream, "assemblyai").expect("track");
        for frame in frames {
            track.frame(&Utf8Bytes::from_static(frame));
        }
        let wanted = frames.iter().filter(|frame| frame.starts_with('{')).count();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut files: Vec<_> =
                std::fs::read_dir(&config.dir).expect("dir").map(|entry| entry.expect("entry").path()).collect();
            files.sort();
            let read: Option<Vec<_>> = files
                .iter()
                .map(|path| {
                    let recording = recording::parse(&std::fs::read_to_string(path).expect("text")).ok()?;
                    Some((path.file_name()?.to_string_lossy().into_owned(), recording))
                })
                .collect();
            match read {
                Some(read) if read.iter().map(|(_, recording)| recording.frames.len()).sum::<usize>() == wanted => {
                    return read;
                }
                _ => assert!(Instant::now() < deadline, "not all written: {files:?}"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn frames_are_written_as_they_came_and_files_rotate() {
        let folder = tempfile::tempdir().expect("folder");
        let config = RecordConfig { dir: folder.path().into(), words: true, max_file_bytes: 200 };
        let frame = r#"{"type":"Turn",  "turn_order":0, "words":[{"text":"a"}]}"#;
        let files = recorded(config, &[frame, "no JSON", frame, frame, frame, frame]);
        assert!(files.len() > 1, "{files:?}");
        assert_eq!(files[0].0, "c_1.s_1.2.jsonl");
        for (_, recording) in &files {
            assert_eq!(recording.header.dialect, "assemblyai");
            assert!(recording.frames.iter().all(|written| &*written.message == frame));
        }
    }

    #[test]
    fn words_may_be_left_out() {
        let folder = tempfile::tempdir().expect("folder");
        let config = RecordConfig { dir: folder.path().into(), words: false, max_file_bytes: 1 << 20 };
        let files = recorded(config, &[r#"{"type":"Turn","words":[{"text":"a"}],"x":[{"words":[1]}]}"#]);
        assert_eq!(&*files[0].1.frames[0].message, r#"{"type":"Turn","words":[],"x":[{"words":[]}]}"#);
    }
}
