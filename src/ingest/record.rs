//! `[record]`: writes live sessions to files as they arrive, in the format of recordings.
//!
//! A file holds one connection of one stream, as its decoder received it. After a reconnect, a restart of the daemon,
//! or when a file is full, the next file begins. Recording never makes a session wait: frames go through a bounded
//! queue to a thread that writes them. Frames that the queue or the disk cannot take are dropped, counted and logged.
//! Every write ends with a whole line, so that a killed daemon leaves files that can be replayed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use toml::Value;

use crate::base::metric::Register as _;
use crate::base::settings::{Problems, Section};
use crate::base::surrogates;
use crate::base::ws::Utf8Bytes;
use crate::recording::{self, Header};
use crate::types::{CallId, StreamId};

/// Maximum number of frames that wait for the disk.
const QUEUE: usize = 8192;
/// Maximum number of open files.
const MAX_OPEN: usize = 256;
/// A track that was never closed is forgotten after this long without a frame.
const FORGET: Duration = Duration::from_secs(3600);
/// Frame loss is logged at most once in this interval.
const QUIET: Duration = Duration::from_secs(60);
/// Lines are gathered up to this size before a write, bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Section `[record]`.
#[derive(Debug, Clone)]
pub struct RecordConfig {
    /// Folder of the files: `CALL.STREAM.jsonl`, then `CALL.STREAM.2.jsonl` and so on; see [`stem`].
    pub dir: PathBuf,
    /// Set if words are recorded; otherwise `words` is an empty list.
    pub words: bool,
    /// At this size the next file begins, bytes.
    pub max_file_bytes: u64,
}

impl RecordConfig {
    /// Reads the section; relative paths are resolved against `base`. `None` if there is no section: nothing is
    /// recorded.
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

/// Longest stem of a file name, bytes. File systems allow 255 for the whole name, and `.N.jsonl` follows.
const STEM_BYTES: usize = 220;

/// Stem of a stream's file names, unique per call and stream: `CALL.STREAM`, with dots in the ids escaped as `%2E`. A stem
/// over the limit is truncated and gets a hash.
fn stem(call: &CallId, stream: &StreamId) -> String {
    let plain = |id: &str| id.replace('.', "%2E");
    let (call, stream) = (plain(call.as_str()), plain(stream.as_str()));
    let stem = format!("{call}.{stream}");
    if stem.len() <= STEM_BYTES {
        return stem;
    }
    // The name is unambiguous, because in other stems a percent sign is always followed by `2E`.
    let hash = hex::encode(&Sha256::digest(&stem)[..16]);
    let part = |id: &str| id[..id.len().min((STEM_BYTES - 2 - hash.len()) / 2)].to_owned();
    format!("{}.{}%{hash}", part(&call), part(&stream))
}

struct Line {
    track: Arc<Name>,
    at: Duration,
    /// `None` marks the end of the track.
    message: Option<Utf8Bytes>,
}

#[derive(Debug)]
struct Name {
    number: u64,
    stem: String,
    dialect: &'static str,
}

/// Records to a folder, or does nothing if recording is off. Clones write to the same folder.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    queue: Option<SyncSender<Line>>,
    tracks: Arc<AtomicU64>,
    dropped: Counter<u64, AtomicU64>,
}

impl Recorder {
    /// Starts the writing thread, if recording is on.
    ///
    /// # Errors
    /// The folder cannot be made, or the thread cannot be started.
    pub fn start(config: Option<RecordConfig>, registry: &mut Registry) -> std::io::Result<Self> {
        let dropped: Counter<u64, AtomicU64> =
            registry.metric("sidetone_record_dropped_frames", "Frames that were not recorded");
        let Some(config) = config else { return Ok(Self { dropped, ..Self::default() }) };
        std::fs::create_dir_all(&config.dir)?;
        let (queue, lines) = sync_channel(QUEUE);
        let writer = Writer { config, open: HashMap::new(), lost: None, dropped: dropped.clone() };
        std::thread::Builder::new().name("record".to_owned()).spawn(move || writer.run(&lines))?;
        Ok(Self { queue: Some(queue), tracks: Arc::default(), dropped })
    }

    /// The track of one connection of a stream; `None` if recording is off.
    pub fn track(&self, call: &CallId, stream: &StreamId, dialect: &'static str) -> Option<Track> {
        let queue = self.queue.clone()?;
        let number = self.tracks.fetch_add(1, Ordering::Relaxed);
        let name = Arc::new(Name { number, stem: stem(call, stream), dialect });
        Some(Track { name, queue, dropped: self.dropped.clone(), began: Instant::now() })
    }
}

/// A connection that is recorded. Dropping it ends its track.
#[derive(Debug)]
pub struct Track {
    name: Arc<Name>,
    queue: SyncSender<Line>,
    dropped: Counter<u64, AtomicU64>,
    began: Instant,
}

impl Track {
    /// Records a frame, or counts it as dropped if the queue is full. Never waits.
    pub fn frame(&self, message: &Utf8Bytes) {
        if !self.put(Some(message.clone())) {
            self.dropped.inc();
        }
    }

    fn put(&self, message: Option<Utf8Bytes>) -> bool {
        self.queue.try_send(Line { track: Arc::clone(&self.name), at: self.began.elapsed(), message }).is_ok()
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        // If the queue is full, the writer forgets the track later by itself.
        self.put(None);
    }
}

/// The newest file of a track.
struct Open {
    name: Arc<Name>,
    path: PathBuf,
    file: Option<File>,
    last: Instant,
    /// Size of the whole lines in the file, bytes.
    bytes: u64,
    number: u32,
    /// Lines that are not written yet, their number, and the length of the first one if it is the file's first.
    pending: Vec<u8>,
    lines: u64,
    header: usize,
}

/// The state of the writing thread.
struct Writer {
    config: RecordConfig,
    open: HashMap<u64, Open>,
    /// When frames were last lost.
    lost: Option<Instant>,
    dropped: Counter<u64, AtomicU64>,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Line>) {
        while let Ok(first) = lines.recv() {
            let (mut gathered, mut over) = (0, Vec::new());
            let mut next = Some(first);
            while let Some(line) = next.take() {
                match &line.message {
                    Some(message) => gathered += self.add(&line, message),
                    None => over.push(line.track.number),
                }
                if gathered < BATCH_BYTES {
                    next = lines.try_recv().ok();
                }
            }
            let all: Vec<u64> = self.open.keys().copied().collect();
            all.into_iter().for_each(|track| self.flush(track));
            for track in over {
                self.open.remove(&track);
            }
            if self.open.len() > MAX_OPEN {
                // A file is opened again when its stream continues; a track that does not continue is forgotten.
                let now = Instant::now();
                self.open.retain(|_, track| now.duration_since(track.last) < FORGET);
                self.open.values_mut().for_each(|track| track.file = None);
            }
        }
    }

    /// Adds a line to its track's file, and begins a file if there is none or the last one is full. Returns the line's
    /// length.
    fn add(&mut self, line: &Line, message: &str) -> usize {
        let message = if self.config.words { message.to_owned() } else { without_words(message) };
        // A line of a recording must contain a JSON object.
        if !message.trim_ascii_start().starts_with('{') || serde_json::from_str::<IgnoredAny>(&message).is_err() {
            return 0;
        }
        let mut text = recording::write_frame(line.at, &message);
        text.push('\n');
        let track = line.track.number;
        let mut number = 1;
        let limit = self.config.max_file_bytes;
        if let Some(open) = self.open.get(&track)
            && open.bytes + (open.pending.len() + text.len()) as u64 > limit
            && open.bytes + open.lines > 0
        {
            number = open.number + 1;
            self.flush(track);
            self.open.remove(&track);
        }
        let open = match self.open.entry(track) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => match begin(&self.config.dir, &line.track, number) {
                Ok(open) => vacant.insert(open),
                Err(error) => {
                    self.lost(1, &line.track, &error);
                    return text.len();
                }
            },
        };
        open.pending.extend_from_slice(text.as_bytes());
        open.lines += 1;
        open.last = Instant::now();
        text.len()
    }

    /// Writes the pending lines, or counts them as lost: they are not kept, because that would fill the memory.
    fn flush(&mut self, track: u64) {
        let Some(open) = self.open.get_mut(&track).filter(|open| open.lines > 0) else { return };
        let (lines, written) = (open.lines, open.write());
        let name = Arc::clone(&open.name);
        if let Err(error) = written {
            // A file that was deleted is not made again: the next frame begins another one.
            if error.kind() == std::io::ErrorKind::NotFound {
                self.open.remove(&track);
            }
            self.lost(lines, &name, &error);
        }
    }

    fn lost(&mut self, frames: u64, track: &Name, error: &std::io::Error) {
        self.dropped.inc_by(frames);
        let now = Instant::now();
        // Logged once, not for every frame, nor each time some space becomes free and is used up.
        if self.lost.replace(now).is_none_or(|before| now.duration_since(before) > QUIET) {
            tracing::warn!(%error, track = track.stem, "frames are not recorded; the sessions go on");
        }
    }
}

impl Open {
    /// Writes the pending lines completely or not at all. Afterwards nothing is pending, except the first line of a
    /// file that could not be made yet.
    fn write(&mut self) -> std::io::Result<()> {
        let result = self.append();
        self.lines = 0;
        match result {
            Ok(()) => {
                self.bytes += self.pending.len() as u64;
                self.header = 0;
                self.pending.clear();
            }
            Err(_) => self.pending.truncate(self.header),
        }
        result
    }

    fn append(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(OpenOptions::new().append(true).open(&self.path)?),
        };
        let written = file.write_all(&self.pending);
        if written.is_err() {
            // An incomplete line would make the following lines unreadable. If the truncation fails too, the file gets
            // no more lines.
            file.set_len(self.bytes)?;
        }
        written
    }
}

/// Prepares the stream's next file, with its first line pending.
fn begin(dir: &Path, name: &Arc<Name>, number: u32) -> std::io::Result<Open> {
    let mut number = number;
    loop {
        let stem = &name.stem;
        let path = dir.join(if number == 1 { format!("{stem}.jsonl") } else { format!("{stem}.{number}.jsonl") });
        match OpenOptions::new().create_new(true).append(true).open(&path) {
            Ok(file) => {
                let header = Header { dialect: name.dialect.to_owned(), ..Header::default() };
                let mut pending = recording::write_header(&header).into_bytes();
                pending.push(b'\n');
                let header = pending.len();
                let (name, file) = (Arc::clone(name), Some(file));
                return Ok(Open {
                    name,
                    path,
                    file,
                    last: Instant::now(),
                    bytes: 0,
                    number,
                    pending,
                    lines: 0,
                    header,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The same frame, with every `words` list emptied.
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
    let Ok(mut value) = surrogates::from_str::<serde_json::Value>(message) else { return message.to_owned() };
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
        drop(track);
        let wanted = frames.iter().filter(|frame| frame.starts_with('{')).count();
        read(&config.dir, wanted)
    }

    /// The folder's recordings by name, once they hold so many frames.
    fn read(dir: &Path, wanted: usize) -> Vec<(String, recording::Recording)> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut files: Vec<_> =
                std::fs::read_dir(dir).expect("dir").map(|entry| entry.expect("entry").path()).collect();
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
    fn file_names_are_unique_per_stream_and_not_too_long() {
        let of =
            |call: &str, stream: &str| stem(&CallId::parse(call).expect("id"), &StreamId::parse(stream).expect("id"));
        assert_eq!(of("c_1", "s_1"), "c_1.s_1");
        assert_eq!(of("a.b", "c"), "a%2Eb.c");
        let (long, longer) = ("x".repeat(127), "x".repeat(128));
        let dots = format!("a{}", ".".repeat(127));
        let ids = ["a", "b", "c", "a.b", "b.c", "2", "a.2", &long, &longer, &dots];
        let mut stems = HashMap::new();
        for call in ids {
            for stream in ids {
                let stem = of(call, stream);
                assert!(stem.len() <= STEM_BYTES && stem.is_ascii() && !stem.starts_with('.'), "{stem}");
                // One dot: it cannot be the name of another stream's second file.
                assert_eq!(
                    (stem.matches('.').count(), stems.insert(stem.clone(), (call, stream))),
                    (1, None),
                    "{stem}"
                );
            }
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

    #[test]
    fn a_connection_that_comes_back_and_a_folder_with_files_go_on_in_the_next() {
        let folder = tempfile::tempdir().expect("folder");
        let config = RecordConfig { dir: folder.path().into(), words: true, max_file_bytes: 1 << 20 };
        let (call, stream) = (CallId::parse("c_1").expect("id"), StreamId::parse("s_1").expect("id"));
        std::fs::write(
            folder.path().join("c_1.s_1.2.jsonl"),
            format!("{}\n", recording::write_frame(Duration::ZERO, "{}")),
        )
        .expect("an earlier daemon's");
        let recorder = Recorder::start(Some(config), &mut Registry::default()).expect("recorder");
        // The first is still there, as a connection is that nobody has noticed is gone.
        let tracks: Vec<Track> = (0..2).map(|_| recorder.track(&call, &stream, "deepgram").expect("track")).collect();
        for text in [r#"{"n":1}"#, r#"{"n":2}"#] {
            for track in &tracks {
                track.frame(&Utf8Bytes::from_static(text));
            }
        }
        let files = read(folder.path(), 5);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c_1.s_1.2.jsonl", "c_1.s_1.3.jsonl", "c_1.s_1.jsonl"]);
        for (_, recording) in &files[1..] {
            let frames: Vec<&str> = recording.frames.iter().map(|frame| &*frame.message).collect();
            assert_eq!(frames, [r#"{"n":1}"#, r#"{"n":2}"#]);
        }
    }

    #[test]
    fn a_file_that_is_taken_away_is_followed_by_another() {
        let folder = tempfile::tempdir().expect("folder");
        let config = RecordConfig { dir: folder.path().into(), words: true, max_file_bytes: 1 << 20 };
        let name = Arc::new(Name { number: 0, stem: "c.s".to_owned(), dialect: "sidetone" });
        let dropped = Counter::default();
        let mut writer = Writer { config, open: HashMap::new(), lost: None, dropped: dropped.clone() };
        let mut put = |text: &str, close: bool| {
            let line = Line { track: Arc::clone(&name), at: Duration::ZERO, message: None };
            writer.add(&line, text);
            if close {
                writer.open.values_mut().for_each(|open| open.file = None);
            }
            writer.flush(0);
            (writer.lost.is_some(), dropped.get())
        };
        let path = folder.path().join("c.s.jsonl");
        assert_eq!(put(r#"{"n":1}"#, false), (false, 0));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(put(r#"{"n":2}"#, true), (true, 1));
        assert_eq!(put(r#"{"n":3}"#, false), (true, 1));
        let recording = recording::parse(&std::fs::read_to_string(&path).expect("text")).expect("recording");
        assert_eq!((recording.frames.len(), &*recording.frames[0].message), (1, r#"{"n":3}"#));
    }
}
